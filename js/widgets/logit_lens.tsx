import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ActingList, useActing } from "../components/acting";
import { diverging, sequential, type Theme } from "../components/colour";
import { RankCurve } from "../components/curve";
import { Choice, Frame, Verb, type Status } from "../components/frame";
import { Grid, layerName, type At, type Cell, type Strip } from "../components/grid";
import { LensTable, type LensWire } from "../components/lens";
import { Look } from "../components/look";
import { mount, type Scene } from "../components/mount";
import { digits, percent } from "../components/numbers";
import { readable, visible } from "../components/glyphs";
import { arrived, unpack, type Tensor } from "../wire";
import type { Sync, View } from "../sync";

type Shading = "probability" | "rank";
type Showing = "this" | "other" | "both" | "difference";

const HEADING = "Logit lens";
// A long text is sent with fewer words a cell; a pinned cell then asks for the rest.
const FULL = 10;

function LogitLens({ sync, theme }: Scene) {
  const wire = sync.trait<LensWire | null>("lens");
  const otherWire = sync.trait<LensWire | null>("other");
  const status = sync.trait<Status>("status");
  const shading = sync.trait<Shading>("shade");
  const showing = sync.trait<Showing>("show");
  const pinned = sync.trait<[number, number] | null>("pinned");
  const table = useComputed(() => (wire.value ? new LensTable(wire.value) : null));
  const other = useComputed(() => (otherWire.value ? new LensTable(otherWire.value) : null));
  const asking = useSignal(false);
  const look = useSignal<{ at: At; which: "this" | "other" } | null>(null);
  const life = sync.life.value;

  const main = table.value;
  if (!main) {
    const loading = status.value.state === "loading";
    return (
      <Frame title={HEADING} what="" life={life} status={status.value}>
        <p class="iv-empty">{loading ? "reading every layer…" : "nothing to show: iv.LogitLens(iv.logit_lens(model, text))"}</p>
      </Frame>
    );
  }
  const second = other.value;
  const show = second ? showing.value : "this";
  const pin = (at: At) => {
    const same = pinned.value?.[0] === at.layer && pinned.value[1] === at.pos;
    sync.put("pinned", same ? null : [at.layer, at.pos]);
  };
  // Read here, so that cells are drawn anew when they change.
  const [shade, tone] = [shading.value, theme.value];
  const grid = (which: "this" | "other", isDifference: boolean) => {
    const shown = which === "this" ? main : second!;
    return (
      <Grid
        key={which}
        name={`${HEADING}: ${readable(shown.wire.label)}`}
        words={shown.words}
        layers={shown.layers}
        cell={(at) => (isDifference ? differenceCell(shown, at, tone) : plainCell(shown, at, shade, tone))}
        pinned={pinned.value && { layer: pinned.value[0], pos: pinned.value[1] }}
        strips={strips(shown)}
        onLook={(at) => (look.value = at && { at, which })}
        onPin={pin}
        onUnpin={() => sync.put("pinned", null)}
      />
    );
  };
  const label = (which: LensTable) => show !== "this" && <div class="iv-lens-label">{readable(which.wire.label)}</div>;
  return (
    <Frame
      title={HEADING}
      what={`${main.wire.model} · ${main.wire.site} · “${readable(main.wire.text)}”`}
      life={life}
      status={status.value}
      verbs={
        <>
          <Choice
            label="shading"
            value={shading.value}
            options={[
              { value: "probability", label: "probability", why: "shade by the top word's probability" },
              { value: "rank", label: "rank", why: "shade by the rank of the last layer's word" },
            ]}
            onPick={(value) => sync.put("shade", value)}
          />
          {second && (
            <Choice
              label="what is shown"
              value={show}
              options={[
                { value: "this", label: short(main.wire.label, "first"), why: readable(main.wire.label) },
                { value: "other", label: short(second.wire.label, "second"), why: readable(second.wire.label) },
                { value: "both", label: "both" },
                {
                  value: "difference",
                  label: "difference",
                  disabled: !second.hasGain,
                  why: second.hasGain ? "" : `the texts have ${main.words.length} and ${second.words.length} tokens`,
                },
              ]}
              onPick={(value) => sync.put("show", value)}
            />
          )}
          <Verb
            label="compare…"
            disabled={life === "page"}
            why={life === "page" ? "a saved page has no kernel" : "read a second text beside this one"}
            pressed={asking.value}
            onAct={() => (asking.value = !asking.value)}
          />
        </>
      }
      foot={<Foot table={main} second={second} show={show} shading={shading.value} />}
    >
      {asking.value && <Compare sync={sync} hasOther={second !== null} onDone={() => (asking.value = false)} />}
      <div class="iv-lens-body">
        <div>
          {show !== "other" && show !== "difference" && (
            <>
              {label(main)}
              {grid("this", false)}
            </>
          )}
          {(show === "other" || show === "both") && (
            <>
              {label(second!)}
              {grid("other", false)}
            </>
          )}
          {show === "difference" && (
            <>
              <div class="iv-lens-label">
                {readable(second!.wire.label)} less {readable(main.wire.label)}: the top word, and what its probability gained
              </div>
              {grid("other", true)}
            </>
          )}
        </div>
        <Side sync={sync} table={main} other={second} look={look} pinned={pinned} />
      </div>
    </Frame>
  );
}

