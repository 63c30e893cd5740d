import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Attended, PAGE, type Pinned, type Side, type Weights } from "../components/attended";
import { sequential, type Theme } from "../components/colour";
import { Choice, Frame, Verb, type Status } from "../components/frame";
import { readable, visible } from "../components/glyphs";
import { Grid, type At, type Cell } from "../components/grid";
import { mount, type Scene } from "../components/mount";
import { Shaded } from "../components/shaded";
import { unpack, type Packed } from "../wire";
import type { View } from "../sync";

const HEADING = "Attention";
// Rows that are drawn at ease; beyond, one layer at a time.
const MOST_ROWS = 96;
// Tokens of a text that are drawn at once.
const STRETCH = 384;
const COLUMN = 56;

interface About {
  model: string;
  words: string[];
  ids: number[];
  layers: string[];
  heads: [number, number][];
  is_held: boolean;
  ignored: string[];
}

function Attention({ sync, theme }: Scene) {
  const about = sync.trait<About>("about").value;
  const packed = sync.trait<Packed | null>("patterns");
  const saved = sync.trait<Pinned | null>("pinned");
  const head = sync.trait<number>("head");
  const token = sync.trait<number>("token");
  const side = sync.trait<Side>("side");
  const layer = sync.trait<number>("layer");
  const status = sync.trait<Status>("status").value;
  const all = useComputed(() => (packed.value ? unpack(packed.value) : null));
  const kept = useComputed(() => (saved.value ? { at: saved.value, weights: unpack(saved.value.weights) } : null));
  const attended = useMemo(() => new Attended(sync), [sync]);
  const look = useSignal<{ head: number; pos: number } | null>(null);
  const span = useSignal<[number, number]>([0, PAGE]);
  const words = about.words ?? [];
  const stretch = useSignal(Math.max(0, Math.min(token.value, words.length - 1) - STRETCH / 2));

  if (words.length === 0 || about.heads.length === 0) {
    return (
      <Frame title={HEADING} what="" life={sync.life.value} status={status}>
        <p class="iv-empty">nothing to show: iv.Attention(model, text)</p>
      </Frame>
    );
  }
  const at = Math.min(Math.max(0, token.value), words.length - 1);
  const many = about.heads.length > MOST_ROWS;
  const chosenLayer = many ? Math.max(0, layer.value) : layer.value;
  const rows = about.heads.map((_, i) => i).filter((i) => chosenLayer < 0 || about.heads[i]![0] === chosenLayer);
  const first = words.length <= STRETCH ? 0 : Math.min(Math.max(0, Math.floor(stretch.value)), words.length - STRETCH);
  const last = Math.min(words.length, first + STRETCH);
  attended.news.value;
  const weights = attended.of(at, side.value, words.length, all.value, kept.value);
  const isMissing = all.value === null && !(kept.value?.at.token === at && kept.value.at.side === side.value);
  useEffect(() => {
    if (isMissing) attended.want(at, side.value, pagesOf([span.peek(), [first, last]]));
  });

  const pinHead = (which: number) => sync.put("head", head.value === which ? -1 : which);
  const pinToken = (pos: number) => sync.put("token", pos);
  const shownHeads = head.value >= 0 ? [head.value] : rows;
  const strip = Float32Array.from({ length: last - first }, (_, i) => mean(weights, shownHeads, first + i));
  return (
    <Frame
      title={HEADING}
      what={`${readable(about.model)} · ${about.heads.length} heads · “${shortly(about.words)}”`}
      life={sync.life.value}
      status={status}
      verbs={
        <>
          <Choice
            label="direction"
            value={side.value}
            options={[
              { value: "from", label: "attends to", why: "what the pinned token attends to" },
              {
                value: "to",
                label: "is attended to by",
                why: about.is_held ? "which tokens attend to the pinned one" : "known where all patterns are held; this text is too long for that",
                disabled: !about.is_held,
              },
            ]}
            onPick={(value) => sync.put("side", value)}
          />
          <LayerChoice about={about} value={chosenLayer} many={many} onPick={(value) => sync.put("layer", value)} />
        </>
      }
      foot={<Foot about={about} />}
    >
      {attended.trouble.value && (
        <p class="iv-note iv-note-bad" role="alert">
          {attended.trouble.value}
        </p>
      )}
      <div class="iv-stretch">
        <span>
          {headName(about, head.value)}, token {at} “{visible(words[at]!)}” {side.value === "from" ? "attends to" : "is attended to by"}
        </span>
        {words.length > STRETCH && (
          <>
            <span>
              tokens {first} to {last - 1} of {words.length}
            </span>
            <Verb label="earlier" disabled={first === 0} onAct={() => (stretch.value = first - STRETCH / 2)} />
            <Verb label="later" disabled={last === words.length} onAct={() => (stretch.value = first + STRETCH / 2)} />
          </>
        )}
      </div>
      <Shaded
        key={first}
        label="the text; Enter pins a token"
        words={words.slice(first, last)}
        values={strip}
        most={1}
        theme={theme.value}
        unit=""
        picked={at - first}
        shade={(value) => sequential(value, theme.value)}
        said={(value) => share(value)}
        onLook={(i) => (look.value = i === null ? null : { head: head.value, pos: first + i })}
        onPick={(i) => pinToken(first + i)}
      />
      <div class="iv-attended">
        <Grid
          name={`heads by tokens, from token ${at}`}
          rows="layer and head"
          words={words}
          layers={rows.map(String)}
          rowName={(row) => rowName(about, Number(row))}
          column={COLUMN}
          cell={(cell: At) => cellOf(about, weights, rows[cell.layer]!, cell.pos, theme.value)}
          pinned={null}
          picked={rows.indexOf(head.value)}
          strips={[]}
          onLook={(cell) => (look.value = cell && { head: rows[cell.layer]!, pos: cell.pos })}
          onPin={(cell) => pinHead(rows[cell.layer]!)}
          onUnpin={() => sync.put("head", -1)}
          onSpan={(from, to) => {
            // Scrolling draws the grid anew, and not the text above it.
            span.value = [from, to];
            if (isMissing) attended.want(at, side.peek(), pagesOf([[from, to]]));
          }}
        />
      </div>
      <Said about={about} weights={weights} look={look} heads={shownHeads} />
    </Frame>
  );
}

