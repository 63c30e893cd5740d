// A lens's numbers, read from the wire, and the questions that its picture asks of them.

import { unpack, type Packed, type Tensor } from "../wire";
import { visible } from "./glyphs";
import type { At } from "./grid";

export interface LensWire {
  model: string;
  text: string;
  site: string;
  label: string;
  words: string[];
  layers: string[];
  ids: Packed;
  logprobs: Packed;
  entropy: Packed;
  kl: Packed;
  final_rank: Packed;
  word_ids: Packed;
  word_texts: string[];
  /** Probability of this lens's own top words, less what the first lens gives them; null where the two do not line up. */
  gain: Packed | null;
  edits: string[];
  attached: string[];
  /** What was attached and left out of a reading of the widget's own; lacking in pages saved before. */
  ignored?: string[];
}

export interface Top {
  id: number;
  text: string;
  p: number;
}

export class LensTable {
  readonly words: string[];
  readonly layers: string[];
  readonly k: number;
  readonly deepest: number;
  private readonly ids: Tensor;
  private readonly logprobs: Tensor;
  private readonly entropies: Tensor;
  private readonly kls: Tensor;
  private readonly ranks: Tensor;
  private readonly gains: Tensor;
  private readonly texts = new Map<number, string>();
  private readonly said = new Map<string, string>();
  private readonly most: { entropy: number; kl: number };

  constructor(readonly wire: LensWire) {
    this.words = wire.words;
    this.layers = wire.layers;
    this.ids = unpack(wire.ids);
    this.logprobs = unpack(wire.logprobs);
    this.entropies = unpack(wire.entropy);
    this.kls = unpack(wire.kl);
    this.ranks = unpack(wire.final_rank);
    this.gains = unpack(wire.gain);
    this.k = this.ids.shape[2] ?? 0;
    this.learn(unpack(wire.word_ids), wire.word_texts);
    this.deepest = largest(this.ranks, 99);
    this.most = { entropy: largest(this.entropies, 1e-6), kl: largest(this.kls, 1e-6) };
  }

  learn(ids: Tensor, texts: string[]): void {
    texts.forEach((text, i) => this.texts.set(ids.data[i]!, text));
  }

  text(id: number): string {
    return this.texts.get(id) ?? `token ${id}`;
  }

  /** A word with every character seen, worked out once: cells of a column name the same ones again and again. */
  visible(word: string): string {
    const known = this.said.get(word);
    if (known !== undefined) return known;
    const made = visible(word);
    this.said.set(word, made);
    return made;
  }

  tops(at: At, count = this.k): Top[] {
    const start = this.index(at) * this.k;
    return Array.from({ length: Math.min(count, this.k) }, (_, i) => {
      const id = this.ids.data[start + i]!;
      return { id, text: this.text(id), p: Math.exp(this.logprobs.data[start + i]!) };
    });
  }

  top(at: At): Top {
    return this.tops(at, 1)[0]!;
  }

  entropy(at: At): number {
    return this.entropies.data[this.index(at)]!;
  }

  kl(at: At): number {
    return this.kls.data[this.index(at)]!;
  }

  /** The rank, in this layer, of the word that the last layer puts first here. */
  finalRank(at: At): number {
    return this.ranks.data[this.index(at)]!;
  }

  finalWord(pos: number): Top {
    return this.top({ layer: this.layers.length - 1, pos });
  }

  heights(which: "entropy" | "kl", pos: number): number[] {
    const data = which === "entropy" ? this.entropies.data : this.kls.data;
    return this.layers.map((_, layer) => Math.max(0, data[this.index({ layer, pos })]!) / this.most[which]);
  }

  /** A word's ranks at one token: exact for the last layer's word, else as far as the saved top words reach. */
  curve(id: number, pos: number): (number | null)[] {
    const isFinal = this.finalWord(pos).id === id;
    return this.layers.map((_, layer) => {
      if (isFinal) return this.finalRank({ layer, pos });
      const place = this.tops({ layer, pos }).findIndex((top) => top.id === id);
      return place < 0 ? null : place;
    });
  }

  get hasGain(): boolean {
    return this.gains.data.length > 0;
  }

  /** What this lens gives its own top word, less what the first lens gives that word. */
  gain(at: At): number {
    return this.gains.data[this.index(at)]!;
  }

  private index({ layer, pos }: At): number {
    return layer * this.words.length + pos;
  }
}

function largest(tensor: Tensor, least: number): number {
  let most = least;
  for (const value of tensor.data) if (Number.isFinite(value) && value > most) most = value;
  return most;
}