const short = (label: string, otherwise: string) => (label.length <= 16 ? readable(label) : otherwise);

function plainCell(table: LensTable, at: At, shading: Shading, theme: Theme): Cell {
  const top = table.top(at);
  const rank = table.finalRank(at);
  const share = shading === "probability" ? top.p : 1 - Math.log1p(rank) / Math.log1p(table.deepest);
  const number = shading === "probability" ? percent(top.p) : `last layer's word at rank ${rank + 1}`;
  return {
    text: top.text,
    shade: sequential(share, theme),
    label: `${layerName(table.layers[at.layer]!)}, after ${table.visible(table.words[at.pos]!)}: ${table.visible(top.text)}, ${number}`,
  };
}

function differenceCell(table: LensTable, at: At, theme: Theme): Cell {
  const top = table.top(at);
  const gain = table.gain(at);
  return {
    text: top.text,
    shade: diverging(gain, theme),
    label: `${layerName(table.layers[at.layer]!)}, after ${table.visible(table.words[at.pos]!)}: ${table.visible(top.text)}, ${digits(gain * 100, true)} points`,
  };
}

function strips(table: LensTable): Strip[] {
  const list = (which: "entropy" | "kl", pos: number) =>
    table.layers.map((name, layer) => `${layerName(name)}: ${digits(table[which]({ layer, pos }))} nat`).join("\n");
  return [
    { label: "entropy", bars: (pos) => table.heights("entropy", pos), title: (pos) => `entropy, lowest layer first\n${list("entropy", pos)}` },
    { label: "KL", bars: (pos) => table.heights("kl", pos), title: (pos) => `KL from the last layer, lowest layer first\n${list("kl", pos)}` },
  ];
}

function Foot(props: { table: LensTable; second: LensTable | null; show: Showing; shading: Shading }) {
  const { table, show, shading } = props;
  const middle = (layer: number) => {
    const all = table.words.map((_, pos) => table.kl({ layer, pos })).sort((a, b) => a - b);
    return digits(all[Math.floor(all.length / 2)] ?? NaN);
  };
  const shaded =
    show === "difference"
      ? "top word, shaded by the probability it gained (orange) or lost (purple)"
      : shading === "probability"
        ? "top word, shaded by its probability"
        : "top word, shaded by the rank of the last layer's word there";
  const penultimate = table.layers.length - 2;
  const wire = table.wire;
  return (
    <>
      <span>{shaded}</span>
      {penultimate >= 0 && (
        <span>
          lens bias (median KL to the last layer): {middle(penultimate)} nat at {layerName(table.layers[penultimate]!)}
          {penultimate > 0 && `, ${middle(0)} at ${layerName(table.layers[0]!)}`}
        </span>
      )}
      <span>{table.words.length} tokens</span>
      {wire.edits.length > 0 && <span>edited: {wire.edits.map(readable).join(", ")}</span>}
      {wire.attached.length > 0 && <span>attached: {wire.attached.map(readable).join(", ")}</span>}
      {wire.ignored && wire.ignored.length > 0 && <span>attached and ignored here: {wire.ignored.map(readable).join(", ")}</span>}
    </>
  );
}

function Compare({ sync, hasOther, onDone }: { sync: Sync; hasOther: boolean; onDone(): void }) {
  const error = useSignal("");
  const text = useSignal("");
  const send = (value: string) =>
    sync.ask("compare", { text: value }).then(onDone, (problem: Error) => (error.value = problem.message));
  return (
    <>
      <form
        class="iv-compare"
        onSubmit={(event) => {
          event.preventDefault();
          void send(text.value);
        }}
      >
        <input
          class="iv-field"
          aria-label="second text"
          placeholder="a second text"
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
        <button class="iv-verb" type="submit" disabled={!text.value}>
          compare
        </button>
        {hasOther && <Verb label="stop comparing" onAct={() => void send("")} />}
      </form>
      {error.value && (
        <p class="iv-note iv-note-bad" role="alert">
          {error.value}
        </p>
      )}
    </>
  );
}

