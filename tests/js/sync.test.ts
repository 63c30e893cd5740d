import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { lifetime, Sync } from "../../js/sync";
import messages from "../wire/messages.json";
import { FakeModel } from "./model";

let ended: AbortController;

beforeEach(() => {
  vi.useFakeTimers();
  ended = new AbortController();
});
afterEach(() => {
  ended.abort();
  vi.useRealTimers();
});

describe("requests", () => {
  it.each(messages)("asks for $ask.kind with an id and its fields, and nothing else", ({ ask }) => {
    const model = new FakeModel({});
    const sync = new Sync(model, ended.signal);
    const { id, kind, ...fields } = ask as Record<string, any>;
    if (typeof kind !== "string") return;
    void sync.ask(kind, fields).catch(() => {});
    const sent = model.sent[model.sent.length - 1];
    expect(typeof sent.id).toBe(typeof id);
    expect(sent).toEqual({ ...ask, id: sent.id });
  });

  it("gives each answer to the one who asked", async () => {
    const model = new FakeModel({});
    const sync = new Sync(model, ended.signal);
    const first = sync.ask("rank", { token: 1 });
    const second = sync.ask("rank", { token: 2 });
    const [, a, b] = model.sent;
    model.emit("msg:custom", { id: b.id, error: "no" });
    model.emit("msg:custom", { id: a.id, ok: { x: 1 } }, []);
    await expect(first).resolves.toEqual({ ok: { x: 1 }, buffers: [] });
    await expect(second).rejects.toThrow("no");
  });

  it("says hello first, is live with the answer, and silent when none comes", async () => {
    const model = new FakeModel({});
    const sync = new Sync(model, ended.signal);
    expect(model.sent[0].kind).toBe("hello");
    expect(sync.life.value).toBe("asking");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sync.life.value).toBe("silent");
    expect(model.sent.length).toBeLessThan(6);
    model.emit("msg:custom", { id: model.sent[0].id, ok: {} }, []);
    expect(sync.life.value).toBe("live");
  });

  it.each(["restarting", "autorestarting", "dead"])("falls silent at once when its kernel is %s, and gives up what it waited for", async (status) => {
    const told = new Set<(sender: unknown, status: string) => void>();
    const statusChanged = { connect: (heard: any) => told.add(heard), disconnect: (heard: any) => told.delete(heard) };
    const model = Object.assign(new FakeModel({}), { widget_manager: { kernel: { statusChanged } } });
    const sync = new Sync(model, ended.signal);
    model.answer("hello", {});
    expect(sync.life.value).toBe("live");
    const asked = sync.ask("rank", {}, 300_000);
    for (const heard of told) heard(null, "busy");
    expect(sync.life.value).toBe("live");
    for (const heard of told) heard(null, status);
    expect(sync.life.value).toBe("silent");
    await expect(asked).rejects.toThrow("no answer from the kernel");
    ended.abort();
    expect(told.size).toBe(0);
  });

  it("falls silent while the connection is gone, and asks when it is back", async () => {
    const told = new Set<(sender: unknown, status: string) => void>();
    const connectionStatusChanged = { connect: (heard: any) => told.add(heard), disconnect: (heard: any) => told.delete(heard) };
    const model = Object.assign(new FakeModel({}), { widget_manager: { kernel: { connectionStatusChanged } } });
    const sync = new Sync(model, ended.signal);
    expect(sync.isTold).toBe(false);
    model.answer("hello", {});
    for (const heard of told) heard(null, "connecting");
    expect(sync.life.value).toBe("silent");
    for (const heard of told) heard(null, "connected");
    expect(sync.life.value).toBe("asking");
    model.answer("hello", {});
    expect(sync.life.value).toBe("live");
  });

  it("asks again when something happened to its comm, and is live with the answer only", async () => {
    const model = new FakeModel({});
    const sync = new Sync(model, ended.signal);
    model.answer("hello", {});
    model.emit("comm_live_update");
    expect(sync.life.value).toBe("asking");
    model.answer("hello", {});
    expect(sync.life.value).toBe("live");
    model.emit("comm_live_update");
    await vi.advanceTimersByTimeAsync(5000);
    expect(sync.life.value).toBe("silent");
  });

  it("is not taken for live by its own writing", async () => {
    const sync = new Sync(new FakeModel({ edits: 0 }), ended.signal);
    sync.put("edits", 1);
    expect(sync.life.value).toBe("asking");
  });

  it("sends nothing from a saved page", async () => {
    const model = new FakeModel({ _page: true });
    const sync = new Sync(model, ended.signal);
    await expect(sync.ask("run")).rejects.toThrow("no kernel");
    expect(model.sent).toEqual([]);
  });
});

describe("traits", () => {
  it("are written at once on screen and at most twenty times a second to Python", async () => {
    const model = new FakeModel({ edits: 0 });
    const sync = new Sync(model, ended.signal);
    for (let i = 1; i <= 100; i++) {
      sync.put("edits", i);
      await vi.advanceTimersByTimeAsync(10);
    }
    await vi.advanceTimersByTimeAsync(100);
    expect(sync.trait("edits").value).toBe(100);
    expect(model.traits.edits).toBe(100);
    expect(model.saves).toBeGreaterThan(15);
    expect(model.saves).toBeLessThanOrEqual(21);
  });

  it("that wait are written before the next request", () => {
    const model = new FakeModel({ edits: 0 });
    const sync = new Sync(model, ended.signal);
    sync.put("edits", 1);
    sync.put("edits", 2);
    expect(model.saves).toBe(1);
    void sync.ask("run").catch(() => {});
    expect(model.saves).toBe(2);
  });

  it("follow Python", () => {
    const model = new FakeModel({ columns: 1 });
    const sync = new Sync(model, ended.signal);
    expect(sync.trait("columns").value).toBe(1);
    model.set("columns", 2);
    expect(sync.trait("columns").value).toBe(2);
  });
});

describe("the end of a view", () => {
  it("leaves no listener, and tells whoever still waits", async () => {
    const model = new FakeModel({ a: 1 });
    const sync = new Sync(model, ended.signal);
    sync.trait("a");
    const waiting = sync.ask("rank");
    expect(model.listening).toBeGreaterThan(0);
    ended.abort();
    expect(model.listening).toBe(0);
    await expect(waiting).rejects.toThrow("closed");
  });

  it("comes with the host's signal or with the cleanup, whichever is first", () => {
    const host = new AbortController();
    const view = { model: new FakeModel({}), el: document.createElement("div"), signal: host.signal };
    const one = lifetime(view);
    host.abort();
    expect(one.signal.aborted).toBe(true);
    const two = lifetime({ ...view, signal: undefined });
    two.end();
    expect(two.signal.aborted).toBe(true);
  });
});
