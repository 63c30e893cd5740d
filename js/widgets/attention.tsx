import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Attended, isOf, PAGE, type Pinned, type Side, type Weights } from "../components/attended";
import { sequential, type Theme } from "../components/colour";
import { Choice, Frame, Verb, type Status } from "../components/frame";
import { readable, visible } from "../components/glyphs";
import { Grid, type At, type Cell } from "../components/grid";
import { mount, type Scene } from "../components/mount";
import { digits } from "../components/numbers";
import { Shaded } from "../components/shaded";
import { unpack, type Packed } from "../wire";
import type { View } from "../sync";

const HEADING = "Attention";
// Rows that are drawn at ease; beyond, one layer at a time.
const MOST_ROWS = 96;
// Tokens of a text that are drawn at once.
const STRETCH = 384;
const COLUMN = 56;
// Largest weights that are named, and the least that is shown as a number.
const MOST_LISTED = 8;
const LEAST = 0.005;
// Pages of one line that are read whether or not they are in sight.
const MOST_READ = 32;

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

  const isLong = words.length > STRETCH;
  // Far into a long text only a number says where one is.
  const columns = useMemo(() => (isLong ? words.map((word, pos) => `${pos} ${word}`) : words), [words]);
  const reveal = useSignal<{ pos: number } | null>(isLong ? { pos: token.peek() } : null);

  if (words.length === 0 || about.heads.length === 0) {
    return (
      <Frame title={HEADING} what="" life={sync.life.value} status={status}>
        <p class="iv-empty">nothing to show: iv.Attention(model, text)</p>
      </Frame>
    );
  }
  const at = Math.min(Math.max(0, token.value), words.length - 1);
  const byLayer = !about.is_held;
  const many = byLayer || about.heads.length > MOST_ROWS;
  // A head that is pinned brings its layer with it.
  const ofHead = about.heads[head.value]?.[0];
  const chosenLayer = many ? (ofHead ?? Math.max(0, layer.value)) : layer.value;
  const rows = about.heads.map((_, i) => i).filter((i) => chosenLayer < 0 || about.heads[i]![0] === chosenLayer);
  const first = !isLong ? 0 : Math.min(Math.max(0, Math.floor(stretch.value)), words.length - STRETCH);
  const last = Math.min(words.length, first + STRETCH);
  attended.news.value;
  const line = { token: at, side: side.value, layer: byLayer ? chosenLayer : -1, head: byLayer ? rows[0]! : 0 };
  const weights = attended.of(line, words.length, all.value, kept.value);
  const isMissing = all.value === null && !(kept.value && isOf(kept.value.at, line));
  useEffect(() => {
    if (isMissing) attended.want(line, pagesOf([span.peek(), [first, last], [0, Math.min(words.length, MOST_READ * PAGE)]]));
  });

  const pinHead = (which: number) => sync.put("head", head.value === which ? -1 : which);
  const pickLayer = (value: number) => {
    if (ofHead !== undefined && value >= 0 && ofHead !== value) sync.put("head", -1);
    sync.put("layer", value);
  };
  const pinToken = (pos: number) => sync.put("token", pos);
  const goTo = (pos: number) => {
    stretch.value = pos - STRETCH / 2;
    reveal.value = { pos };
  };
  const shownHeads = head.value >= 0 ? [head.value] : rows;
  // Read here, so that cells are drawn anew when it changes.
  const tone = theme.value;
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
                why: "which tokens attend to the pinned one",
              },
            ]}
            onPick={(value) => sync.put("side", value)}
          />
          <LayerChoice about={about} value={chosenLayer} many={many} onPick={pickLayer} />
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
        {isLong && (
          <>
            <span>
              tokens {first} to {last - 1} of {words.length}
            </span>
            {attended.isBusy.value && <span role="status">{byLayer ? `reading layer ${layerNumber(about, chosenLayer)}…` : "reading…"}</span>}
            <TokenField tokens={words.length} at={at} onPick={(pos) => (pinToken(pos), goTo(pos))} />
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
          words={columns}
          layers={rows.map(String)}
          rowName={(row) => rowName(about, Number(row))}
          column={COLUMN}
          cell={(cell: At) => cellOf(about, weights, rows[cell.layer]!, cell.pos, tone)}
          pinned={null}
          picked={rows.indexOf(head.value)}
          strips={[]}
          reveal={reveal.value}
          onLook={(cell) => (look.value = cell && { head: rows[cell.layer]!, pos: cell.pos })}
          onPin={(cell) => pinHead(rows[cell.layer]!)}
          onUnpin={() => sync.put("head", -1)}
          onSpan={(from, to) => {
            // Scrolling draws the grid anew, and not the text above it.
            span.value = [from, to];
            if (isMissing) attended.want(line, pagesOf([[from, to]]));
          }}
        />
      </div>
      {isLong && <Strongest about={about} weights={weights} heads={shownHeads} onGo={goTo} />}
      <Said about={about} weights={weights} look={look} heads={shownHeads} />
    </Frame>
  );
}

