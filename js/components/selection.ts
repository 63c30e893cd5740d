// A set of features that a person selects; on a page without a kernel the bus carries it, in a notebook Python does.

import { useComputed } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Bus, FeatureAt } from "../bus";
import type { Sync } from "../sync";
import type { Packed } from "../wire";
import { intsOf, packInts } from "./rows";

type Owner = Omit<FeatureAt, "feature">;

interface Selected extends Owner {
  features: number[];
}

export function useSelection(sync: Sync, bus: Bus | undefined, owner: Owner, ended: AbortSignal) {
  const wire = sync.trait<Packed>("selected");
  const selected = useComputed(() => intsOf(wire.value));
  useEffect(() => {
    bus?.hear(
      "selected",
      (told: Selected) => {
        if (told.model !== owner.model || told.dictionary !== owner.dictionary || told.site !== owner.site) return false;
        sync.put("selected", packInts(told.features));
        return true;
      },
      ended,
    );
  }, []);
  const put = (features: Iterable<number>) => {
    const chosen = [...features];
    sync.put("selected", packInts(chosen));
    bus?.tell("selected", { model: owner.model, dictionary: owner.dictionary, site: owner.site, features: chosen });
  };
  return { selected, put };
}
