// The one place where the browser talks to Python: traits as signals, requests as promises.

import { signal, type Signal } from "@preact/signals";
import type { Bus } from "./bus";
import { isAnswer, type Ask } from "./wire";

export interface Model {
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown, callbacks?: unknown, buffers?: unknown[]): void;
  on(event: string, callback: (...args: any[]) => void): void;
  off(event: string, callback: (...args: any[]) => void): void;
}

export interface View {
  model: Model;
  el: HTMLElement;
  signal?: AbortSignal;
  /** On a page without a kernel: what links its widgets. */
  bus?: Bus;
}

/** asking: no answer yet · live: Python answers · silent: it does not · page: a file, there is no Python. */
export type Life = "asking" | "live" | "silent" | "page";

export interface Reply {
  ok: any;
  buffers: DataView[];
}

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
  timer: ReturnType<typeof setTimeout>;
}

const ANSWER_MS = 4000;
const WRITE_MS = 50;
const HELLOS = 4;
const GONE = new Set(["restarting", "autorestarting", "dead", "terminating"]);

interface Emitter {
  connect(slot: (sender: unknown, value: unknown) => void): unknown;
  disconnect(slot: (sender: unknown, value: unknown) => void): unknown;
}

export class Sync {
  readonly life: Signal<Life>;
  /** Whether the host tells when the kernel is gone; else only a question finds out. */
  isTold = false;
  private readonly traits = new Map<string, Signal<any>>();
  private readonly waiting = new Map<number, Waiting>();
  private nextId = Math.floor(Math.random() * 2 ** 30);
  private unsaved = false;
  private saveTimer: ReturnType<typeof setTimeout> | undefined;
  private lastSave = -Infinity;

  constructor(
    private readonly model: Model,
    private readonly ended: AbortSignal,
  ) {
    this.life = signal<Life>(model.get("_page") === true ? "page" : "asking");
    this.listen("msg:custom", (content, buffers) => this.receive(content, buffers));
    ended.addEventListener("abort", () => this.close());
    if (this.life.value === "page") return;
    this.listen("comm_live_update", () => this.checkLife());
    this.watchKernel();
    this.hello(HELLOS);
  }

  /** A trait's value, kept up with the model for as long as the view lives. */
  trait<T>(name: string): Signal<T> {
    const known = this.traits.get(name);
    if (known) return known;
    const made = signal<T>(this.model.get(name));
    this.traits.set(name, made);
    this.listen(`change:${name}`, () => {
      made.value = this.model.get(name);
    });
    return made;
  }

  /** Write a trait: at once on screen, at most 20 times a second to Python. */
  put(name: string, value: unknown): void {
    this.trait(name).value = value;
    this.model.set(name, value);
    this.unsaved = true;
    if (this.saveTimer !== undefined) return;
    const wait = Math.max(0, this.lastSave + WRITE_MS - performance.now());
    if (wait === 0) this.save();
    else this.saveTimer = setTimeout(() => this.save(), wait);
  }

  /** Ask Python for work. Rejects with its error, or when no answer comes in time. */
  ask(kind: string, fields: Record<string, unknown> = {}, patienceMs = ANSWER_MS): Promise<Reply> {
    if (this.life.value === "page") return Promise.reject(new Error("a saved page has no kernel"));
    this.save();
    const message: Ask = { ...fields, id: this.nextId++, kind };
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.giveUp(message.id), patienceMs);
      this.waiting.set(message.id, { resolve, reject, timer });
      this.model.send(message);
    });
  }

  private listen(event: string, callback: (...args: any[]) => void): void {
    this.model.on(event, callback);
    this.ended.addEventListener("abort", () => this.model.off(event, callback));
  }

  /** Something happened to the comm, and not every host tells what: whoever answers is alive. */
  private checkLife(): void {
    if ((this.model as any).comm_live === false) return this.fall();
    this.life.value = "asking";
    this.hello(1);
  }

  /** JupyterLab's manager knows the kernel, and no comm is told when it crashes. */
  private watchKernel(): void {
    const kernel = (this.model as any).widget_manager?.kernel;
    this.isTold = this.follow(kernel?.statusChanged, (status) => {
      if (GONE.has(String(status))) this.fall();
    });
    // The server may be gone while nobody knows how the kernel is.
    this.follow(kernel?.connectionStatusChanged, (status) => {
      if (status === "connected") this.checkLife();
      else this.fall();
    });
  }

  private follow(changed: Emitter | undefined, told: (value: unknown) => void): boolean {
    if (typeof changed?.connect !== "function") return false;
    const slot = (_: unknown, value: unknown) => told(value);
    changed.connect(slot);
    this.ended.addEventListener("abort", () => changed.disconnect(slot));
    return true;
  }

  /** The kernel is gone, and with it every answer that is waited for. */
  private fall(): void {
    this.life.value = "silent";
    for (const id of [...this.waiting.keys()]) this.giveUp(id);
  }

  private receive(content: unknown, buffers: DataView[] = []): void {
    if (!isAnswer(content)) return;
    const waiting = this.waiting.get(content.id);
    this.life.value = "live";
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.waiting.delete(content.id);
    if ("ok" in content) waiting.resolve({ ok: content.ok, buffers });
    else waiting.reject(new Error(content.error));
  }

  private hello(left: number): void {
    this.ask("hello").catch(() => {
      if (left > 1 && !this.ended.aborted && this.life.value !== "live") this.hello(left - 1);
    });
  }

  private giveUp(id: number): void {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.waiting.delete(id);
    this.life.value = "silent";
    waiting.reject(new Error("no answer from the kernel: it is busy, or it ended; run the cell again"));
  }

  private save(): void {
    clearTimeout(this.saveTimer);
    this.saveTimer = undefined;
    if (!this.unsaved) return;
    this.unsaved = false;
    this.lastSave = performance.now();
    this.model.save_changes();
  }

  private close(): void {
    this.save();
    for (const { timer, reject } of this.waiting.values()) {
      clearTimeout(timer);
      reject(new Error("the view was closed"));
    }
    this.waiting.clear();
  }
}

/** A signal that ends when the view ends: the host's own, or the cleanup that render returns. */
export function lifetime(view: View): { signal: AbortSignal; end: () => void } {
  const own = new AbortController();
  view.signal?.addEventListener("abort", () => own.abort(), { signal: own.signal });
  if (view.signal?.aborted) own.abort();
  return { signal: own.signal, end: () => own.abort() };
}
