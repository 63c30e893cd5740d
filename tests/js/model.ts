import type { Model } from "../../js/sync";

/** A model as anywidget gives it, whose messages are kept and whose traits a test can change. */
export class FakeModel implements Model {
  readonly sent: any[] = [];
  saves = 0;
  private readonly listeners = new Map<string, Set<(...args: any[]) => void>>();

  constructor(readonly traits: Record<string, unknown>) {}

  get(name: string): any {
    return this.traits[name];
  }

  set(name: string, value: unknown): void {
    this.traits[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes(): void {
    this.saves++;
  }

  send(content: unknown): void {
    this.sent.push(content);
  }

  on(event: string, callback: (...args: any[]) => void): void {
    this.listeners.set(event, (this.listeners.get(event) ?? new Set()).add(callback));
  }

  off(event: string, callback: (...args: any[]) => void): void {
    this.listeners.get(event)?.delete(callback);
  }

  emit(event: string, ...args: unknown[]): void {
    for (const callback of [...(this.listeners.get(event) ?? [])]) callback(...args);
  }

  /** Answer every request of a kind. */
  answer(kind: string, ok: unknown, buffers: DataView[] = []): void {
    for (const ask of this.sent.filter((message) => message.kind === kind)) this.emit("msg:custom", { id: ask.id, ok }, buffers);
  }

  get listening(): number {
    return [...this.listeners.values()].reduce((sum, set) => sum + set.size, 0);
  }
}

export function pack(values: number[], dtype: "float32" | "int32", shape: number[]) {
  const typed = dtype === "float32" ? Float32Array.from(values) : Int32Array.from(values);
  return { data: new DataView(typed.buffer), dtype, shape };
}

export const READY = { state: "ready", message: "" };

/** Lets effects, timers of no length and renders happen. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

export function press(el: Element, key: string, more: KeyboardEventInit = {}): void {
  el.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
}
