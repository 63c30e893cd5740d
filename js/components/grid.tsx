import { Component } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Shade } from "./colour";
import { readable, type Reading } from "./glyphs";
import { Token } from "./token";

export interface At {
  layer: number;
  pos: number;
}

export interface Cell {
  text: string;
  shade: Shade;
  label: string;
}

export interface Strip {
  label: string;
  title(pos: number): string;
  /** Heights of one token's bars, 0 to 1, from the lowest layer to the highest. */
  bars(pos: number): number[];
}

interface Props {
  name: string;
  /** What the rows are, for the corner. */
  rows?: string;
  /** Width of the rows' names in pixels. */
  headWidth?: number;
  /** Width of a column in pixels. */
  column?: number;
  rowName?(label: string): string;
  words: string[];
  /** prose: the columns' names are names, whose spaces are spaces. */
  wordReading?: Reading;
  layers: string[];
  /** Another function where any cell is another: cells that stay are not drawn anew while it scrolls. */
  cell(at: At): Cell;
  pinned: At | null;
  /** A row that is chosen as a whole. */
  picked?: number;
  strips: Strip[];
  onLook(at: At | null): void;
  onPin(at: At): void;
  onUnpin(): void;
  /** A column to bring into sight, once for each object. */
  reveal?: { pos: number } | null;
  /** The columns in sight, when they change. */
  onSpan?(first: number, last: number): void;
}

const COLUMN = 74;
const HEAD = 52;
const SPARE = 2;
const BAR = 18;
const ROW = 20;
// Before the first layout, when an element has no size yet.
const WIDE = 800;
const TALL = 560;

/** The number of a layer, where its site has one. */
export const shortName = (site: string): string => site.match(/\.(\d+)\./)?.[1] ?? site;

export const layerName = (label: string): string => (/^\d+$/.test(label) ? `layer ${label}` : label);

