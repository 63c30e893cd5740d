import { afterEach, describe, expect, it } from "vitest";
import widget from "../../js/widgets/logit_lens";
import { FakeModel, pack, press, READY, settle } from "./model";

const ODD = ["<s>", " The", "\n", "\u202eevil", "<img src=x onerror=alert(1)>"];
const LAYERS = 3;
const K = 3;

function wire(words: string[], label = "one", n = LAYERS) {
  const cells = n * words.length;
  const ids = Array.from({ length: cells * K }, (_, i) => i % 7);
  const p = [0.6, 0.3, 0.1];
  const spread = (values: (i: number) => number) => Array.from({ length: cells }, (_, i) => values(i));
  return {
    model: "pocket",
    text: words.join(""),
    site: "blocks.*.resid",
    label,
    words,
    layers: Array.from({ length: n }, (_, i) => String(i)),
    ids: pack(ids, "int32", [n, words.length, K]),
    logprobs: pack(ids.map((_, i) => Math.log(p[i % K]!)), "float32", [n, words.length, K]),
    entropy: pack(spread((i) => i / 10), "float32", [n, words.length]),
    kl: pack(spread((i) => (i < cells - words.length ? 1 : 0)), "float32", [n, words.length]),
    final_rank: pack(spread((i) => (i < cells - words.length ? 12 : 0)), "int32", [n, words.length]),
    word_ids: pack([0, 1, 2, 3, 4, 5, 6], "int32", [7]),
    word_texts: [" a", " b", "\t", "\u200b", "<b>bold</b>", "", " Paris"],
    gain: null as unknown,
    edits: [],
    attached: [],
  };
}

function traits(more: Record<string, unknown> = {}) {
  return { lens: wire(ODD), other: null, shade: "probability", show: "this", pinned: null, status: READY, ...more };
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
const cell = (el: Element, at: string) => el.querySelector<HTMLElement>(`[data-at="${at}"]`)!;

describe("what it shows", () => {
  it("names what is attached and left out of its own reading", async () => {
    const { el } = draw(new FakeModel(traits({ lens: { ...wire(ODD), ignored: ["no refusal"] } })));
    await settle();
    expect(el.textContent).toContain("attached and ignored here: no refusal");
  });

  it("has the last layer on top and one cell a token", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    const rows = [...el.querySelectorAll("[role=rowheader]")].map((row) => row.textContent);
    expect(rows).toEqual(["2", "1", "0"]);
    expect(el.querySelectorAll("[role=gridcell]")).toHaveLength(LAYERS * ODD.length);
  });

  it("shows odd tokens as text with their characters seen, and never as markup", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    const heads = [...el.querySelectorAll(".iv-grid-word")].map((head) => head.textContent);
    expect(heads).toEqual(["<s>", "␣The", "↵", "⟨U+202E⟩evil", "<img␣src=x␣onerror=alert(1)>"]);
    expect(el.querySelector("img, b")).toBeNull();
    expect(el.querySelectorAll("bdi[dir=auto]").length).toBeGreaterThan(5);
  });

  it("reads a cell under the pointer: its words with their probabilities", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    cell(el, "0,1").dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    await settle();
    expect(el.querySelector(".iv-look-where")!.textContent).toContain("layer 0");
    const numbers = [...el.querySelectorAll(".iv-look-word .iv-num")].map((n) => n.textContent);
    expect(numbers).toEqual(["60.0 %", "30.0 %", "10.0 %"]);
  });

  it("says what it lacks instead of failing", async () => {
    const { el } = draw(new FakeModel(traits({ lens: null })));
    await settle();
    expect(el.textContent).toContain("nothing to show");
  });

  it("shows an error of Python's in words", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    model.set("status", { state: "error", message: "the text is empty" });
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toBe("the text is empty");
  });

  it("keeps only the columns in sight of a long text in the document", async () => {
    const words = Array.from({ length: 500 }, (_, i) => ` w${i}`);
    const { el } = draw(new FakeModel(traits({ lens: wire(words) })));
    await settle();
    expect(el.querySelectorAll("[role=gridcell]").length).toBeLessThan(LAYERS * 30);
    expect(el.querySelector("[role=grid]")!.getAttribute("aria-colcount")).toBe("501");
  });
});