/** A token to pin by its number: a long text is not clicked through. */
function TokenField({ tokens, at, onPick }: { tokens: number; at: number; onPick(pos: number): void }) {
  return (
    <label>
      pin token{" "}
      <input
        class="iv-field iv-num iv-token-field"
        inputMode="numeric"
        title="type a token's number, then Enter"
        value={String(at)}
        onChange={(event) => {
          const pos = Number(event.currentTarget.value.replace(/[,\s]/g, ""));
          if (Number.isInteger(pos) && pos >= 0 && pos < tokens) onPick(pos);
          else event.currentTarget.value = String(at);
        }}
        onKeyDown={(event) => event.stopPropagation()}
      />
    </label>
  );
}

/** Where the largest weights of a long text are, however far away. */
function Strongest(props: { about: About; weights: Weights; heads: number[]; onGo(pos: number): void }) {
  const { about, weights, heads } = props;
  const found = strongest(about.words.length, (pos) => mean(weights, heads, pos));
  if (found.length === 0) return null;
  return (
    <div class="iv-strongest" role="group" aria-label="the largest weights">
      <span>largest:</span>
      {found.map(({ pos, value }) => (
        <button type="button" key={pos} title={`go to token ${pos}`} data-lm-suppress-shortcuts="true" onClick={() => props.onGo(pos)}>
          {pos} {visible(about.words[pos]!)} <span class="iv-num">{share(value)}</span>
        </button>
      ))}
    </div>
  );
}

function strongest(tokens: number, weight: (pos: number) => number): { pos: number; value: number }[] {
  const best: { pos: number; value: number }[] = [];
  for (let pos = 0; pos < tokens; pos++) {
    const value = weight(pos);
    if (!(value >= LEAST) || (best.length === MOST_LISTED && value <= best[MOST_LISTED - 1]!.value)) continue;
    best.push({ pos, value });
    best.sort((a, b) => b.value - a.value);
    best.length = Math.min(best.length, MOST_LISTED);
  }
  return best;
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
    text: Number.isFinite(value) ? (value < LEAST ? "·" : value.toFixed(2).replace(/^0/, "")) : "…",
    shade: sequential(value, theme),
    label: `${headName(about, head)}, token ${pos} ${visible(about.words[pos]!)}: ${share(value)}`,
  };
}

const share = (value: number): string => (Number.isFinite(value) ? digits(value) : "not read yet");

const layerNumber = (about: About, layer: number): string | number => about.layers[layer]?.match(/\.(\d+)\./)?.[1] ?? layer;

function rowName(about: About, head: number): string {
  const [layer, number] = about.heads[head] ?? [0, 0];
  return `${layerNumber(about, layer)}.${number}`;
}

function headName(about: About, head: number): string {
  return head < 0 || head >= about.heads.length ? "mean of the heads shown" : `head ${rowName(about, head)}`;
}

function LayerChoice(props: { about: About; value: number; many: boolean; onPick(layer: number): void }) {
  return (
    <label>
      layer{" "}
      <select data-lm-suppress-shortcuts="true" class="iv-field" value={String(props.value)} onChange={(event) => props.onPick(Number(event.currentTarget.value))}>
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