interface SideProps {
  sync: Sync;
  table: LensTable;
  other: LensTable | null;
  look: Signal<{ at: At; which: "this" | "other" } | null>;
  pinned: Signal<[number, number] | null>;
}

/** The close reading beside the table: of the cell under the pointer, else of the pinned one, else of the last. */
function Side({ sync, table, other, look, pinned }: SideProps) {
  const chosen = useSignal<number | null>(null);
  const asked = useSignal<{ key: string; ranks: Tensor } | null>(null);
  const more = useSignal<{ key: string; tops: ReturnType<LensTable["tops"]> } | null>(null);
  const last = { layer: table.layers.length - 1, pos: table.words.length - 1 };
  const pin = pinned.value && { layer: pinned.value[0], pos: pinned.value[1] };
  const which = look.value?.which === "other" && other ? "other" : "this";
  const shown = which === "other" ? other! : table;
  const at = fit(look.value?.at ?? pin ?? last, shown);
  const word = chosen.value ?? shown.finalWord(at.pos).id;
  const curveKey = `${which} ${word}`;
  const cellKey = `${which} ${at.layer} ${at.pos}`;

  const isPage = sync.life.value === "page";
  const token = chosen.value;
  useEffect(() => {
    if (token === null || isPage) return;
    const key = `${which} ${token}`;
    sync.ask("rank", { token, which }).then(
      ({ ok, buffers }) => (asked.value = { key, ranks: unpack(arrived(ok.ranks, buffers)) }),
      () => (asked.value = null),
    );
  }, [token, which, isPage]);
  const asksMore = shown.k < FULL && pin !== null && look.value === null && sync.life.value === "live";
  useEffect(() => {
    if (!asksMore) return;
    sync.ask("cell", { layer: at.layer, pos: at.pos, which }).then(
      ({ ok, buffers }) => {
        const ids = unpack(arrived(ok.ids, buffers));
        const logprobs = unpack(arrived(ok.logprobs, buffers));
        shown.learn(ids, ok.texts);
        more.value = { key: cellKey, tops: Array.from(ids.data, (id, i) => ({ id, text: shown.text(id), p: Math.exp(logprobs.data[i]!) })) };
      },
      () => (more.value = null),
    );
  }, [asksMore, cellKey]);
  const { acting, ask, open } = useActing(sync);
  const exact = asked.value?.key === curveKey ? column(asked.value.ranks, at.pos, shown) : null;
  const ranks = exact ?? shown.curve(word, at.pos);
  const text = visible(shown.text(word));
  return (
    <Look
      layer={layerName(shown.layers[at.layer]!)}
      pos={at.pos}
      word={shown.words[at.pos]!}
      isPinned={pin?.layer === at.layer && pin.pos === at.pos}
      tops={more.value?.key === cellKey ? more.value.tops : shown.tops(at)}
      chosen={word}
      entropy={shown.entropy(at)}
      kl={shown.kl(at)}
      onChoose={(id) => (chosen.value = chosen.value === id ? null : id)}
    >
      <div class="iv-lens-label">rank of {text} over the layers</div>
      <RankCurve ranks={ranks} beyond={shown.k} layers={shown.layers} at={at.layer} label={`rank of ${text} over the layers`} />
      {!isPage && (
        <Verb
          label="which features wrote it?"
          why="the features of linked dictionaries at this token, by what they add to this word's logit here"
          onAct={() => ask(`what wrote ${text} at ${layerName(shown.layers[at.layer]!)}, token ${at.pos}`, { ...at, which, token: word })}
        />
      )}
      <ActingList acting={acting} unit="logit" onOpen={open} />
      {ranks.includes(null) && <div class="iv-note">hollow: beyond the {shown.k} words saved</div>}
    </Look>
  );
}

function fit(at: At, table: LensTable): At {
  return { layer: Math.min(at.layer, table.layers.length - 1), pos: Math.min(at.pos, table.words.length - 1) };
}

function column(ranks: Tensor, pos: number, table: LensTable): number[] | null {
  const width = ranks.shape[1] ?? 0;
  if (pos >= width || ranks.shape[0] !== table.layers.length) return null;
  return table.layers.map((_, layer) => ranks.data[layer * width + pos]!);
}

export default {
  render: (view: View) => mount(view, "lens", HEADING, LogitLens),
};