describe("the keyboard", () => {
  it("has one Tab stop, moves inside with arrows, and keeps the keys from JupyterLab", async () => {
    const { el } = draw(new FakeModel(traits()));
    await settle();
    const stops = () => [...el.querySelectorAll<HTMLElement>("[role=gridcell]")].filter((c) => c.tabIndex === 0).map((c) => c.dataset.at);
    expect(stops()).toEqual(["2,4"]);
    press(cell(el, "2,4"), "ArrowDown");
    await settle();
    press(cell(el, "1,4"), "ArrowLeft");
    await settle();
    expect(stops()).toEqual(["1,3"]);
    expect(document.activeElement).toBe(cell(el, "1,3"));
    press(cell(el, "1,3"), "Home");
    press(cell(el, "1,0"), "PageDown");
    await settle();
    press(cell(el, "0,0"), "ArrowLeft");
    await settle();
    expect(stops()).toEqual(["0,0"]);
    for (const c of el.querySelectorAll("[role=gridcell]")) expect(c.getAttribute("data-lm-suppress-shortcuts")).toBe("true");
  });

  it("reaches the far end of a long text", async () => {
    const words = Array.from({ length: 300 }, (_, i) => ` w${i}`);
    const { el } = draw(new FakeModel(traits({ lens: wire(words) })));
    await settle();
    const stop = [...el.querySelectorAll<HTMLElement>("[role=gridcell]")].find((c) => c.tabIndex === 0)!;
    expect(stop).toBeTruthy();
    press(stop, "Home");
    await settle();
    expect((document.activeElement as HTMLElement).dataset.at).toBe("2,0");
  });

  it("walks through more layers than are in sight, of which the document holds the rows near", async () => {
    const { el } = draw(new FakeModel(traits({ lens: wire(ODD, "one", 90) })));
    await settle();
    const rows = () => new Set([...el.querySelectorAll<HTMLElement>("[data-at]")].map((one) => Number(one.dataset.at!.split(",")[0])));
    expect(rows().size).toBeLessThan(40);
    expect(Math.max(...rows())).toBe(89);
    press(cell(el, "89,4"), "PageDown");
    await settle();
    expect((document.activeElement as HTMLElement).dataset.at).toBe("0,4");
    expect(el.querySelector(".iv-grid-box")!.scrollTop).toBe(90 * 20 - 540);
    expect([Math.min(...rows()), rows().size < 40]).toEqual([0, true]);
    press(cell(el, "0,4"), "ArrowUp");
    await settle();
    expect((document.activeElement as HTMLElement).dataset.at).toBe("1,4");
  });

  it("pins with Enter, lets go with Escape", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    press(cell(el, "2,4"), "Enter");
    await settle();
    expect(model.traits.pinned).toEqual([2, 4]);
    expect(cell(el, "2,4").getAttribute("aria-selected")).toBe("true");
    press(cell(el, "2,4"), "Escape");
    expect(model.traits.pinned).toBeNull();
  });
});

describe("comparing", () => {
  it("shows both tables, one, or the difference where the texts line up", async () => {
    const other = { ...wire(ODD, "two"), gain: pack(Array(LAYERS * ODD.length).fill(0.5), "float32", [LAYERS, ODD.length]) };
    const model = new FakeModel(traits({ other, show: "both" }));
    const { el } = draw(model);
    await settle();
    expect(el.querySelectorAll("[role=grid]")).toHaveLength(2);
    model.set("show", "difference");
    await settle();
    expect(el.querySelectorAll("[role=grid]")).toHaveLength(1);
    expect(cell(el, "0,0").getAttribute("aria-label")).toContain("+50.0 points");
  });

  it("offers no difference where they do not", async () => {
    const { el } = draw(new FakeModel(traits({ other: wire(["a"], "two"), show: "both" })));
    await settle();
    const button = [...el.querySelectorAll("button")].find((b) => b.textContent === "difference")!;
    expect(button.disabled).toBe(true);
    expect(button.title).toContain("5 and 1 tokens");
  });

  it("asks Python to read a second text, and shows why it could not", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    [...el.querySelectorAll("button")].find((b) => b.textContent === "compare…")!.click();
    await settle();
    const input = el.querySelector("input")!;
    input.value = "B";
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await settle();
    el.querySelector("form")!.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    const ask = model.sent.find((message) => message.kind === "compare");
    expect(ask.text).toBe("B");
    model.emit("msg:custom", { id: ask.id, error: "too long" });
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toContain("too long");
  });
});

