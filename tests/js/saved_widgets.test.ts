import { afterEach, describe, expect, it } from "vitest";
import attention from "../../js/widgets/attention";
import evidence from "../../js/widgets/evidence_card";
import panel from "../../js/widgets/panel";
import patching from "../../js/widgets/patch_grid";
import training from "../../js/widgets/training_monitor";
import type { View } from "../../js/sync";
import golden from "../wire/traits.json";
import { FakeModel, press, settle } from "./model";

type Widget = { render(view: View): () => void };

/** A golden widget's traits, its bytes as they come. */
function traits(name: keyof typeof golden): Record<string, any> {
  const read = (value: any): any => {
    if (Array.isArray(value)) return value.map(read);
    if (typeof value !== "object" || value === null) return value;
    if ("$bytes" in value) return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, read(inner)]));
  };
  return read(structuredClone(golden[name]));
}

const drawn: { el: HTMLElement; end(): void; model: FakeModel }[] = [];
async function draw(widget: Widget, given: Record<string, any>, more: Partial<View> = {}) {
  const el = document.createElement("div");
  document.body.append(el);
  const model = new FakeModel(given);
  const end = widget.render({ model, el, ...more });
  drawn.push({ el, end, model });
  await settle();
  return { el, model };
}
/** The same, with a kernel that answers. */
async function live(widget: Widget, given: Record<string, any>) {
  const found = await draw(widget, given);
  found.model.answer("hello", {});
  await settle();
  return found;
}
afterEach(() => {
  for (const { el, end, model } of drawn.splice(0)) {
    end();
    el.remove();
    expect(model.listening).toBe(0);
  }
});
const button = (el: HTMLElement, name: string) => [...el.querySelectorAll("button")].find((one) => one.textContent === name)!;
const stops = (el: Element, selector: string) => [...el.querySelectorAll<HTMLElement>(selector)].filter((one) => one.tabIndex === 0);

describe("a patching grid", () => {
  it("draws an effect in each cell, and one Tab stop", async () => {
    const { el } = await draw(patching, traits("patch_grid"));
    expect(el.querySelectorAll("[data-at]")).toHaveLength(2 * 12);
    expect(stops(el, "[data-at]")).toHaveLength(1);
    expect(el.querySelector("[data-at='1,10']")!.getAttribute("aria-label")).toMatch(/^blocks\.1\.resid, token 10 .*: effect/);
  });

  it("runs a clicked cell again once, and shows the three answers when they come", async () => {
    const { el, model } = await live(patching, { ...traits("patch_grid"), pinned: null, answers: [] });
    el.querySelector<HTMLElement>("[data-at='1,2']")!.click();
    await settle();
    const asked = model.sent.filter((one) => one.kind === "rerun");
    expect(asked.map(({ row, column, pair }) => [row, column, pair])).toEqual([[1, 2, 0]]);
    expect(el.textContent).toContain("running it again…");
    model.set("answers", traits("patch_grid").answers);
    await settle();
    expect([...el.querySelectorAll(".iv-answers h4")].map((one) => one.textContent!.split(",")[0])).toEqual(["clean", "patched", "corrupt"]);
    expect(el.querySelectorAll(".iv-answer li")).toHaveLength(30);
  });

  it("says that a cell is stale when the network is not what it was", async () => {
    const given = traits("patch_grid");
    given.answers[0].is_same = false;
    given.answers[0].attached = ["good mood"];
    const { el } = await draw(patching, given);
    expect(el.querySelector("[role=alert]")!.textContent).toMatch(/^stale: .*attached now: good mood; then: nothing/);
  });

  it("asks nothing of a kernel that is not there, and says so", async () => {
    const { el, model } = await draw(patching, { ...traits("patch_grid"), answers: [], _page: true });
    expect(model.sent).toEqual([]);
    expect(el.textContent).toContain("its answers were not read before this page was saved");
  });

  it("shows one pair's effects when it is chosen", async () => {
    const { el, model } = await live(patching, traits("patch_grid"));
    const select = el.querySelector("select")!;
    select.value = "1";
    select.dispatchEvent(new Event("change", { bubbles: true }));
    await settle();
    expect(model.traits.pair).toBe(1);
    expect(el.textContent).toContain("pair 1 of 2");
  });
});

describe("attention", () => {
  it("draws a row for each head and pins one by Enter", async () => {
    const { el, model } = await draw(attention, traits("attention"));
    expect(el.querySelectorAll("[role=row]")).toHaveLength(1 + 8);
    press(stops(el, "[data-at]")[0]!, "Enter");
    await settle();
    expect(model.traits.head).toBe(7);
    expect(el.querySelector(".iv-grid-picked .iv-grid-name")!.textContent).toBe("1.3");
  });

  it("pins a token, and its weights are those of the pattern", async () => {
    const { el, model } = await draw(attention, { ...traits("attention"), layer: 0, head: 0 });
    el.querySelector<HTMLElement>("[data-i='1']")!.click();
    await settle();
    expect(model.traits.token).toBe(1);
    const { data } = traits("attention").patterns;
    const expected = new Float32Array(data.buffer.slice(0)).subarray(12, 24);
    const row = [...el.querySelectorAll("[data-at^='0,']")].map((cell) => cell.textContent);
    expect(row[0]).toBe(expected[0]! < 0.005 ? "·" : expected[0]!.toFixed(2).replace(/^0/, ""));
    expect(row[5]).toBe("·");
  });

  it("asks for pages of a long text, one request at a time, and never twice", async () => {
    const given = { ...traits("attention"), patterns: null, pinned: null };
    const { el, model } = await live(attention, given);
    const asked = () => model.sent.filter((one) => one.kind === "weights");
    expect(asked().map(({ token, side, first, count }) => [token, side, first, count])).toEqual([[11, "from", 0, 256]]);
    expect(el.querySelector("[data-at='0,0']")!.textContent).toBe("…");
    const weights = new Float32Array(8 * 12).fill(0.25);
    model.answer("weights", { weights: { buffer: 0, dtype: "float32", shape: [8, 12] }, first: 0 }, [new DataView(weights.buffer)]);
    await settle();
    expect(el.querySelector("[data-at='0,0']")!.textContent).toBe(".25");
    expect(asked()).toHaveLength(1);
  });
});

