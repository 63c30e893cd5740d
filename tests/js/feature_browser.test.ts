import { afterEach, describe, expect, it } from "vitest";
import { findSaved, PAGE, Rows, searched, type FirstRows, type Query, type RowsWire } from "../../js/components/rows";
import widget from "../../js/widgets/feature_browser";
import { FakeModel, pack, press, READY, settle } from "./model";

const QUERY: Query = { sort: "density", descending: true, text: "", low: null, high: null, direction: -1, feature: -1, cosine: null };
const TOTAL = 100_000;

/** Rows `start` to `start + count`, where feature i stands at place i. */
function rows(start: number, count: number, total = TOTAL): RowsWire {
  const features = Array.from({ length: count }, (_, i) => start + i);
  const values = [...features.map((i) => 1 - i / total), ...features.map((i) => (i % 10 === 7 ? NaN : i % 10))];
  return {
    start,
    total,
    features: pack(features, "int32", [count]),
    values: pack(values, "float32", [2, count]),
    labels: features.map((i) => (i % 3 ? `word ${i}` : "")),
    hints: features.map((i) => (i === 3 ? " hint" : "")),
  };
}

function traits(more: Record<string, unknown> = {}) {
  return {
    about: {
      n_features: TOTAL,
      columns: ["density", "max"],
      n_labels: 66_666,
      has_hints: true,
      n_tokens: 1000,
      directions: ["good mood"],
      can_compare: true,
      model: "a model",
      site: "blocks.1.resid",
      dictionary: "d",
      about: "TopK",
      opens: true,
    },
    first: { ...rows(0, PAGE), query: QUERY },
    query: QUERY,
    selected: pack([], "int32", [0]),
    view: null,
    typed: "",
    own: null,
    shade: "activation",
    opened: 0,
    status: READY,
    ...more,
  };
}

const undo: (() => void)[] = [];
async function draw(model: FakeModel): Promise<HTMLElement> {
  const el = document.createElement("div");
  document.body.append(el);
  const end = widget.render({ model, el });
  undo.push(() => {
    end();
    el.remove();
  });
  await settle();
  return el;
}
afterEach(() => undo.splice(0).forEach((end) => end()));

const asked = (model: FakeModel, kind: string) => model.sent.filter((message) => message.kind === kind);
const seen = (el: Element) => [...el.querySelectorAll<HTMLElement>("[data-row]")].map((row) => Number(row.dataset.row));
const ints = (packed: any) => [...new Int32Array(packed.data.buffer)];

/** Answer every request for rows, its arrays as buffers. */
function answerRows(model: FakeModel, total = TOTAL): void {
  for (const ask of asked(model, "rows").splice(0)) {
    if (ask.done) continue;
    ask.done = true;
    const page = rows(ask.start, Math.min(ask.count, total - ask.start), total);
    const ok = { ...page, features: { ...page.features, buffer: 0 }, values: { ...page.values, buffer: 1 } };
    model.emit("msg:custom", { id: ask.id, ok }, [page.features.data, page.values.data]);
  }
}

describe("the table of all features", () => {
  it("holds only the rows in sight, whatever their number", async () => {
    const el = await draw(new FakeModel(traits()));
    expect(seen(el).length).toBeLessThan(40);
    expect(seen(el)[0]).toBe(0);
    expect(el.querySelector("[role=grid]")!.getAttribute("aria-rowcount")).toBe(String(TOTAL + 1));
    expect(el.textContent).toContain("100,000 of 100,000 features");
  });

  it("asks for the page in sight, one at a time, and for none that has gone by", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const box = el.querySelector<HTMLElement>(".iv-rows-box")!;
    for (const row of [500, 20_000, 70_000]) {
      box.scrollTop = row * 22;
      box.dispatchEvent(new Event("scroll"));
      await settle();
    }
    expect(asked(model, "rows").map(({ start }) => start)).toEqual([400]);
    expect(el.querySelector(".iv-row-wait")).not.toBeNull();
    answerRows(model);
    await settle();
    expect(asked(model, "rows").map(({ start }) => start)).toEqual([400, 69_900]);
    answerRows(model);
    await settle();
    answerRows(model);
    await settle();
    expect(el.querySelector(".iv-row-wait")).toBeNull();
    expect(el.textContent).toContain("70,000");
  });

  it("sorts by a column's head: numbers from the largest, and again the other way", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const head = (name: string) => [...el.querySelectorAll<HTMLButtonElement>(".iv-rows-head button")].find((one) => one.textContent!.startsWith(name))!;
    head("max").click();
    expect(model.traits.query).toMatchObject({ sort: "max", descending: true });
    await settle();
    expect(el.textContent).toContain("searching…");
    model.set("first", { ...rows(0, PAGE), query: { ...QUERY, sort: "max" } });
    await settle();
    expect(el.textContent).not.toContain("searching…");
    head("max").click();
    expect(model.traits.query).toMatchObject({ sort: "max", descending: false });
    head("label").click();
    expect(model.traits.query).toMatchObject({ sort: "label", descending: false });
  });

  it("filters by text, by density in percent, and by likeness to a direction", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const field = (label: string) => el.querySelector<HTMLInputElement>(`[aria-label="${label}"]`)!;
    field("search labels and words, or a feature's number").value = "days";
    field("search labels and words, or a feature's number").dispatchEvent(new Event("input"));
    field("least density, percent").value = "0.5";
    field("least density, percent").dispatchEvent(new Event("change"));
    field("largest density, percent").value = "nonsense";
    field("largest density, percent").dispatchEvent(new Event("change"));
    expect(model.traits.query).toMatchObject({ text: "days", low: 0.005, high: null });
    const like = el.querySelector<HTMLSelectElement>("[aria-label='compare features with']")!;
    like.value = "0";
    like.dispatchEvent(new Event("change"));
    await settle();
    expect(model.traits.query).toMatchObject({ direction: 0, sort: "similarity", descending: true });
    field("least cosine").value = "0.3";
    field("least cosine").dispatchEvent(new Event("change"));
    expect(model.traits.query).toMatchObject({ cosine: 0.3 });
  });

  it("selects with Space and the box, and all that is found", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    press(el.querySelector("[data-row='2']")!, " ");
    await settle();
    el.querySelector<HTMLInputElement>("[data-row='0'] input")!.click();
    await settle();
    expect(ints(model.traits.selected)).toEqual([0, 2]);
    expect(el.textContent).toContain("2 selected");
    press(el.querySelector("[data-row='2']")!, " ");
    expect(ints(model.traits.selected)).toEqual([0]);
    [...el.querySelectorAll("button")].find((one) => one.textContent!.startsWith("select these"))!.click();
    expect(asked(model, "select")[0].query).toEqual(QUERY);
  });

  it("moves with the arrows on one Tab stop, and Enter opens", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const stops = () => [...el.querySelectorAll<HTMLElement>("[data-row]")].filter((row) => row.tabIndex === 0).map((row) => row.dataset.row);
    expect(stops()).toEqual(["0"]);
    press(el.querySelector("[data-row='0']")!, "ArrowDown");
    await settle();
    expect(stops()).toEqual(["1"]);
    press(el.querySelector("[data-row='1']")!, "Enter");
    expect(asked(model, "follow").map(({ feature }) => feature)).toEqual([1]);
    model.answer("follow", { feature: 1, here: true });
    await settle();
    expect(el.textContent).toContain("opening feature 1…");
    press(el.querySelector("[data-row='1']")!, "End");
    await settle();
    expect(stops()).toEqual([String(TOTAL - 1)]);
  });

  it("compares all with a feature", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    el.querySelector<HTMLButtonElement>("[data-row='4'] .iv-row-like button")!.click();
    expect(model.traits.query).toMatchObject({ feature: 4, sort: "similarity", descending: true });
  });
});

