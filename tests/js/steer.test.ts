import { afterEach, describe, expect, it } from "vitest";
import widget from "../../js/widgets/steer";
import { FakeModel, pack, press, READY, settle } from "./model";

const PROMPT = { chat: false, text: "The trip was", before: [] };
const DIRECTION = {
  name: "good mood",
  site: "blocks.3.resid",
  scale: 3.7,
  unit: "step",
  scale_kind: "gap of the class means",
  scale_n: 48,
  residual_norm: 12,
  layered: true,
};
const EDIT = { direction: 0, op: "add", coefficient: 2, layers: "site", scope: "all", schedule: "constant", length: 10, on: true };

function column(words: string[], more = {}) {
  const all = ["The", " trip", ...words];
  const values = all.map((_, i) => (i === all.length - 1 ? NaN : i - 2));
  return { prompt: PROMPT, prompt_words: ["The", " trip"], words, values: pack(values, "float32", [1, all.length]), state: "done", mixed: false, ...more };
}

const STRENGTHS = [-4, -3, -2, -1, 0, 1, 2, 3, 4];
function dose() {
  const line = (f: (s: number) => number) => pack(STRENGTHS.map(f), "float32", [9]);
  return {
    prompt: PROMPT,
    edit: EDIT,
    strengths: line((s) => s),
    effect: line((s) => s / 10),
    cost: line((s) => (s * s) / 20),
    random_effect: line(() => 0),
    random_cost: line((s) => (s * s) / 30),
    words: [" lovely", " great"],
    texts: STRENGTHS.map((s) => column([` text at ${s}`])),
  };
}

function traits(more: Record<string, unknown> = {}) {
  return {
    setup: { model: "pocket", has_chat: true, max_new_tokens: 40, limit: 4, directions: [DIRECTION], recipe: null },
    prompt: PROMPT,
    edits: [EDIT],
    columns: { plain: column([" dull", "\n"]), edited: column([" lovely", "<b>x</b>"]), attached: [] },
    dose: [null],
    shade: 0,
    status: READY,
    ...more,
  };
}

const undo: (() => void)[] = [];
function draw(model: FakeModel) {
  const el = document.createElement("div");
  document.body.append(el);
  const end = widget.render({ model, el });
  undo.push(() => {
    end();
    el.remove();
  });
  return { el, end };
}
afterEach(() => {
  while (undo.length) undo.pop()!();
});
const text = (el: Element, name: string) =>
  [...el.querySelectorAll(`[data-column=${name}] [data-i]`)].map((token) => token.textContent).join("");
const button = (el: Element, label: string) => [...el.querySelectorAll("button")].find((b) => b.textContent === label)!;
function slide(el: Element, value: number) {
  const slider = el.querySelector<HTMLInputElement>(".iv-slider")!;
  slider.value = String(value);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}

describe("what it shows", () => {
  it("has two columns of text, shaded by the direction, with the number for whoever points at a token", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    expect(text(el, "edited")).toBe("The trip lovely<b>x</b>");
    expect(el.querySelector("b")).toBeNull();
    const token = el.querySelector<HTMLElement>("[data-column=edited] [data-i='0']")!;
    expect(token.style.background).not.toBe("");
    token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    await settle();
    expect(el.querySelector(".iv-said")!.textContent).toBe("The · −2.00 steps");
  });

  it("gives steps, raw units and residual norms beside the slider", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    expect(el.querySelector(".iv-edit-units")!.textContent).toBe("+2.0 steps · 7.40 raw · 0.617 |resid|");
    expect(el.textContent).toContain("n = 48");
    expect(el.textContent).toContain("controls: not run");
  });

  it("says when a text belongs to another prompt, was stopped, or mixes edits", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    model.set("prompt", { ...PROMPT, text: "Another" });
    model.set("columns", { plain: column([" a"], { state: "stopped" }), edited: column([" b"], { mixed: true }), attached: ["no refusal"] });
    await settle();
    expect(el.querySelector("[data-column=plain]")!.textContent).toContain("stopped · stale: the prompt changed");
    expect(el.querySelector("[data-column=edited]")!.textContent).toContain("the edits moved while it wrote");
    expect(el.textContent).toContain("attached and ignored here: no refusal");
  });

  it("is drawn without directions, text or numbers", async () => {
    const empty = { prompt: null, prompt_words: [], words: [], values: null, state: "empty", mixed: false };
    const setup = { ...traits().setup, directions: [] };
    const { el } = draw(new FakeModel(traits({ setup, edits: [], dose: [], shade: -1, columns: { plain: empty, edited: empty, attached: [] } })));
    await settle();
    expect(el.textContent).toContain("no direction to steer by");
    expect(el.textContent).toContain("nothing written yet");
  });
});