/** Layers × tokens, the last layer on top; only the columns and rows in sight are in the document. */
export function Grid(props: Props) {
  const { words, layers, pinned, headWidth = HEAD, column = COLUMN, rows = "layer", rowName = shortName } = props;
  const head = headWidth === HEAD ? undefined : { width: `${headWidth}px` };
  const wide = column === COLUMN ? undefined : { width: `${column}px` };
  const box = useRef<HTMLDivElement>(null);
  const [span, setSpan] = useState<Span>(() => spanOf(0, 0, WIDE, TALL, column));
  const [focus, setFocus] = useState<At>({ layer: layers.length - 1, pos: words.length - 1 });
  const wanted = useRef(false);
  const at = { layer: Math.min(focus.layer, layers.length - 1), pos: Math.min(focus.pos, words.length - 1) };

  const measure = () => {
    const el = box.current;
    if (!el) return;
    const next = spanOf(el.scrollLeft, el.scrollTop, el.clientWidth || WIDE, el.clientHeight || TALL, column);
    setSpan((now) => (now.every((edge, i) => edge === next[i]) ? now : next));
  };
  // Before the first picture: how many columns there are is known then.
  useLayoutEffect(() => {
    const el = box.current!;
    const ended = new AbortController();
    el.addEventListener("scroll", measure, { passive: true, signal: ended.signal });
    const observer = new ResizeObserver(measure);
    observer.observe(el);
    measure();
    return () => {
      ended.abort();
      observer.disconnect();
    };
  }, []);
  useLayoutEffect(() => {
    if (!wanted.current) return;
    const cell = box.current?.querySelector<HTMLElement>(`[data-at="${at.layer},${at.pos}"]`);
    if (!cell) return;
    wanted.current = false;
    cell.focus({ preventScroll: true });
  });

  useEffect(() => {
    // What was pinned when this was saved is what a person comes to see.
    if (!props.reveal && pinned && box.current) show(box.current, pinned, layers.length, headWidth, column);
    measure();
  }, []);
  useEffect(() => {
    if (!props.reveal || !box.current) return;
    box.current.scrollLeft = Math.max(0, props.reveal.pos * column - (box.current.clientWidth - headWidth) / 2);
    measure();
  }, [props.reveal]);

  // Whoever is told changes at every drawing, and the cells need not.
  const told = useRef(props.onLook);
  told.current = props.onLook;
  const onFocus = useRef((at: At) => {
    setFocus(at);
    told.current(at);
  }).current;
  const go = (next: At) => {
    wanted.current = true;
    setFocus(next);
    const el = box.current;
    if (el) show(el, next, layers.length, headWidth, column);
    measure();
    props.onLook(next);
  };
  const onKey = (event: KeyboardEvent) => {
    // The cell that has the focus, not the last one drawn: keys may come faster than frames.
    const from = place(event.target) ?? at;
    const next = move(event.key, from, layers.length, words.length);
    if (next) go(next);
    else if (event.key === "Enter" || event.key === " ") props.onPin(from);
    else if (event.key === "Escape") props.onUnpin();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const [first, last] = [Math.min(span[0], words.length), Math.min(span[1], words.length)];
  // Counted from the top, where the last layer stands.
  const [above, below] = [Math.min(span[2], layers.length), Math.min(span[3], layers.length)];
  const seen = range(first, last);
  useEffect(() => props.onSpan?.(first, last), [first, last]);
  // The one Tab stop stays in the document, else the keyboard could not come back to the grid.
  const top = layers.length - 1;
  const tab = { layer: Math.min(top - above, Math.max(top - below + 1, at.layer)), pos: at.pos >= first && at.pos < last ? at.pos : first };
  const pad = { width: `${first * column}px` };

  return (
    <div class="iv-grid-box" ref={box}>
      <div
        class="iv-grid"
        role="grid"
        aria-label={props.name}
        aria-rowcount={layers.length + 1}
        aria-colcount={words.length + 1}
        style={{ width: `${headWidth + words.length * column}px` }}
        onKeyDown={onKey}
        onMouseOver={(event) => {
          const over = place(event.target);
          if (over) props.onLook(over);
        }}
        onMouseLeave={() => props.onLook(null)}
        onClick={(event) => {
          const over = place(event.target);
          if (!over) return;
          setFocus(over);
          props.onPin(over);
        }}
      >
        <div class="iv-grid-row iv-grid-top" role="row" aria-rowindex={1}>
          <span class="iv-grid-name" role="columnheader" aria-label={rows} style={head} />
          <span style={pad} />
          {seen.map((pos) => (
            <span class="iv-grid-word" role="columnheader" aria-colindex={pos + 2} key={pos} title={`token ${pos}`} style={wide}>
              <Token text={words[pos]!} reading={props.wordReading} />
            </span>
          ))}
        </div>
        <div key="above" style={{ height: `${above * ROW}px` }} />
        {range(above, below).map((i) => {
          const layer = top - i;
          return (
            <div class={layer === props.picked ? "iv-grid-row iv-grid-picked" : "iv-grid-row"} role="row" aria-rowindex={i + 2} aria-selected={props.picked === undefined ? undefined : layer === props.picked} key={layer}>
              <span class="iv-grid-name" role="rowheader" title={readable(layerName(layers[layer]!))} style={head}>
                {readable(rowName(layers[layer]!))}
              </span>
              <span style={pad} />
              {seen.map((pos) => {
                const isPinned = pinned?.layer === layer && pinned.pos === pos;
                const isTab = tab.layer === layer && tab.pos === pos;
                return <GridCell key={pos} layer={layer} pos={pos} cell={props.cell} isPinned={isPinned} isTab={isTab} column={column} onFocus={onFocus} />;
              })}
            </div>
          );
        })}
        <div key="below" style={{ height: `${(layers.length - below) * ROW}px` }} />
        {props.strips.map((strip) => (
          <div class="iv-grid-row iv-grid-strip" key={strip.label} aria-hidden="true">
            <span class="iv-grid-name" style={head}>{strip.label}</span>
            <span style={pad} />
            {seen.map((pos) => (
              <Bars key={pos} strip={strip} pos={pos} column={column} />
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

/** What is drawn anew only when it is given something else. */
abstract class Kept<P extends object> extends Component<P> {
  override shouldComponentUpdate(next: P): boolean {
    return (Object.keys(next) as (keyof P)[]).some((name) => next[name] !== this.props[name]);
  }
}

interface GridCellProps {
  layer: number;
  pos: number;
  cell(at: At): Cell;
  isPinned: boolean;
  isTab: boolean;
  column: number;
  onFocus(at: At): void;
}

class GridCell extends Kept<GridCellProps> {
  override render({ layer, pos, cell: cellAt, isPinned, isTab, column, onFocus }: GridCellProps) {
    const cell = cellAt({ layer, pos });
    return (
      <span
        class="iv-grid-cell"
        role="gridcell"
        data-at={`${layer},${pos}`}
        data-lm-suppress-shortcuts="true"
        tabIndex={isTab ? 0 : -1}
        aria-colindex={pos + 2}
        aria-selected={isPinned}
        aria-label={cell.label}
        style={column === COLUMN ? cell.shade : { ...cell.shade, width: `${column}px` }}
        onFocus={() => onFocus({ layer, pos })}
      >
        <Token text={cell.text} />
      </span>
    );
  }
}

class Bars extends Kept<{ strip: Strip; pos: number; column: number }> {
  override render({ strip, pos, column }: { strip: Strip; pos: number; column: number }) {
    const heights = strip.bars(pos);
    const width = (column - 10) / Math.max(heights.length, 1);
    const gap = width > 3 ? 1 : 0;
    const path = heights
      .map((height, i) => `M${(4 + i * width).toFixed(1)} ${BAR}v${(-Math.max(height * BAR, 0.5)).toFixed(1)}h${(width - gap).toFixed(1)}V${BAR}z`)
      .join("");
    return (
      <svg class="iv-bars" width={column} height={BAR + 2}>
        <title>{strip.title(pos)}</title>
        <path d={path} />
      </svg>
    );
  }
}

/** The first column in sight and the one behind the last, and rows likewise, some spare ones included. */
type Span = [number, number, number, number];

function spanOf(left: number, top: number, width: number, height: number, column: number): Span {
  const reach = (from: number, size: number, step: number) => [Math.max(0, Math.floor(from / step) - SPARE), Math.ceil((from + size) / step) + SPARE] as const;
  return [...reach(left, width, column), ...reach(top, height, ROW)];
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}

function place(target: EventTarget | null): At | null {
  const at = (target as Element | null)?.closest?.<HTMLElement>("[data-at]")?.dataset.at?.split(",");
  return at ? { layer: Number(at[0]), pos: Number(at[1]) } : null;
}

function move(key: string, at: At, layers: number, words: number): At | undefined {
  const { layer, pos } = at;
  const keep = (l: number, p: number): At => ({
    layer: Math.min(layers - 1, Math.max(0, l)),
    pos: Math.min(words - 1, Math.max(0, p)),
  });
  switch (key) {
    case "ArrowUp":
      return keep(layer + 1, pos);
    case "ArrowDown":
      return keep(layer - 1, pos);
    case "ArrowLeft":
      return keep(layer, pos - 1);
    case "ArrowRight":
      return keep(layer, pos + 1);
    case "Home":
      return keep(layer, 0);
    case "End":
      return keep(layer, words - 1);
    case "PageUp":
      return keep(layers - 1, pos);
    case "PageDown":
      return keep(0, pos);
    default:
      return undefined;
  }
}

/** Scrolls a cell into sight, beside the names and beneath the words, which stand still. */
function show(box: HTMLElement, at: At, layers: number, head: number, column: number): void {
  const near = (from: number, size: number, room: number, now: number) => (from < now ? from : from + size > now + room ? from + size - room : now);
  box.scrollLeft = near(at.pos * column, column, (box.clientWidth || WIDE) - head, box.scrollLeft);
  box.scrollTop = near((layers - 1 - at.layer) * ROW, ROW, (box.clientHeight || TALL) - ROW, box.scrollTop);
}
