// What links the widgets of one page: a host without a kernel gives one bus to all of them. In a notebook Python links them.

/** Says whether it took what it heard; nothing said is no. */
export type Heard = (message: any) => boolean | void;

export interface Bus {
  /** Tell the other widgets; whether one of them took it. */
  tell(topic: string, message: unknown): boolean;
  /** Hear a topic until `ended`. */
  hear(topic: string, heard: Heard, ended: AbortSignal): void;
}

/** Of the topics `feature` (open its page) and `steer` (take it up). Names stand for identities, which a page has none of. */
export interface FeatureAt {
  model: string;
  dictionary: string;
  site: string;
  feature: number;
}

export class PageBus implements Bus {
  private readonly topics = new Map<string, Set<Heard>>();

  tell(topic: string, message: unknown): boolean {
    let taken = false;
    for (const heard of [...(this.topics.get(topic) ?? [])]) taken = heard(message) === true || taken;
    return taken;
  }

  hear(topic: string, heard: Heard, ended: AbortSignal): void {
    const known = this.topics.get(topic) ?? new Set<Heard>();
    this.topics.set(topic, known.add(heard));
    ended.addEventListener("abort", () => known.delete(heard));
  }
}
