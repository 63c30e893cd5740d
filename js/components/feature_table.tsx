import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { readable } from "./glyphs";
import { digits, percent } from "./numbers";
import { compares, type Query, type Row, type Rows } from "./rows";
import { useRoving } from "./roving";

interface Props {
  rows: Rows;
  /** Changes when more rows are known. */
  version: number;
  columns: string[];
  query: Query;
  selected: Set<number>;
  shown: number | null;
  hasLabels: boolean;
  onSort(column: string): void;
  onOpen(feature: number): void;
  onToggle(feature: number): void;
  onLike?: (feature: number) => void;
  /** Rows in sight, so that they can be asked for. */
  onSight(from: number, to: number): void;
}

const HEIGHT = 22;
const SEEN = 16;
const SPARE = 6;
// No browser holds an element higher than this; beyond it the rows are squeezed into the same height.
const HIGHEST = 8_000_000;

const TITLES: Record<string, string> = { n_active: "tokens", label_score: "score", density: "fires on" };

/** A table of any length: only the rows in sight are in the document. One Tab stop for the heads, one for the rows. */
export function FeatureTable(props: Props) {
  const { rows, columns, query, selected } = props;
  const shownColumns = compares(query) ? [...columns, "similarity"] : columns;
  const names = ["feature", ...(props.hasLabels ? ["label"] : []), ...shownColumns];
  const heads = useRoving([names.length]);
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [focus, setFocus] = useState(0);
  const wanted = useRef(false);
  const at = Math.max(0, Math.min(focus, rows.total - 1));
  const full = rows.total * HEIGHT;
  const scale = full > HIGHEST ? full / HIGHEST : 1;
  const first = Math.max(0, Math.floor((top * scale) / HEIGHT) - SPARE);
  const last = Math.min(rows.total, first + SEEN + 2 * SPARE);
  const tab = at >= first && at < last ? at : first;

  useEffect(() => props.onSight(first, last), [rows, first, last]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = 0;
    setTop(0);
    setFocus(0);
  }, [rows]);
  useLayoutEffect(() => {
    if (!wanted.current) return;
    const el = box.current?.querySelector<HTMLElement>(`[data-row="${at}"]`);
    if (!el) return;
    wanted.current = false;
    el.focus({ preventScroll: true });
  });

  const go = (to: number) => {
    const next = Math.max(0, Math.min(rows.total - 1, to));
    wanted.current = true;
    setFocus(next);
    const el = box.current;
    if (!el) return;
    const room = el.clientHeight || SEEN * HEIGHT;
    const y = (next * HEIGHT) / scale;
    if (y < el.scrollTop) el.scrollTop = y;
    else if (y + HEIGHT > el.scrollTop + room - HEIGHT) el.scrollTop = y + 2 * HEIGHT - room;
    setTop(el.scrollTop);
  };
  const onKey = (event: KeyboardEvent) => {
    const from = rowOf(event.target) ?? at;
    const row = rows.at(from);
    const to = { ArrowUp: from - 1, ArrowDown: from + 1, PageUp: from - SEEN, PageDown: from + SEEN, Home: 0, End: rows.total - 1 }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === "Enter" && row) props.onOpen(row.feature);
    else if (event.key === " " && row) props.onToggle(row.feature);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const grid = { gridTemplateColumns: template(names, props.onLike !== undefined) };
  return (
    <div class="iv-rows" role="grid" aria-label="features" aria-rowcount={rows.total + 1} aria-multiselectable="true">
      <div class="iv-rows-head" role="row" style={grid} ref={heads.box} onKeyDown={heads.onKeyDown}>
        <span role="columnheader" aria-label="selected" />
        {names.map((name, i) => {
          const isSorted = query.sort === name;
          return (
            <span key={name} role="columnheader" aria-sort={isSorted ? (query.descending ? "descending" : "ascending") : "none"} class={isText(name) ? "" : "iv-num"}>
              <button
                type="button"
                class="iv-verb"
                data-at={`0,${i}`}
                tabIndex={heads.tab(0, i)}
                aria-pressed={isSorted}
                data-lm-suppress-shortcuts="true"
                title={`sort by ${title(name)}`}
                onClick={() => props.onSort(name)}
              >
                {title(name)}
                {isSorted ? (query.descending ? " ↓" : " ↑") : ""}
              </button>
            </span>
          );
        })}
        <span />
      </div>
      <div class="iv-rows-box" ref={box} style={{ height: `${Math.min(SEEN, Math.max(1, rows.total)) * HEIGHT}px` }} onScroll={(event) => setTop(event.currentTarget.scrollTop)} onKeyDown={onKey}>
        <div style={{ height: `${full / scale}px`, position: "relative" }}>
          <div class="iv-rows-seen" style={{ transform: `translateY(${(scale === 1 ? first * HEIGHT : top - (((top * scale) / HEIGHT) % 1) * HEIGHT - Math.min(SPARE, Math.floor((top * scale) / HEIGHT)) * HEIGHT)}px)` }}>
            {Array.from({ length: Math.max(0, last - first) }, (_, k) => {
              const i = first + k;
              const row = rows.at(i);
              return (
                <div
                  key={i}
                  class={row && row.feature === props.shown ? "iv-row iv-row-shown" : "iv-row"}
                  role="row"
                  style={grid}
                  data-row={i}
                  data-lm-suppress-shortcuts="true"
                  tabIndex={i === tab ? 0 : -1}
                  aria-rowindex={i + 2}
                  aria-selected={row ? selected.has(row.feature) : undefined}
                  aria-label={row && `feature ${row.feature} ${row.label}`}
                  onClick={(event) => {
                    setFocus(i);
                    if (row && !(event.target as Element).closest("input,button")) props.onOpen(row.feature);
                  }}
                >
                  {row ? <Cells row={row} names={names} hasLabels={props.hasLabels} isSelected={selected.has(row.feature)} onToggle={props.onToggle} onLike={props.onLike} /> : <span class="iv-row-wait">·</span>}
                </div>
              );
            })}
          </div>
        </div>
      </div>
    </div>
  );
}

