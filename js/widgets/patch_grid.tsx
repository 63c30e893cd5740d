import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Answers } from "../components/answers";
import { diverging } from "../components/colour";
import { Frame, type Status } from "../components/frame";
import { readable } from "../components/glyphs";
import { Grid, type At, type Cell } from "../components/grid";
import { mount, type Scene } from "../components/mount";
import { digits } from "../components/numbers";
import { arrived, unpack, type Packed, type Tensor } from "../wire";
import type { Sync, View } from "../sync";

const HEADING = "Patching";

interface GridWire {
  model: string;
  metric: string;
  direction: "denoise" | "noise";
  over: "pos" | "head" | null;
  sites: string[];
  rows: string[];
  row_kind: string;
  columns: string[];
  prompts: [string, string][];
  n_pairs: number;
  attached: string[];
  is_whole: boolean;
  measured: string;
  can_rerun: boolean;
}

interface Effects {
  mean: Packed;
  patched: Packed;
  pairs: Packed;
  clean: Packed;
  corrupt: Packed;
}

interface Side {
  words: string[];
  p: Packed;
}

interface Answered {
  row: number;
  column: number;
  pair: number;
  clean: Side;
  corrupt: Side;
  patched: Side;
  metric: [number, number, number];
  effect: number;
  attached: string[];
  is_same: boolean;
}

function PatchGrid({ sync, theme }: Scene) {
  const wire = sync.trait<GridWire>("grid").value;
  const effects = sync.trait<Effects>("effects").value;
  const status = sync.trait<Status>("status").value;
  const pair = sync.trait<number>("pair");
  const pinned = sync.trait<[number, number] | null>("pinned");
  const look = useSignal<At | null>(null);
  const life = sync.life.value;
  const shown = useEffects(sync, effects, pair.value);

  if (!wire.sites || wire.sites.length === 0) {
    return (
      <Frame title={HEADING} what="" life={life} status={status}>
        <p class="iv-empty">nothing to show: iv.patch_grid(model, clean, corrupt, metric=…)</p>
      </Frame>
    );
  }
  const width = wire.columns.length;
  const values = shown?.data ?? new Float32Array(wire.sites.length * width).fill(NaN);
  const limit = largest(values);
  const value = (at: At) => values[at.layer * width + at.pos] ?? NaN;
  // Read here, so that cells are drawn anew when it changes.
  const tone = theme.value;
  const cell = (at: At): Cell => ({
    text: effectWord(value(at)),
    shade: diverging(value(at) / limit, tone),
    label: `${readable(wire.sites[at.layer]!)}, ${columnWord(wire)} ${readable(wire.columns[at.pos]!)}: effect ${effectWord(value(at))}`,
  });
  const pin = (at: At) => {
    const same = pinned.value?.[0] === at.layer && pinned.value[1] === at.pos;
    sync.put("pinned", same ? null : [at.layer, at.pos]);
  };
  const longest = Math.max(...wire.rows.map((row) => row.length));
  return (
    <Frame
      title={HEADING}
      what={`${readable(wire.model)} · ${readable(wire.metric)} · ${wire.direction === "denoise" ? "clean put into corrupt" : "corrupt put into clean"}`}
      life={life}
      status={status}
      verbs={wire.n_pairs > 1 && <PairChoice wire={wire} pair={pair.value} onPick={(value) => sync.put("pair", value)} />}
      foot={<Foot wire={wire} limit={limit} pair={pair.value} />}
    >
      <div class="iv-patch-box">
        <Grid
          name={`effects of patching, ${wire.row_kind} by ${columnWord(wire)}`}
          rows={wire.row_kind}
          words={wire.columns}
          wordReading="prose"
          layers={wire.rows}
          headWidth={longest > 4 ? Math.min(200, 16 + 6.5 * longest) : 52}
          rowName={(label) => label}
          cell={cell}
          pinned={pinned.value && { layer: pinned.value[0], pos: pinned.value[1] }}
          strips={[]}
          onLook={(at) => (look.value = at)}
          onPin={pin}
          onUnpin={() => sync.put("pinned", null)}
        />
      </div>
      <Said wire={wire} effects={effects} at={look.value} value={value} pair={pair.value} />
      {pinned.value && <Reading sync={sync} wire={wire} at={pinned.value} pair={Math.max(0, pair.value)} />}
    </Frame>
  );
}

