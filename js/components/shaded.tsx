import { useRef, useState } from "preact/hooks";
import { diverging, type Shade, type Theme } from "./colour";
import { visible } from "./glyphs";
import { digits } from "./numbers";
import { Token } from "./token";

interface Props {
  label: string;
  words: string[];
  /** One value a token; NaN where none is known yet. */
  values: ArrayLike<number>;
  most: number;
  theme: Theme;
  unit: string;
  /** How many of the first tokens are set in the softer ink: the prompt. */
  soft?: number;
  /** Tokens that begin a new text, and so a new line. */
  starts?: number[];
  onLook(index: number | null): void;
  /** A token chosen by a click or Enter, and the one that is. */
  onPick?(index: number): void;
  picked?: number;
  /** Other shades than those of signed values. */
  shade?(value: number): Shade;
  /** What `aria-label` says of a value. */
  said?(value: number): string;
}

/** Text whose tokens are shaded by signed values; one Tab stop, arrow keys inside. */
export function Shaded({ label, words, values, most, theme, unit, soft = 0, starts = [], onLook, ...more }: Props) {
  const [at, setAt] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const focus = Math.min(at, words.length - 1);
  const go = (to: number) => {
    const next = Math.min(words.length - 1, Math.max(0, to));
    setAt(next);
    box.current?.querySelector<HTMLElement>(`[data-i="${next}"]`)?.focus();
  };
  const onKey = (event: KeyboardEvent) => {
    if (more.onPick && (event.key === "Enter" || event.key === " ")) {
      more.onPick(focus);
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const to = { ArrowLeft: focus - 1, ArrowRight: focus + 1, Home: 0, End: words.length - 1 }[event.key];
    if (to === undefined) return;
    go(to);
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      ref={box}
      class="iv-strip-text"
      role="listbox"
      aria-label={label}
      aria-orientation="horizontal"
      onKeyDown={onKey}
      onMouseOver={(event) => onLook(index(event.target))}
      onMouseLeave={() => onLook(null)}
      onClick={(event) => {
        const chosen = index(event.target);
        if (chosen === null || !more.onPick) return;
        setAt(chosen);
        more.onPick(chosen);
      }}
    >
      {words.map((word, i) => {
        const value = values[i] ?? NaN;
        const known = Number.isFinite(value);
        return [
          i > 0 && starts.includes(i) && <br key={`line ${i}`} />,
          <span
            key={i}
            class={["iv-shaded", i < soft && !known ? "iv-prompt-part" : "", i === soft && soft > 0 ? "iv-written" : "", i === more.picked ? "iv-picked" : ""].filter(Boolean).join(" ")}
            role="option"
            aria-selected={i === (more.picked ?? focus)}
            aria-label={`${visible(word)} ${known ? (more.said?.(value) ?? `${digits(value, true)} ${unit}`) : ""}`}
            data-i={i}
            data-lm-suppress-shortcuts="true"
            tabIndex={i === focus ? 0 : -1}
            style={known ? (more.shade?.(value) ?? diverging(value / most, theme)) : {}}
            onFocus={() => onLook(i)}
          >
            <Token text={word} reading="prose" />
          </span>,
        ];
      })}
    </div>
  );
}

function index(target: EventTarget | null): number | null {
  const i = (target as Element | null)?.closest?.<HTMLElement>("[data-i]")?.dataset.i;
  return i === undefined ? null : Number(i);
}

/** The largest size worth the fullest shade: an outlier (the first token often is one) must not pale the rest. */
export function fullShade(...series: ArrayLike<number>[]): number {
  const sizes = series.flatMap((values) => Array.from(values, Math.abs)).filter(Number.isFinite).sort((a, b) => a - b);
  if (sizes.length === 0) return 1;
  return Math.max(sizes[Math.floor((sizes.length - 1) * 0.95)]!, 1e-6);
}
