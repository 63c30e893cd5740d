// What links the widgets of one page: a host without a kernel gives one bus to all of them.

export type Heard = (message: any) => void;

export interface Bus {
  tell(topic: string, message: unknown): void;
  /** Hear a topic until `ended`. */
  hear(topic: string, heard: Heard, ended: AbortSignal): void;
}

export class PageBus implements Bus {
  private readonly topics = new Map<string, Set<Heard>>();

  tell(topic: string, message: unknown): void {
    for (const heard of [...(this.topics.get(topic) ?? [])]) heard(message);
  }

  hear(topic: string, heard: Heard, ended: AbortSignal): void {
    const known = this.topics.get(topic) ?? new Set<Heard>();
    this.topics.set(topic, known.add(heard));
    ended.addEventListener("abort", () => known.delete(heard));
  }
}