function pagesOf(spans: [number, number][]): number[] {
  const found = new Set<number>();
  for (const [first, last] of spans) for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) found.add(page);
  return [...found];
}

function mean(weights: Weights, heads: number[], pos: number): number {
  let sum = 0;
  for (const head of heads) sum += weights(head, pos);
  return sum / heads.length;
}

function cellOf(about: About, weights: Weights, head: number, pos: number, theme: Theme): Cell {
  const value = weights(head, pos);
  return {
    text: Number.isFinite(value) ? (value < 0.005 ? "·" : value.toFixed(2).replace(/^0/, "")) : "…",
    shade: sequential(value, theme),
    label: `${headName(about, head)}, token ${pos} ${visible(about.words[pos]!)}: ${share(value)}`,
  };
}

const share = (value: number): string => (Number.isFinite(value) ? value.toPrecision(3) : "not read yet");

function rowName(about: About, head: number): string {
  const [layer, number] = about.heads[head] ?? [0, 0];
  return `${about.layers[layer]?.match(/\.(\d+)\./)?.[1] ?? layer}.${number}`;
}

function headName(about: About, head: number): string {
  return head < 0 || head >= about.heads.length ? "mean of the heads shown" : `head ${rowName(about, head)}`;
}

function LayerChoice(props: { about: About; value: number; many: boolean; onPick(layer: number): void }) {
  return (
    <label>
      layer{" "}
      <select class="iv-field" value={String(props.value)} onChange={(event) => props.onPick(Number(event.currentTarget.value))}>
        {!props.many && <option value="-1">all</option>}
        {props.about.layers.map((site, i) => (
          <option key={site} value={String(i)}>
            {site.match(/\.(\d+)\./)?.[1] ?? site}
          </option>
        ))}
      </select>
    </label>
  );
}

interface SaidProps {
  about: About;
  weights: Weights;
  look: Signal<{ head: number; pos: number } | null>;
  heads: number[];
}

function Said({ about, weights, look, heads }: SaidProps) {
  const at = look.value;
  const isInside = at && at.pos < about.words.length;
  const value = isInside ? (at.head >= 0 ? weights(at.head, at.pos) : mean(weights, heads, at.pos)) : NaN;
  return (
    <div class="iv-said" aria-live="polite">
      {isInside ? `${headName(about, at.head)} · token ${at.pos} ${visible(about.words[at.pos]!)} · id ${about.ids[at.pos]} · weight ${share(value)}` : "\u00a0"}
    </div>
  );
}

function Foot({ about }: { about: About }) {
  return (
    <>
      <span>weights after the softmax; click a token to pin it, a row to pin its head</span>
      <span>{about.words.length} tokens</span>
      {about.ignored.length > 0 && <span>attached and ignored here: {about.ignored.map(readable).join(", ")}</span>}
      <span>what moves along the weights: not measured</span>
    </>
  );
}

function shortly(words: string[]): string {
  const text = readable(words.slice(0, 60).join(""));
  return text.length > 90 || words.length > 60 ? `${text.slice(0, 89)}…` : text;
}

export default {
  render: (view: View) => mount(view, "attention", HEADING, Attention),
};
