// The host of a page without a kernel: saved traits in, the same widgets out, nothing sent anywhere.

import { PageBus } from "../bus";

interface Saved {
  widget: string;
  traits: Record<string, unknown>;
  buffers: { path: (string | number)[]; data: string }[];
  css: string;
  /** Traits that go together with those of other widgets on the page: trait -> channel. */
  links: Record<string, string>;
}

type Callback = (...args: unknown[]) => void;

class SavedModel {
  private readonly listeners = new Map<string, Set<Callback>>();

  constructor(
    private readonly traits: Record<string, unknown>,
    private readonly told: (name: string, value: unknown) => void,
  ) {}

  get(name: string): unknown {
    return name === "_page" ? true : this.traits[name];
  }

  set(name: string, value: unknown): void {
    if (this.traits[name] === value) return;
    this.traits[name] = value;
    for (const callback of [...(this.listeners.get(`change:${name}`) ?? [])]) callback();
    this.told(name, value);
  }

  on(event: string, callback: Callback): void {
    const known = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, known.add(callback));
  }

  off(event: string, callback: Callback): void {
    this.listeners.get(event)?.delete(callback);
  }

  save_changes(): void {}

  send(): void {}
}

function bytes(base64: string): DataView {
  const text = atob(base64);
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return new DataView(out.buffer);
}

function fill(saved: Saved): Record<string, unknown> {
  for (const { path, data } of saved.buffers) {
    let place: any = saved.traits;
    for (const step of path.slice(0, -1)) place = place?.[step];
    if (place && typeof place === "object") place[path[path.length - 1]!] = bytes(data);
  }
  return saved.traits;
}

function adopt(css: Set<string>): void {
  for (const id of css) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(JSON.parse(document.getElementById(id)!.textContent!));
    document.adoptedStyleSheets.push(sheet);
  }
}

function start(): void {
  const bus = new PageBus();
  const channels = new Map<string, { model: SavedModel; trait: string }[]>();
  const mounts = [...document.querySelectorAll<HTMLElement>("[data-iv-saved]")];
  const all = mounts.map((el) => ({ el, saved: JSON.parse(document.getElementById(el.dataset.ivSaved!)!.textContent!) as Saved }));
  adopt(new Set(all.map(({ saved }) => saved.css)));
  for (const { el, saved } of all) {
    const model = new SavedModel(fill(saved), (name, value) => {
      const channel = saved.links[name];
      for (const other of (channel && channels.get(channel)) || []) if (other.model !== model) other.model.set(other.trait, value);
    });
    for (const [trait, channel] of Object.entries(saved.links)) {
      channels.set(channel, [...(channels.get(channel) ?? []), { model, trait }]);
    }
    const bundle = (globalThis as any)[`innerview_${saved.widget}`];
    bundle.default.render({ model, el, bus, signal: new AbortController().signal });
  }
}

start();
