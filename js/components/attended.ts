// Attention weights as they come: all at once, the pinned token's, or pages of a long text.

import { signal, type Signal } from "@preact/signals";
import { arrived, unpack, type Packed, type Tensor } from "../wire";
import type { Sync } from "../sync";

export type Side = "from" | "to";

export interface Pinned {
  token: number;
  side: Side;
  weights: Packed;
}

export const PAGE = 256;
const MOST_PAGES = 48;

/** Weight of a head between the chosen token and another; NaN while it is not known. */
export type Weights = (head: number, pos: number) => number;

export class Attended {
  readonly trouble: Signal<string> = signal("");
  readonly news: Signal<number> = signal(0);
  private readonly pages = new Map<string, Tensor>();
  private isBusy = false;

  constructor(private readonly sync: Sync) {}

  of(token: number, side: Side, tokens: number, all: Tensor | null, pinned: { at: Pinned; weights: Tensor } | null): Weights {
    if (all) {
      const { data } = all;
      const square = tokens * tokens;
      return side === "from" ? (head, pos) => data[head * square + token * tokens + pos]! : (head, pos) => data[head * square + pos * tokens + token]!;
    }
    if (pinned && pinned.at.token === token && pinned.at.side === side) return (head, pos) => pinned.weights.data[head * tokens + pos]!;
    return (head, pos) => {
      const page = this.pages.get(this.key(token, side, Math.floor(pos / PAGE)));
      return page ? page.data[head * page.shape[1]! + (pos % PAGE)]! : NaN;
    };
  }

  /** Ask for the first of some pages that is not there yet; one request at a time, so that none pile up. */
  want(token: number, side: Side, pages: number[]): void {
    const missing = pages.find((page) => !this.pages.has(this.key(token, side, page)));
    if (missing === undefined || this.isBusy || this.sync.life.peek() !== "live") return;
    this.isBusy = true;
    this.sync.ask("weights", { token, side, first: missing * PAGE, count: PAGE }, 300_000).then(
      ({ ok, buffers }) => {
        this.pages.set(this.key(token, side, missing), unpack(arrived(ok.weights, buffers)));
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
    this.isBusy = false;
    this.trouble.value = trouble;
    // An error is not asked for again by itself.
    if (!trouble) this.news.value++;
  }

  private key(token: number, side: Side, page: number): string {
    return `${token} ${side} ${page}`;
  }
}
