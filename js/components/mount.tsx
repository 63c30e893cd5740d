import { h, render, type ComponentType } from "preact";
import type { Signal } from "@preact/signals";
import type { Bus } from "../bus";
import { lifetime, Sync, type View } from "../sync";
import type { Theme } from "./colour";
import { watchTheme } from "./theme";

export interface Scene {
  sync: Sync;
  theme: Signal<Theme>;
  ended: AbortSignal;
  /** The widgets of a page without a kernel hear one another by it; none in a notebook, where Python links them. */
  bus: Bus | undefined;
  root: HTMLElement;
}

/** Puts a widget into its element; what it returns takes everything away again. */
export function mount(view: View, name: string, label: string, Widget: ComponentType<Scene>): () => void {
  const life = lifetime(view);
  const root = document.createElement("section");
  root.className = `iv iv-${name}`;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", label);
  view.el.replaceChildren(root);
  const scene = {
    sync: new Sync(view.model, life.signal),
    theme: watchTheme(root, life.signal),
    ended: life.signal,
    bus: view.bus,
    root,
  };
  render(h(Widget, scene), root);
  life.signal.addEventListener("abort", () => {
    render(null, root);
    root.remove();
  });
  return life.end;
}