interface CellsProps {
  row: Row;
  names: string[];
  hasLabels: boolean;
  isSelected: boolean;
  onToggle(feature: number): void;
  onLike?: (feature: number) => void;
}

function Cells({ row, names, hasLabels, isSelected, onToggle, onLike }: CellsProps) {
  const numbers = names.slice(hasLabels ? 2 : 1);
  return (
    <>
      <span role="gridcell">
        <input data-lm-suppress-shortcuts="true" type="checkbox" tabIndex={-1} checked={isSelected} aria-label={`select feature ${row.feature}`} onChange={() => onToggle(row.feature)} />
      </span>
      <span role="gridcell" class="iv-row-number">
        {row.feature.toLocaleString("en-US")}
      </span>
      {hasLabels && (
        <bdi role="gridcell" class={row.label ? "iv-row-label" : "iv-row-label iv-row-hint"} title={row.label || (row.hint && `no label; fires on ${row.hint}`)}>
          {row.label ? readable(row.label) : row.hint ? readable(row.hint) : ""}
        </bdi>
      )}
      {numbers.map((name, i) => (
        <span key={name} role="gridcell" class="iv-num">
          {said(name, row.values[i] ?? NaN)}
        </span>
      ))}
      <span role="gridcell" class="iv-row-like">
        {onLike && (
          <button type="button" class="iv-verb" tabIndex={-1} title={`compare all with feature ${row.feature}`} onClick={() => onLike(row.feature)}>
            like this
          </button>
        )}
      </span>
    </>
  );
}

export function said(name: string, value: number): string {
  if (name === "density") return value ? percent(value) : "0";
  // A count is whole.
  if (name.startsWith("n_") && Number.isFinite(value)) return Math.round(value).toLocaleString("en-US");
  return digits(value);
}

const isText = (name: string) => name === "feature" || name === "label";
export const title = (name: string) => TITLES[name] ?? name.replaceAll("_", " ");

function template(names: string[], hasLike: boolean): string {
  const width = (name: string) => ({ feature: "64px", label: "minmax(100px, 1fr)" })[name] ?? "minmax(46px, 76px)";
  return `20px ${names.map(width).join(" ")} ${names.includes("label") ? (hasLike ? "56px" : "0") : "1fr"}`;
}

function rowOf(target: EventTarget | null): number | null {
  const row = (target as Element | null)?.closest?.<HTMLElement>("[data-row]")?.dataset.row;
  return row === undefined ? null : Number(row);
}