describe("rows without their kernel", () => {
  it("are looked for among those that were saved, and nothing is said to be searched", async () => {
    const model = Object.assign(new FakeModel(traits()), { comm_live: true });
    const el = await draw(model);
    model.answer("hello", {});
    model.comm_live = false;
    model.emit("comm_live_update");
    await settle();
    const before = asked(model, "rows").length;
    const field = el.querySelector<HTMLInputElement>("input[type=search]")!;
    field.value = "word 11";
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await settle();
    expect(seen(el).length).toBeGreaterThan(0);
    expect([...el.querySelectorAll(".iv-row-label")].every((one) => one.textContent!.includes("word 11"))).toBe(true);
    expect(el.textContent).not.toContain("searching");
    expect(el.textContent).toContain(`the first ${PAGE} were saved`);
    expect(el.textContent).toContain("no answer from the kernel");
    expect(asked(model, "rows").length).toBe(before);
  });
});

describe("rows", () => {
  it("know what is missing, and count a part of a page only at the end", () => {
    const known = new Rows(QUERY, rows(0, PAGE, 250));
    expect(known.missing(0, 50)).toBeNull();
    expect(known.missing(90, 150)).toBe(1);
    known.learn(rows(100, 30, 250));
    expect(known.missing(100, 130)).toBe(1);
    known.learn(rows(200, 50, 250));
    expect(known.missing(200, 250)).toBeNull();
    expect(known.at(249)!.feature).toBe(249);
  });

  it("are found and sorted on a saved page as in Python", () => {
    const first: FirstRows = { ...rows(0, 60, 60), query: QUERY };
    const find = (more: Partial<Query>) => {
      const found = findSaved(first, ["density", "max"], { ...QUERY, ...more });
      return Array.from({ length: found.total }, (_, i) => found.at(i)!.feature);
    };
    expect(find({ text: "WORD 5" })).toEqual([5, 50, 52, 53, 55, 56, 58, 59]);
    expect(find({ text: "HINT" })).toEqual([3]);
    expect(find({ text: "51" })).toEqual([51]);
    expect(find({ low: 0.9 })).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(find({ sort: "max", descending: false }).slice(-6).every((i) => i % 10 === 7)).toBe(true);
    expect(find({ sort: "max" }).slice(0, 2).every((i) => i % 10 === 9)).toBe(true);
    expect(find({ sort: "label", descending: true })[0]).toBe(8);
    expect(find({ text: "WORD 5", sort: "fit", descending: false })).toEqual([5, 50, 52, 53, 55, 56, 58, 59]);
  });

  it("come by their fit while a text is searched for, and as before when it is gone", () => {
    const columns = ["density", "max"];
    expect(searched(QUERY, "mon", columns)).toEqual({ text: "mon", sort: "fit", descending: false });
    expect(searched({ ...QUERY, text: "mon", sort: "max" }, "mond", columns)).toEqual({ text: "mond" });
    expect(searched({ ...QUERY, text: "m", sort: "fit" }, "", columns)).toEqual({ text: "", sort: "density", descending: true });
    expect(searched({ ...QUERY, text: "m", sort: "fit" }, " ", ["max"])).toEqual({ text: " ", sort: "feature", descending: false });
  });

  it("are drawn on a saved page without a word to any kernel", async () => {
    const model = new FakeModel(traits({ _page: true, first: { ...rows(0, 60), query: QUERY } }));
    const el = await draw(model);
    expect(el.textContent).toContain("the first 60 were saved");
    el.querySelector<HTMLElement>("[data-row='3']")!.click();
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toBe("the page of feature 3 is not on this page");
    expect(model.sent).toEqual([]);
  });
});