// Below this an effect is rounding.
const NOTHING = 5e-5;
const effectWord = (value: number) => digits(Math.abs(value) < NOTHING ? 0 : value, true);
const columnWord = (wire: GridWire) => ({ pos: "token", head: "head", all: "column" })[wire.over ?? "all"];

/** Effects of all pairs, or of one: those sent with the grid, else asked for. */
function useEffects(sync: Sync, effects: Effects, pair: number): Tensor | null {
  const asked = useSignal<{ pair: number; effect: Tensor } | null>(null);
  const pairs = unpack(effects.pairs);
  const known = pair < 0 || pair < (pairs.shape[0] ?? 0);
  const alone = pair === 0 && (pairs.shape[0] ?? 0) === 0 && unpack(effects.clean).data.length === 1;
  const asks = !known && !alone && sync.life.value === "live";
  useEffect(() => {
    if (!asks) return;
    sync.ask("effects", { pair }).then(
      ({ ok, buffers }) => (asked.value = { pair, effect: unpack(arrived(ok.effect, buffers)) }),
      () => (asked.value = null),
    );
  }, [asks, pair]);
  if (pair < 0 || alone) return unpack(effects.mean);
  if (known) {
    const size = (pairs.shape[1] ?? 0) * (pairs.shape[2] ?? 0);
    return { data: pairs.data.subarray(pair * size, (pair + 1) * size), shape: pairs.shape.slice(1) };
  }
  return asked.value?.pair === pair ? asked.value.effect : null;
}

function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) if (Math.abs(values[i]!) > most) most = Math.abs(values[i]!);
  return most || 1;
}

interface SaidProps {
  wire: GridWire;
  effects: Effects;
  at: At | null;
  value(at: At): number;
  pair: number;
}

function Said({ wire, effects, at, value, pair }: SaidProps) {
  const inside = at && at.layer < wire.sites.length && at.pos < wire.columns.length;
  const raw = inside ? unpack(effects.patched).data[at.layer * wire.columns.length + at.pos]! : NaN;
  const said = inside
    ? [
        readable(wire.sites[at.layer]!),
        `${columnWord(wire)} ${readable(wire.columns[at.pos]!)}`,
        `effect ${effectWord(value(at))}`,
        ...(pair < 0 || wire.n_pairs === 1 ? [`patched ${digits(raw, true)}`] : []),
      ].join(" · ")
    : "\u00a0";
  return (
    <div class="iv-patch-said" aria-live="polite">
      {said}
    </div>
  );
}

function PairChoice({ wire, pair, onPick }: { wire: GridWire; pair: number; onPick(pair: number): void }) {
  return (
    <label>
      pair{" "}
      <select data-lm-suppress-shortcuts="true" class="iv-field iv-patch-pair" value={String(pair)} onChange={(event) => onPick(Number(event.currentTarget.value))}>
        <option value="-1">mean of all {wire.n_pairs}</option>
        {wire.prompts.map(([clean], i) => (
          <option key={i} value={String(i)}>
            {`${i}: ${shortly(readable(clean), 60)}`}
          </option>
        ))}
      </select>
    </label>
  );
}

