import type { Signal } from "@preact/signals";
import { diverging, type Theme } from "./colour";
import { stretchName, stretchWhy, type Example, type Stretch } from "./feature";
import { visible } from "./glyphs";
import { digits } from "./numbers";
import { placeOf, useRoving } from "./roving";
import { fullShade } from "./shaded";
import { Token } from "./token";

interface Props {
  examples: Example[];
  stretches: Stretch[];
  shade: "activation" | "effect";
  most: number;
  theme: Theme;
  look: Signal<string>;
}

/** Examples by quantile, tokens shaded; one Tab stop, up and down between examples, left and right within one. */
export function Examples({ examples, stretches, shade, most, theme, look }: Props) {
  const { box, tab, onKeyDown } = useRoving(examples.map(({ words }) => words.length));
  const full = shade === "effect" ? fullShade(...examples.map(({ effects }) => effects ?? [])) : most || 1;
  const hasEffects = examples.some(({ effects }) => effects);
  const say = (place: [number, number] | null) => {
    const one = place && examples[place[0]];
    look.value = one ? said(one, place[1]) : "";
  };
  return (
    <div
      ref={box}
      class={hasEffects ? "iv-examples iv-with-effects" : "iv-examples"}
      role="grid"
      aria-label="examples by quantile, the strongest first"
      onKeyDown={onKeyDown}
      onMouseOver={(event) => say(placeOf(event.target))}
      onMouseLeave={() => say(null)}
      onFocusIn={(event) => say(placeOf(event.target))}
    >
      {examples.map((one, row) => {
        const stretch = stretches[one.stretch];
        const isFirst = row === 0 || examples[row - 1]!.stretch !== one.stretch;
        const shown = shade === "effect" ? one.effects : one.values;
        const effect = one.effects ? one.effects[one.drawn] : undefined;
        return (
          <div class={isFirst ? "iv-example iv-example-first" : "iv-example"} role="row" key={row}>
            <span class="iv-num iv-example-side" role="rowheader" title={stretch && stretchWhy(stretch)}>
              {isFirst && stretch ? stretchName(stretch) : ""}
            </span>
            <span class="iv-example-text">
              {one.words.map((word, i) => {
                const value = shown?.[i] ?? NaN;
                return (
                  <span
                    key={i}
                    class={i === one.drawn ? "iv-shaded iv-peak" : "iv-shaded"}
                    role="gridcell"
                    data-at={`${row},${i}`}
                    data-lm-suppress-shortcuts="true"
                    tabIndex={tab(row, i)}
                    aria-label={`${visible(word)} ${digits(one.values[i]!)}`}
                    style={Number.isFinite(value) && value !== 0 ? diverging(value / full, theme) : undefined}
                  >
                    <Token text={word} reading="prose" />
                  </span>
                );
              })}
            </span>
            <span class="iv-num iv-example-side">{digits(one.values[one.drawn] ?? NaN)}</span>
            {hasEffects && <span class="iv-num iv-example-side">{effect === undefined ? "" : digits(effect, true)}</span>}
          </div>
        );
      })}
    </div>
  );
}

function said(one: Example, i: number): string {
  const effect = one.effects?.[i];
  return [
    visible(one.words[i] ?? ""),
    `activation ${digits(one.values[i] ?? NaN)}`,
    ...(effect !== undefined && Number.isFinite(effect) ? [`next token's loss ${digits(effect, true)} nat if removed`] : []),
    `id ${one.ids[i]}`,
    `text ${one.text}, token ${one.start + i}`,
  ].join(" · ");
}
