// A feature's page as the wire carries it, and the questions that its picture asks of it.

import { unpack, type Numbers, type Packed } from "../wire";
import { digits } from "./numbers";

export interface WordsWire {
  texts: string[];
  ids: Packed;
  logits: Packed;
}

export interface PartnersWire {
  texts: string[];
  features: Packed;
  values: Packed;
  n: Packed;
}

export interface Stretch {
  low: number;
  high: number;
  least: number | null;
  most: number | null;
}

export interface FeatureWire {
  feature: number;
  n_features: number | null;
  dictionary: string;
  model: string;
  site: string;
  n_tokens: number;
  n_active: number;
  bos: boolean;
  notes: string[];
  label: { text: string; score: number | null; source: string; detail: Record<string, number | null> } | null;
  histogram: { edges: Packed; counts: Packed; zero: number };
  quantiles: Packed;
  stretches: Stretch[];
  examples: {
    words: string[];
    ids: Packed;
    values: Packed;
    effects: Packed | null;
    ends: Packed;
    drawn: Packed;
    texts: Packed;
    starts: Packed;
    stretch: Packed;
  };
  promoted: WordsWire;
  suppressed: WordsWire;
  nearest: PartnersWire;
  together: PartnersWire;
  neurons: PartnersWire;
  fired_on: { texts: string[]; ids: Packed; n: Packed; of: Packed; shares: Packed; means: Packed };
  /** The dictionary in a few words; empty where only its name is known. */
  about: string;
  live: { read: boolean; go: boolean; steer: boolean; effects: boolean };
}

/** What a person typed, read: its words and the feature at each; or why it could not be read. */
export interface OwnWire {
  text: string;
  feature: number;
  words?: string[];
  ids?: Packed;
  values?: Packed;
  error?: string;
}

export interface Example {
  stretch: number;
  text: number;
  start: number;
  /** The token it was chosen for. */
  drawn: number;
  words: string[];
  ids: ArrayLike<number>;
  values: ArrayLike<number>;
  effects: ArrayLike<number> | null;
}

export function examplesOf(view: FeatureWire): Example[] {
  const wire = view.examples;
  const [ids, values, ends, drawn, texts, starts, stretch] = [wire.ids, wire.values, wire.ends, wire.drawn, wire.texts, wire.starts, wire.stretch].map(
    (packed) => unpack(packed).data,
  ) as [Numbers, Numbers, Numbers, Numbers, Numbers, Numbers, Numbers];
  const effects = wire.effects && unpack(wire.effects).data;
  return Array.from(ends, (end, i) => {
    const from = i ? ends[i - 1]! : 0;
    return {
      stretch: stretch[i]!,
      text: texts[i]!,
      start: starts[i]!,
      drawn: drawn[i]!,
      words: wire.words.slice(from, end),
      ids: ids.subarray(from, end),
      values: values.subarray(from, end),
      effects: effects && effects.subarray(from, end),
    };
  });
}

/** "max", "0" where it was not active, or the quantiles between which the examples lie. */
export function stretchName({ low, high, most }: Stretch): string {
  if (low >= 1) return "max";
  if (most === 0) return "zero";
  const share = (value: number) => String(Number((value * 100).toPrecision(4)));
  return `${share(low)}–${share(high)} %`;
}

export function stretchWhy(stretch: Stretch): string {
  const { least, most } = stretch;
  if (stretch.low >= 1) return "the strongest of all";
  return `between these quantiles of its activations above zero: ${digits(least ?? NaN)} to ${digits(most ?? NaN)}`;
}

/** Its largest activation in what was read. */
export function largest(view: FeatureWire): number {
  const { data } = unpack(view.quantiles);
  const seen = view.stretches.map(({ most }) => most ?? 0);
  return Math.max(0, ...seen, data.length ? data[data.length - 1]! : 0);
}

/** Its activation at a quantile; NaN where that was not kept. */
export function quantile(view: FeatureWire, wanted: number): number {
  const { data } = unpack(view.quantiles);
  for (let i = 0; i + 1 < data.length; i += 2) if (Math.abs(data[i]! - wanted) < 1e-6) return data[i + 1]!;
  return NaN;
}