describe("what it sends", () => {
  it("a moved slider as the edits, the others untouched", async () => {
    const model = new FakeModel(traits({ edits: [EDIT, { ...EDIT, op: "out" }] }));
    const { el } = draw(model);
    await settle();
    slide(el, -1.5);
    expect(model.traits.edits).toEqual([{ ...EDIT, coefficient: -1.5 }, { ...EDIT, op: "out" }]);
    expect(model.saves).toBe(1);
  });

  it("run, stop and code as requests", async () => {
    const model = new FakeModel(traits({ columns: { ...traits().columns, edited: column([" a"], { state: "running" }) } }));
    const { el } = draw(model);
    await settle();
    button(el, "run").click();
    button(el, "stop").click();
    button(el, "copy as code").click();
    expect(model.sent.map((message) => message.kind)).toEqual(["hello", "run", "stop", "code"]);
    model.answer("code", { code: "import innerview as iv" });
    await settle();
    expect(el.querySelector<HTMLTextAreaElement>(".iv-code textarea")!.value).toBe("import innerview as iv");
  });

  it("runs with Ctrl+Enter from the prompt, and keeps that key for itself", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    let escaped = 0;
    el.addEventListener("keydown", () => escaped++);
    press(el.querySelector("textarea")!, "Enter", { ctrlKey: true });
    expect(model.sent.map((message) => message.kind)).toContain("run");
    expect(escaped).toBe(0);
  });

  it("an edit's form, an added edit and a dropped one", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    el.querySelector<HTMLButtonElement>(".iv-how")!.click();
    await settle();
    const pick = async (label: string, value: string) => {
      const select = el.querySelector<HTMLSelectElement>(`select[aria-label=${label}]`)!;
      select.value = value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      await settle();
    };
    await pick("scope", "generated");
    await pick("schedule", "decay");
    await pick("operation", "out");
    expect(model.traits.edits).toEqual([{ ...EDIT, scope: "generated", schedule: "decay", op: "out", layers: "all" }]);
    button(el, "drop this edit").click();
    expect(model.traits.edits).toEqual([]);
  });

  it("no recipe where Python gave no folder", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    expect(button(el, "save recipe").disabled).toBe(true);
    expect(button(el, "save recipe").title).toContain("recipe_path");
  });

  it("shows an error that comes back", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    button(el, "run").click();
    model.emit("msg:custom", { id: model.sent[1].id, error: "the text is empty" });
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toBe("the text is empty");
  });
});

describe("the dose", () => {
  it("is drawn with where you are, and stale when the prompt or the form changed", async () => {
    const model = new FakeModel(traits({ dose: [dose()] }));
    const { el } = draw(model);
    await settle();
    expect(el.querySelectorAll(".iv-dose .iv-dot-open")).toHaveLength(9);
    expect(el.textContent).toContain("now +2.0 steps: effect +0.200, KL 0.200 nat a token");
    slide(el, 1.5);
    await settle();
    expect(el.textContent).toContain("now +1.5 steps: effect +0.150, KL 0.125");
    expect(el.textContent).not.toContain("stale");
    model.set("edits", [{ ...EDIT, scope: "prompt" }]);
    await settle();
    expect(el.textContent).toContain("stale: prompt or edit changed");
  });
});

describe("a kernel that is gone", () => {
  it("leaves nothing that needs it to press, and nothing that is called live", async () => {
    const model = Object.assign(new FakeModel(traits()), { comm_live: true });
    const { el } = draw(model);
    model.answer("hello", {});
    await settle();
    expect(el.textContent).toContain("1 edit live");
    model.comm_live = false;
    model.emit("comm_live_update");
    await settle();
    expect(el.textContent).toContain("1 edit when this was saved");
    expect(el.textContent).not.toContain("1 edit live");
    for (const name of ["run", "stop", "dose", "copy as code", "save recipe"]) {
      const button = [...el.querySelectorAll("button")].find((one) => one.textContent === name)!;
      expect(button.disabled, name).toBe(true);
    }
    expect(el.querySelector("textarea")!.disabled).toBe(true);
    expect(el.querySelector<HTMLInputElement>("input[type=range]")!.disabled).toBe(true);
  });
});

describe("a saved page", () => {
  const page = (more = {}) => new FakeModel(traits({ _page: true, dose: [dose()], ...more }));

  it("shows what was saved until a slider moves, then the text at the nearest saved strength", async () => {
    const model = page();
    const { el } = draw(model);
    await settle();
    expect(text(el, "edited")).toContain("lovely");
    for (const [value, at] of [[-3, -3], [4, 4], [1, 1]]) {
      slide(el, value!);
      await settle();
      expect(text(el, "edited")).toBe(`The trip text at ${at}`);
    }
    slide(el, 0);
    await settle();
    expect(text(el, "edited")).toBe(text(el, "plain"));
    expect(model.sent).toEqual([]);
  });

  it("moves its slider by the saved strengths", async () => {
    const { el } = draw(page());
    await settle();
    expect(el.querySelector<HTMLInputElement>(".iv-slider")!.step).toBe("1");
  });

  it("moves one direction at a time", async () => {
    const directions = [DIRECTION, { ...DIRECTION, name: "refusal" }];
    const out = { ...EDIT, direction: 1, op: "out", coefficient: 0, layers: "all", on: true };
    const model = page({ setup: { ...traits().setup, directions }, edits: [EDIT, out], dose: [dose(), null] });
    const { el } = draw(model);
    await settle();
    slide(el, 3);
    expect(model.traits.edits).toEqual([{ ...EDIT, coefficient: 3 }, { ...out, on: false }]);
  });

  it("keeps still a direction whose strengths were not saved, and says why", async () => {
    const { el } = draw(page({ dose: [null] }));
    await settle();
    const slider = el.querySelector<HTMLInputElement>(".iv-slider")!;
    expect(slider.disabled).toBe(true);
    expect(slider.title).toContain("no strengths were saved");
  });

  it("has its verbs at rest", async () => {
    const { el } = draw(page());
    await settle();
    for (const label of ["run", "stop", "dose", "copy as code", "save recipe"]) expect(button(el, label).disabled).toBe(true);
  });
});

describe("its life", () => {
  it("takes everything away again, and can be drawn twice", async () => {
    const model = new FakeModel(traits());
    const first = draw(model);
    const second = draw(model);
    await settle();
    first.end();
    expect(first.el.childElementCount).toBe(0);
    slide(second.el, 1);
    expect((model.traits.edits as any[])[0].coefficient).toBe(1);
    second.end();
    expect(model.listening).toBe(0);
  });
});
