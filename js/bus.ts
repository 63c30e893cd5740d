// What links the widgets of one page without a kernel: the host makes a bus and passes it to each `render`.
// In a notebook there is none: there Python links them.

export interface Bus {
  /** Tell the other widgets; whether one of them took it. */
  tell(topic: string, detail: unknown): boolean;
  /** Listen until `ended`; a listener says whether it took what it heard. */
  hear(topic: string, listener: (detail: any) => boolean, ended: AbortSignal): void;
}

/** `feature`: open its page. `steer`: take it as a direction. Which dictionary it is of goes by name: a page has no identities. */
export interface FeatureAt {
  model: string;
  dictionary: string;
  site: string;
  feature: number;
}

export function makeBus(): Bus {
  const all = new Map<string, Set<(detail: any) => boolean>>();
  return {
    tell(topic, detail) {
      let taken = false;
      for (const listener of [...(all.get(topic) ?? [])]) taken = listener(detail) || taken;
      return taken;
    },
    hear(topic, listener, ended) {
      const known = all.get(topic) ?? new Set();
      all.set(topic, known.add(listener));
      ended.addEventListener("abort", () => known.delete(listener));
    },
  };
}