describe("the rank of a word", () => {
  it("is asked from Python for a word that was not saved", async () => {
    const model = new FakeModel(traits());
    const { el } = draw(model);
    await settle();
    model.answer("hello", {});
    el.querySelectorAll<HTMLButtonElement>(".iv-look-word")[1]!.click();
    await settle();
    const ask = model.sent.find((message) => message.kind === "rank");
    expect(ask).toMatchObject({ which: "this" });
    const ranks = Int32Array.from({ length: LAYERS * ODD.length }, () => 41);
    const packed = { ranks: { buffer: 0, dtype: "int32", shape: [LAYERS, ODD.length] } };
    model.emit("msg:custom", { id: ask.id, ok: packed }, [new DataView(ranks.buffer)]);
    await settle();
    expect([...el.querySelectorAll(".iv-curve circle title")].map((t) => t.textContent)).toEqual([
      "layer 0: rank 42",
      "layer 1: rank 42",
      "layer 2: rank 42",
    ]);
  });

  it("comes with all ten words for a pinned cell of a long text, asked for once", async () => {
    const model = new FakeModel(traits({ pinned: [0, 1] }));
    const { el } = draw(model);
    await settle();
    model.answer("hello", {});
    await settle();
    const asks = model.sent.filter((message) => message.kind === "cell");
    expect(asks).toMatchObject([{ layer: 0, pos: 1, which: "this" }]);
    const ids = Int32Array.from({ length: 10 }, (_, i) => 20 + i);
    const logprobs = Float32Array.from({ length: 10 }, (_, i) => -1 - i);
    const ok = { ids: { buffer: 0, dtype: "int32", shape: [10] }, logprobs: { buffer: 1, dtype: "float32", shape: [10] }, texts: [..."abcdefghij"] };
    model.emit("msg:custom", { id: asks[0].id, ok }, [new DataView(ids.buffer), new DataView(logprobs.buffer)]);
    await settle();
    expect([...el.querySelectorAll(".iv-look-word bdi")].map((word) => word.textContent).join("")).toBe("abcdefghij");
    expect(model.sent.filter((message) => message.kind === "cell")).toHaveLength(1);
  });

  it("is exact on a saved page for the last layer's word, and hollow beyond what was saved for another", async () => {
    const { el } = draw(new FakeModel(traits({ _page: true })));
    await settle();
    expect([...el.querySelectorAll(".iv-curve circle title")].map((t) => t.textContent)).toEqual([
      "layer 0: rank 13",
      "layer 1: rank 13",
      "layer 2: rank 1",
    ]);
    el.querySelectorAll<HTMLButtonElement>(".iv-look-word")[2]!.click();
    await settle();
    expect(el.querySelectorAll(".iv-curve .iv-dot-open").length).toBeGreaterThan(0);
    expect(el.textContent).toContain("hollow: beyond the 3 words saved");
  });
});

describe("its life", () => {
  it("takes everything away again, and can be drawn twice", async () => {
    const model = new FakeModel(traits());
    const first = draw(model);
    const second = draw(model);
    await settle();
    expect(first.el.innerHTML.length).toBe(second.el.innerHTML.length);
    first.end();
    await settle();
    expect(first.el.childElementCount).toBe(0);
    expect(second.el.querySelector("[role=grid]")).toBeTruthy();
    second.end();
    expect(model.listening).toBe(0);
  });

  it("drawn again into the same element stands there once", async () => {
    const model = new FakeModel(traits());
    const el = document.createElement("div");
    const one = widget.render({ model, el });
    const two = widget.render({ model, el });
    await settle();
    expect(el.querySelectorAll("section")).toHaveLength(1);
    one();
    await settle();
    expect(el.querySelectorAll("section")).toHaveLength(1);
    two();
    expect(el.childElementCount).toBe(0);
    expect(model.listening).toBe(0);
  });
});
