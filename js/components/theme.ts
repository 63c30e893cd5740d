import { signal, type Signal } from "@preact/signals";
import { contrast, LIGHT, type Rgb, type Theme } from "./colour";

/** JupyterLab's word first, then VS Code's, then the system's. */
export function isDark(body: HTMLElement, system: boolean): boolean {
  const jupyter = body.dataset.jpThemeLight;
  if (jupyter !== undefined) return jupyter === "false";
  const code = body.dataset.vscodeThemeKind;
  if (code !== undefined) return code.includes("dark") || code === "vscode-high-contrast";
  return system;
}

function parse(colour: string): Rgb | undefined {
  const numbers = colour.match(/^rgba?\(([\d.]+)[, ]+([\d.]+)[, ]+([\d.]+)/);
  if (!numbers) return undefined;
  return [Number(numbers[1]), Number(numbers[2]), Number(numbers[3])];
}

function over(ink: string, bg: Rgb): Rgb | undefined {
  const rgb = parse(ink);
  const alpha = Number(ink.match(/^rgba\(.*[,/]\s*([\d.]+)\)$/)?.[1] ?? 1);
  return rgb && ([0, 1, 2].map((i) => Math.round(rgb[i]! * alpha + bg[i]! * (1 - alpha))) as unknown as Rgb);
}

function read(el: HTMLElement, system: boolean): Theme {
  const dark = isDark(document.body, system);
  el.classList.toggle("iv-dark", dark);
  const style = getComputedStyle(el);
  const bg = parse(style.backgroundColor) ?? (dark ? ([17, 17, 17] as const) : LIGHT.bg);
  const ink = over(style.color, bg) ?? LIGHT.ink;
  return { dark, bg, ink: contrast(bg, ink) > 3 ? ink : dark ? [255, 255, 255] : [0, 0, 0] };
}

/** The theme around an element, kept up with the page's changes until the view ends. */
export function watchTheme(el: HTMLElement, ended: AbortSignal): Signal<Theme> {
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = signal(read(el, media.matches));
  let late: ReturnType<typeof setTimeout> | undefined;
  const again = () => {
    theme.value = read(el, media.matches);
  };
  const changed = () => {
    again();
    clearTimeout(late);
    // JupyterLab marks the body before the new stylesheet has arrived.
    late = setTimeout(again, 300);
  };
  media.addEventListener("change", changed, { signal: ended });
  const observer = new MutationObserver(changed);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind", "class"] });
  const first = requestAnimationFrame(again);
  ended.addEventListener("abort", () => {
    observer.disconnect();
    clearTimeout(late);
    cancelAnimationFrame(first);
  });
  return theme;
}
