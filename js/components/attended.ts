// Attention weights as they come: all at once, the pinned token's, or pages of a long text, one layer at a time where it is very long.

import { signal, type Signal } from "@preact/signals";
import { arrived, unpack, type Packed, type Tensor } from "../wire";
import type { Sync } from "../sync";

export type Side = "from" | "to";

export interface Pinned {
  token: number;
  side: Side;
  /** Whose heads these are; -1 is all. */
  layer: number;
  weights: Packed;
}

export const PAGE = 256;
const MOST_PAGES = 48;

/** Weight of a head between the chosen token and another; NaN while it is not known. */
export type Weights = (head: number, pos: number) => number;

/** What is looked at: from or to a token, by the heads of a layer, of which `head` is the first; or by all, -1 and 0. */
export interface Line {
  token: number;
  side: Side;
  layer: number;
  head: number;
}

export class Attended {
  readonly trouble: Signal<string> = signal("");
  readonly news: Signal<number> = signal(0);
  private readonly pages = new Map<string, Tensor>();
  readonly isBusy: Signal<boolean> = signal(false);

  constructor(private readonly sync: Sync) {}

  of(line: Line, tokens: number, all: Tensor | null, pinned: { at: Pinned; weights: Tensor } | null): Weights {
    const { token, side } = line;
    if (all) {
      const { data } = all;
      const square = tokens * tokens;
      return side === "from" ? (head, pos) => data[head * square + token * tokens + pos]! : (head, pos) => data[head * square + pos * tokens + token]!;
    }
    if (pinned && isOf(pinned.at, line)) return (head, pos) => pinned.weights.data[(head - line.head) * tokens + pos] ?? NaN;
    return (head, pos) => {
      const page = this.pages.get(this.key(line, Math.floor(pos / PAGE)));
      return page ? (page.data[(head - line.head) * page.shape[1]! + (pos % PAGE)] ?? NaN) : NaN;
    };
  }

  /** Ask for the first of some pages that is not there yet; one request at a time, so that none pile up. */
  want(line: Line, pages: number[]): void {
    const missing = pages.find((page) => !this.pages.has(this.key(line, page)));
    if (missing === undefined || this.isBusy.peek() || this.sync.life.peek() !== "live") return;
    this.isBusy.value = true;
    const { token, side, layer } = line;
    this.sync.ask("weights", { token, side, layer, first: missing * PAGE, count: PAGE }, 300_000).then(
      ({ ok, buffers }) => {
        this.pages.set(this.key(line, missing), unpack(arrived(ok.weights, buffers)));
        for (const key of this.pages.keys()) {
          if (this.pages.size <= MOST_PAGES) break;
          this.pages.delete(key);
        }
        this.done("");
      },
      (error: Error) => this.done(error.message),
    );
  }

  private done(trouble: string): void {
    this.isBusy.value = false;
    this.trouble.value = trouble;
    // An error is not asked for again by itself.
    if (!trouble) this.news.value++;
  }

  private key({ token, side, layer }: Line, page: number): string {
    return `${token} ${side} ${layer} ${page}`;
  }
}

export function isOf(pinned: Pinned, line: Line): boolean {
  return pinned.token === line.token && pinned.side === line.side && (pinned.layer ?? -1) === line.layer;
}
