import { useSignal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Theme } from "./colour";
import type { FeatureWire, OwnWire } from "./feature";
import { visible } from "./glyphs";
import { digits } from "./numbers";
import { Shaded } from "./shaded";
import { unpack } from "../wire";
import type { Sync } from "../sync";

interface Props {
  sync: Sync;
  view: FeatureWire;
  most: number;
  theme: Signal<Theme>;
}

const PATIENCE_MS = 1500;

/** A text of one's own, read while it is typed: each keystroke is sent at most 20 times a second, and only the newest is read. */
export function OwnText({ sync, view, most, theme }: Props) {
  const typed = sync.trait<string>("typed");
  const own = sync.trait<OwnWire | null>("own").value;
  const look = useSignal<number | null>(null);
  const life = sync.life.value;
  const canRead = life !== "page" && view.live.read;
  const text = typed.value;
  const isDue = text.trim() !== "" && (own?.text !== text || own.feature !== view.feature);

  useEffect(() => {
    if (!isDue || !canRead) return;
    // Nothing came: ask whether the kernel still answers, so that what is old is not taken for new.
    const timer = setTimeout(() => void sync.ask("hello").catch(() => {}), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, [text, isDue, canRead]);

  const why = life === "page" ? "a saved page has no kernel: this is the text that was typed last" : view.live.read ? "" : "there is no model to read with: iv.FeaturePage(view, model=model, dictionary=dictionary)";
  const values = own?.values ? unpack(own.values).data : [];
  const ids = own?.ids ? unpack(own.ids).data : [];
  const words = text.trim() ? (own?.words ?? []) : [];
  const at = look.value;
  const strongest = Array.from(values).reduce((best, value) => (Number.isFinite(value) && value > best ? value : best), 0);
  if (life === "page" && !text) return null;
  return (
    <div class={isDue && words.length > 0 ? "iv-own iv-stale" : "iv-own"}>
      <textarea
        class="iv-field iv-own-field"
        rows={Math.min(5, text.split("\n").length)}
        aria-label="a text of your own"
        placeholder="type a text of your own: it lights up where the feature is active"
        title={why || undefined}
        value={text}
        disabled={!canRead}
        spellcheck={false}
        maxLength={20_000}
        onInput={(event) => sync.put("typed", event.currentTarget.value)}
      />
      {own?.error && own.text === text && (
        <p class="iv-note iv-note-bad" role="alert">
          {own.error}
        </p>
      )}
      {words.length > 0 && (
        <>
          <Shaded
            label="your text by token"
            words={words}
            values={Array.from(values, (value) => (value === 0 ? NaN : value))}
            most={Math.max(most, 1e-6)}
            theme={theme.value}
            unit=""
            onLook={(i) => (look.value = i)}
          />
          <div class="iv-said" aria-live="polite">
            {isDue
              ? life === "silent"
                ? "not read: no answer from the kernel"
                : "reading…"
              : at !== null && at < words.length
                ? `${visible(words[at]!)} · activation ${digits(values[at] ?? NaN)} · id ${ids[at]}`
                : strongest > 0
                  ? `largest ${digits(strongest)}, where ${digits(most)} is the largest seen`
                  : "not active anywhere in this text"}
          </div>
        </>
      )}
    </div>
  );
}
