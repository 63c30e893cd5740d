// All features as rows: pages that arrive on demand, and on a page without a kernel the rows that were saved.

import { unpack, type Numbers, type Packed } from "../wire";

export interface Query {
  sort: string;
  descending: boolean;
  text: string;
  low: number | null;
  high: number | null;
  direction: number;
  feature: number;
  cosine: number | null;
}

export interface RowsWire {
  start: number;
  total: number;
  features: Packed;
  values: Packed;
  labels: string[];
  /** What features fire on, for those without a label. */
  hints: string[];
}

export interface FirstRows extends RowsWire {
  query: Query;
}

export interface BrowserAbout {
  n_features: number;
  columns: string[];
  n_labels: number;
  has_hints: boolean;
  n_tokens: number | null;
  directions: string[];
  can_compare: boolean;
  model: string;
  site: string;
  dictionary: string;
  about: string;
  opens: boolean;
}

export interface Row {
  feature: number;
  label: string;
  hint: string;
  /** Number by column, similarity last where features are compared. */
  values: number[];
}

export const PAGE = 100;

export function rowsOf(wire: RowsWire): Row[] {
  const features = unpack(wire.features).data;
  const { data, shape } = unpack(wire.values);
  const width = shape[1] ?? 0;
  return Array.from(features, (feature, i) => ({
    feature,
    label: wire.labels[i]!,
    hint: wire.hints[i] ?? "",
    values: Array.from({ length: shape[0]! }, (_, column) => data[column * width + i]!),
  }));
}

export function sameQuery(a: Query, b: Query): boolean {
  return (Object.keys(a) as (keyof Query)[]).every((key) => a[key] === b[key]);
}

export function compares(query: Query): boolean {
  return query.feature >= 0 || query.direction >= 0;
}

/** The rows known of one query, by page. */
export class Rows {
  total: number;
  private readonly known = new Map<number, Row[]>();

  constructor(
    readonly query: Query,
    first: RowsWire,
  ) {
    this.total = first.total;
    this.learn(first);
  }

  learn(wire: RowsWire): void {
    this.total = wire.total;
    const rows = rowsOf(wire);
    for (let i = 0; i < rows.length; i += PAGE) {
      const part = rows.slice(i, i + PAGE);
      // A page that is not whole counts only at the end.
      if (part.length === PAGE || wire.start + i + part.length === wire.total) this.known.set((wire.start + i) / PAGE, part);
    }
  }

  at(index: number): Row | undefined {
    return this.known.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** The first page that is needed for these rows and not known. */
  missing(from: number, to: number): number | null {
    for (let page = Math.floor(from / PAGE); page * PAGE < Math.min(to, this.total); page++) if (!this.known.has(page)) return page;
    return null;
  }

  position(feature: number): number | null {
    for (const [page, rows] of this.known) {
      const i = rows.findIndex((row) => row.feature === feature);
      if (i >= 0) return page * PAGE + i;
    }
    return null;
  }
}

/** What a query finds among the rows of a saved page, sorted as Python would. */
export function findSaved(first: FirstRows, columns: string[], query: Query): Rows {
  const wanted = query.text.trim().toLowerCase();
  const bare = wanted.replaceAll(",", "");
  const density = columns.indexOf("density");
  const similarity = columns.length;
  // Bounds as narrow as the numbers, as in Python.
  const bound = (value: number | null) => (value === null ? null : Math.fround(value));
  const [low, high, cosine] = [bound(query.low), bound(query.high), bound(query.cosine)];
  const found = rowsOf(first).filter((row) => {
    if (wanted && ![row.label, row.hint].some((told) => told.toLowerCase().includes(wanted)) && String(row.feature) !== bare) return false;
    if (density >= 0 && low !== null && !(row.values[density]! >= low)) return false;
    if (density >= 0 && high !== null && !(row.values[density]! <= high)) return false;
    return cosine === null || !compares(query) || row.values[similarity]! >= cosine;
  });
  const sign = query.descending ? -1 : 1;
  const fits = new Map(query.sort === "fit" ? found.map((row) => [row, fit(row, wanted)]) : []);
  const column = query.sort === "similarity" ? similarity : columns.indexOf(query.sort);
  found.sort((a, b) => {
    if (query.sort === "fit") return fits.get(a)! - fits.get(b)! || (b.values[density] || 0) - (a.values[density] || 0) || a.feature - b.feature;
    if (query.sort === "feature") return sign * (a.feature - b.feature);
    if (query.sort === "label") {
      if (!a.label !== !b.label) return a.label ? -1 : 1;
      return a.label === b.label ? 0 : sign * (a.label < b.label ? -1 : 1);
    }
    const [x, y] = [a.values[column] ?? NaN, b.values[column] ?? NaN];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
    return sign * (x - y);
  });
  return new Rows(query, packed(found, first));
}

/** How well a row says a text, 0 the best: its number, its label, then its words, the first ones first. */
function fit(row: Row, wanted: string): number {
  const label = row.label.toLowerCase();
  if (wanted.replaceAll(",", "") === String(row.feature)) return 0;
  if (wanted && label.includes(wanted)) return label === wanted ? 1 : label.startsWith(wanted) ? 2 : 3;
  const words = row.hint.toLowerCase().split("·").map((word) => word.trim());
  const at = words.findIndex((word) => word.includes(wanted));
  return at < 0 ? 4 + 2 * words.length : 4 + 2 * at + Number(words[at] !== wanted);
}

/** What a typed text asks for: the best first while there is one, else the order that the table opens with. */
export function searched(query: Query, text: string, columns: string[]): Partial<Query> {
  if (text.trim() && !query.text.trim()) return { text, sort: "fit", descending: false };
  if (text.trim() || query.sort !== "fit") return { text };
  return columns.includes("density") ? { text, sort: "density", descending: true } : { text, sort: "feature", descending: false };
}

function packed(rows: Row[], like: RowsWire): RowsWire {
  const height = like.values.shape[0] ?? 0;
  const values = new Float32Array(height * rows.length);
  rows.forEach((row, i) => row.values.forEach((value, column) => (values[column * rows.length + i] = value)));
  return {
    start: 0,
    total: rows.length,
    features: { data: Int32Array.from(rows, ({ feature }) => feature).buffer, dtype: "int32", shape: [rows.length] },
    values: { data: values.buffer, dtype: "float32", shape: [height, rows.length] },
    labels: rows.map(({ label }) => label),
    hints: rows.map(({ hint }) => hint),
  };
}

export function packInts(numbers: Iterable<number>): Packed {
  const data = Int32Array.from([...numbers].sort((a, b) => a - b));
  return { data: new DataView(data.buffer), dtype: "int32", shape: [data.length] };
}

export function intsOf(wire: Packed): Set<number> {
  return new Set<number>(unpack(wire).data as Numbers as Int32Array);
}