describe("an evidence card", () => {
  it("shows every control with its verdict, and what was not run", async () => {
    const { el } = await draw(evidence, traits("evidence_card"));
    const verdicts = [...el.querySelectorAll(".iv-verdict")].map((one) => one.textContent!.slice(2));
    expect(verdicts).toEqual(["holds", "flagged", "not run", "does not apply"]);
    expect(el.textContent).toContain("1 holds, 1 flagged, 1 not run, 1 does not apply");
  });

  it("opens a control's plot, and closes it", async () => {
    const { el, model } = await draw(evidence, traits("evidence_card"));
    const opener = () => el.querySelector<HTMLButtonElement>(".iv-open")!;
    opener().click();
    await settle();
    expect(model.traits.shown).toEqual([0]);
    expect(opener().getAttribute("aria-expanded")).toBe("true");
    expect(el.querySelector("svg.iv-compared")!.getAttribute("aria-label")).toContain("3 values");
    opener().click();
    await settle();
    expect(el.querySelector("svg")).toBeNull();
  });
});

describe("a training monitor", () => {
  it("draws the curves and the examples, and stops", async () => {
    const { el, model } = await live(training, traits("training_monitor"));
    expect(el.querySelectorAll("figure")).toHaveLength(4);
    expect(el.querySelector(".iv-train-at")!.textContent).toBe("one");
    button(el, "stop").click();
    await settle();
    expect(model.sent.filter((one) => one.kind === "stop")).toHaveLength(1);
  });

  it("never calls what was saved running", async () => {
    for (const more of [{ _page: true }, {}]) {
      const { el, model } = await draw(training, { ...traits("training_monitor"), ...more });
      (model as any).comm_live = false;
      model.emit("comm_live_update");
      await settle();
      expect(el.querySelector("[role=status]")!.textContent).toContain("was running when this was saved");
      expect(button(el, "stop").disabled).toBe(true);
    }
  });

  it("waits for one to begin", async () => {
    const { el } = await live(training, { ...traits("training_monitor"), about: null, progress: null, curves: [], examples: [] });
    expect(el.textContent).toContain("no training has begun");
  });
});

describe("the panel", () => {
  it("switches, slides and takes off by name, one slide at a time with the newest behind", async () => {
    const { el, model } = await live(panel, traits("panel"));
    const [line] = traits("panel").seen.models;
    el.querySelector<HTMLElement>("[role=switch]")!.click();
    const slider = el.querySelector<HTMLInputElement>("input[type=range]")!;
    for (const value of ["1.5", "2", "2.5"]) {
      slider.value = value;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
    await settle();
    const at = { model: line.key, name: line.edits[0].name };
    const sent = (kind: string) => model.sent.filter((one) => one.kind === kind).map(({ id, kind, ...rest }) => rest);
    expect(sent("switch")).toEqual([{ ...at, on: false }]);
    expect(sent("slide")).toEqual([{ ...at, edit: 0, value: 1.5 }]);
    model.answer("slide", {});
    await settle();
    expect(sent("slide")).toEqual([{ ...at, edit: 0, value: 1.5 }, { ...at, edit: 0, value: 2.5 }]);
    button(el, "detach all").click();
    await settle();
    expect(sent("detach_all")).toEqual([{}]);
  });

  it("shows what was saved as the past, and can do nothing with it", async () => {
    const { el, model } = await draw(panel, traits("panel"));
    (model as any).comm_live = false;
    model.emit("comm_live_update");
    await settle();
    expect(el.querySelector("h3")!.textContent).toBe("Was open in the kernel");
    expect(el.textContent).toContain("1 edit live when this was saved");
    expect([...el.querySelectorAll<HTMLInputElement>("button, input")].every((one) => one.disabled)).toBe(true);
  });
});

describe("every widget", () => {
  it.each([
    ["attention", attention],
    ["evidence_card", evidence],
    ["panel", panel],
    ["patch_grid", patching],
    ["training_monitor", training],
  ] as const)("%s is drawn twice, and each ends alone", async (name, widget) => {
    const first = await draw(widget, traits(name));
    const second = await draw(widget, traits(name));
    expect(first.el.textContent).toBe(second.el.textContent);
    expect(first.el.querySelector("section")!.getAttribute("aria-label")).toBeTruthy();
  });
});
