import { useSignal, type Signal } from "@preact/signals";
import { arrived } from "../wire";
import type { Sync } from "../sync";
import type { PartnersWire } from "./feature";
import { Verb } from "./frame";
import { readable } from "./glyphs";
import { Partners } from "./partners";

interface Group {
  about: string;
  site: string;
  features: PartnersWire;
}

/** What was asked, and what came: features of each linked dictionary, or why there are none. */
export interface Acting {
  title: string;
  state: "asking" | "here" | "error";
  groups: Group[];
  note: string;
}

/** Asks Python for the features behind something, and opens their pages. Only the newest question counts. */
export function useActing(sync: Sync) {
  const acting = useSignal<Acting | null>(null);
  const ask = (title: string, fields: Record<string, unknown>) => {
    const mine: Acting = { title, state: "asking", groups: [], note: "" };
    acting.value = mine;
    sync.ask("features", fields).then(
      ({ ok, buffers }) => {
        if (acting.value !== mine) return;
        const groups = (ok.groups as any[]).map((group) => ({ ...group, features: come(group.features, buffers) }));
        acting.value = { ...mine, state: "here", groups, note: ok.note };
      },
      (error: Error) => {
        if (acting.value === mine) acting.value = { ...mine, state: "error", note: error.message };
      },
    );
  };
  const open = (dictionary: number, feature: number) =>
    sync.ask("follow", { dictionary, feature }).catch((error: Error) => {
      if (acting.value) acting.value = { ...acting.value, note: error.message };
    });
  return { acting, ask, open };
}

function come(features: any, buffers: DataView[]): PartnersWire {
  return {
    texts: features.texts,
    features: arrived(features.features, buffers),
    values: arrived(features.values, buffers),
    n: arrived(features.n, buffers),
  };
}

/** The features behind a token or a cell, each a way to its page. */
export function ActingList({ acting, unit, onOpen }: { acting: Signal<Acting | null>; unit: string; onOpen(dictionary: number, feature: number): void }) {
  const shown = acting.value;
  if (!shown) return null;
  return (
    <div class="iv-acting" aria-live="polite">
      <div class="iv-acting-head">
        <span>{shown.title}</span>
        <Verb label="close" onAct={() => (acting.value = null)} />
      </div>
      {shown.state === "asking" && <p class="iv-note">reading…</p>}
      {shown.note && (
        <p class={shown.state === "error" ? "iv-note iv-note-bad" : "iv-note"} role={shown.state === "error" ? "alert" : undefined}>
          {shown.note}
        </p>
      )}
      <div class="iv-acting-groups">
        {shown.groups.map((group, i) => (
          <Partners key={i} title={`${readable(group.about)} · ${group.site} · ${unit}`} why="open a feature's page" partners={group.features} onOpen={(feature) => onOpen(i, feature)} />
        ))}
      </div>
    </div>
  );
}