/** The pinned cell: run again, with the answers to both prompts and to the patched one. */
function Reading({ sync, wire, at, pair }: { sync: Sync; wire: GridWire; at: [number, number]; pair: number }) {
  const answers = sync.trait<Answered[]>("answers").value;
  const trouble = useSignal<{ key: string; text: string } | null>(null);
  const [row, column] = [Math.min(at[0], wire.sites.length - 1), Math.min(at[1], wire.columns.length - 1)];
  const key = `${row} ${column} ${pair}`;
  const found = answers.find((one) => one.row === row && one.column === column && one.pair === pair);
  const isLive = sync.life.value === "live";
  const asks = !found && isLive && wire.can_rerun;
  const again = () => {
    trouble.value = null;
    sync.ask("rerun", { row, column, pair }, 120_000).catch((error: Error) => (trouble.value = { key, text: error.message }));
  };
  useEffect(() => {
    if (asks) again();
  }, [asks, key]);
  const where = `${readable(wire.sites[row]!)}, ${columnWord(wire)} ${readable(wire.columns[column]!)}`;
  return (
    <div class="iv-patch-side">
      {trouble.value?.key === key && (
        <p class="iv-note iv-note-bad" role="alert">
          {trouble.value.text}
        </p>
      )}
      {found ? (
        <Found found={found} wire={wire} where={where} />
      ) : (
        <p class="iv-note" role="status">
          {unread(where, sync, wire, trouble)}
        </p>
      )}
    </div>
  );
}

function unread(where: string, sync: Sync, wire: GridWire, trouble: Signal<unknown>): string {
  if (sync.life.value === "page") return `${where}: its answers were not read before this page was saved`;
  if (sync.life.value === "silent") return `${where}: no kernel to run it again`;
  if (!wire.can_rerun) return `${where}: this grid does not know its forwards any more, so it cannot be run again`;
  return trouble.value ? where : `${where}: running it again…`;
}

function Found({ found, wire, where }: { found: Answered; wire: GridWire; where: string }) {
  const [clean, corrupt, patched] = found.metric;
  const prompts = wire.prompts[found.pair];
  const side = (title: string, one: Side) => ({ title, words: one.words, values: unpack(one.p).data });
  const isShare = [found.clean, found.corrupt, found.patched].every((one) => isProbability(unpack(one.p).data));
  return (
    <>
      {!found.is_same && (
        <p class="iv-note iv-note-bad" role="alert">
          stale: run again, its metrics are not those that the grid was measured with
          {found.attached.join() !== wire.attached.join()
            ? ` (attached now: ${found.attached.map(readable).join(", ") || "nothing"}; then: ${wire.attached.map(readable).join(", ") || "nothing"})`
            : ": the network has changed since"}
        </p>
      )}
      <div class="iv-small">
        {where} · run again: effect {digits(found.effect, true)}
        {wire.n_pairs > 1 ? ` of all pairs, answers of pair ${found.pair}` : ""}
      </div>
      <Answers
        label={`answers at ${where}`}
        isShare={isShare}
        answers={[
          side(`clean, ${digits(clean, true)}`, found.clean),
          side(`patched, ${digits(patched, true)}`, found.patched),
          side(`corrupt, ${digits(corrupt, true)}`, found.corrupt),
        ]}
      />
      {prompts && (
        <div class="iv-note">
          clean “{shortly(readable(prompts[0]), 200)}” · corrupt “{shortly(readable(prompts[1]), 200)}”
        </div>
      )}
    </>
  );
}

function isProbability(values: ArrayLike<number>): boolean {
  return Array.from(values).every((value) => value >= 0 && value <= 1.0001);
}

function shortly(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

function Foot({ wire, limit, pair }: { wire: GridWire; limit: number; pair: number }) {
  const n = wire.n_pairs === 1 ? "1 pair" : pair < 0 ? `mean of ${wire.n_pairs} pairs` : `pair ${pair} of ${wire.n_pairs}`;
  return (
    <>
      <span>effect: share of the way to the other side’s metric; orange toward it, purple away; fullest shade {digits(limit)}</span>
      <span>{n}</span>
      {!wire.is_whole && <span>stopped: {wire.measured} measured</span>}
      {wire.attached.length > 0 && <span>attached: {wire.attached.map(readable).join(", ")}</span>}
      <span>interval: not run</span>
    </>
  );
}

export default {
  render: (view: View) => mount(view, "patch", HEADING, PatchGrid),
};
