import { afterEach, describe, expect, it } from "vitest";
import { PageBus } from "../../js/bus";
import widget from "../../js/widgets/feature_page";
import golden from "../wire/feature_view.json";
import { FakeModel, pack, press, READY, settle } from "./model";

/** The golden view, its arrays as bytes again. */
function view(more: Record<string, unknown> = {}): any {
  const walk = (value: any): any => {
    if (Array.isArray(value)) return value.map(walk);
    if (!value || typeof value !== "object") return value;
    if (typeof value.dtype === "string") {
      return { ...value, data: Uint8Array.from(atob(value.data), (character) => character.charCodeAt(0)) };
    }
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, walk(inner)]));
  };
  return { ...walk(golden), live: { read: true, go: true, steer: true, effects: true }, n_features: 48, ...more };
}

function traits(more: Record<string, unknown> = {}) {
  return { view: view(), typed: "", own: null, shade: "activation", opened: 0, status: READY, ...more };
}

const undo: (() => void)[] = [];
async function draw(model: FakeModel, bus?: PageBus): Promise<HTMLElement> {
  const el = document.createElement("div");
  document.body.append(el);
  const end = widget.render({ model, el, bus });
  undo.push(() => {
    end();
    el.remove();
  });
  await settle();
  return el;
}
afterEach(() => undo.splice(0).forEach((end) => end()));

const button = (el: Element, label: string) => [...el.querySelectorAll("button")].find((one) => one.textContent === label)!;

describe("a feature's page", () => {
  it("shows what the golden view says", async () => {
    const el = await draw(new FakeModel(traits()));
    const text = el.textContent!;
    expect(el.querySelector("h3")!.textContent).toBe("Feature 17 · days of the week");
    for (const part of ["fires on0.50 %", "largest8.00", "median above zero2.50", "label score0.875", "fuzzing0.750", "duplicates removed: 14"]) {
      expect(text).toContain(part);
    }
    expect([...el.querySelectorAll(".iv-example-first [role=rowheader]")].map((one) => one.textContent)).toEqual(["max", "50–75 %"]);
    expect(el.querySelectorAll(".iv-hist-bar")).toHaveLength(3);
    expect(text).not.toContain("not a number");
  });

  it("shades tokens that are active alone, and text that is markup stays text", async () => {
    const el = await draw(new FakeModel(traits()));
    const at = (place: string) => el.querySelector<HTMLElement>(`.iv-examples [data-at='${place}']`)!;
    expect(at("0,0").style.background).toBe("");
    expect(at("0,1").style.background).not.toBe("");
    expect(at("1,0").textContent).toBe("<b>x</b>");
    expect(el.querySelector(".iv-examples b")).toBeNull();
  });

  it("says a token's activation, its loss effect, and where it stands", async () => {
    const el = await draw(new FakeModel(traits()));
    el.querySelector(".iv-examples [data-at='0,1']")!.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    await settle();
    expect(el.querySelector(".iv-sheet-main > .iv-said")!.textContent).toBe("␣Monday · activation 8.00 · next token's loss +0.500 nat if removed · id 11 · text 0, token 4");
  });

  it("shades by loss effect when asked", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    button(el, "loss effect").click();
    await settle();
    expect(model.traits.shade).toBe("effect");
    const at = (place: string) => el.querySelector<HTMLElement>(`.iv-examples [data-at='${place}']`)!.style.background;
    expect(at("0,1")).not.toBe(at("0,2"));
    expect(at("1,1")).toBe("");
  });

  it("has one Tab stop in the examples and moves with the arrows, up and down between them", async () => {
    const el = await draw(new FakeModel(traits()));
    const stops = () => [...el.querySelectorAll<HTMLElement>(".iv-examples [data-at]")].filter((one) => one.tabIndex === 0).map((one) => one.dataset.at);
    expect(stops()).toEqual(["0,0"]);
    const move = async (key: string) => {
      press(document.activeElement?.closest(".iv-examples [data-at]") ?? el.querySelector(".iv-examples [data-at='0,0']")!, key);
      await settle();
    };
    await move("ArrowRight");
    await move("ArrowRight");
    expect(stops()).toEqual(["0,2"]);
    await move("ArrowDown");
    expect(stops()).toEqual(["1,1"]);
    await move("End");
    await move("ArrowDown");
    expect(stops()).toEqual(["2,0"]);
  });

  it("opens the next feature, one by its number, and one that fires with it", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const asked = () => model.sent.filter(({ kind }) => kind === "go").map(({ feature }) => feature);
    button(el, "›").click();
    await settle();
    expect(el.textContent).toContain("opening feature 18…");
    expect(el.querySelector(".iv-sheet")!.classList).toContain("iv-stale");
    model.set("view", view({ feature: 18 }));
    await settle();
    expect(el.textContent).not.toContain("opening");
    const field = el.querySelector<HTMLInputElement>("[aria-label='go to feature number']")!;
    field.value = "3";
    field.dispatchEvent(new Event("change"));
    field.value = "48";
    field.dispatchEvent(new Event("change"));
    await settle();
    expect(el.textContent).toContain("a feature's number, 0 to 47");
    el.querySelector<HTMLButtonElement>(".iv-partner")!.click();
    expect(asked()).toEqual([18, 3, 2]);
  });

  it("sends each keystroke and shows what is not read yet as old", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    model.answer("hello", {});
    const field = el.querySelector<HTMLTextAreaElement>(".iv-own-field")!;
    field.value = "on";
    field.dispatchEvent(new Event("input"));
    expect(model.traits.typed).toBe("on");
    const own = { text: "on", feature: 17, words: ["o", "n"], ids: pack([1, 2], "int32", [2]), values: pack([NaN, 4], "float32", [2]) };
    model.set("own", own);
    await settle();
    expect(el.querySelector(".iv-own .iv-said")!.textContent).toBe("largest 4.00, where 8.00 is the largest seen");
    expect(el.querySelector<HTMLElement>(".iv-own [data-i='0']")!.style.background).toBe("");
    expect(el.querySelector<HTMLElement>(".iv-own [data-i='1']")!.style.background).not.toBe("");
    field.value = "one";
    field.dispatchEvent(new Event("input"));
    await settle();
    expect(el.querySelector(".iv-own")!.classList).toContain("iv-stale");
    expect(el.querySelector(".iv-own .iv-said")!.textContent).toBe("reading…");
    model.set("own", { text: "one", feature: 17, error: "too long" });
    await settle();
    expect(el.querySelector(".iv-own [role=alert]")!.textContent).toBe("too long");
  });

  it("says where Steer took it, and why not when it did not", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    button(el, "send to Steer").click();
    model.answer("steer", { name: "feature 17 · days" });
    await settle();
    expect(el.textContent).toContain("Steer took “feature 17 · days”");
  });

  it("shows a dead feature, an empty page and an error as such", async () => {
    const dead = view({ n_active: 0, stretches: [], examples: { ...view().examples, words: [], ends: pack([], "int32", [0]), effects: null }, quantiles: pack([], "float32", [0, 2]) });
    expect((await draw(new FakeModel(traits({ view: dead })))).textContent).toContain("never active in the 1,000 tokens");
    expect((await draw(new FakeModel(traits({ view: null })))).textContent).toContain("no feature is shown");
    const wrong = await draw(new FakeModel(traits({ status: { state: "error", message: "it broke" } })));
    expect(wrong.querySelector("[role=alert]")!.textContent).toBe("it broke");
  });
});

describe("on a page without a kernel", () => {
  it("keeps the typed text, goes to features that are there, and says which are not", async () => {
    const bus = new PageBus();
    const own = { text: "on", feature: 17, words: ["o", "n"], ids: pack([1, 2], "int32", [2]), values: pack([NaN, 4], "float32", [2]) };
    const model = new FakeModel(traits({ _page: true, typed: "on", own }));
    const el = await draw(model, bus);
    const other = await draw(new FakeModel(traits({ _page: true, view: view({ feature: 18 }) })), bus);
    expect(el.querySelector<HTMLTextAreaElement>(".iv-own-field")!.disabled).toBe(true);
    expect(el.querySelectorAll(".iv-own [data-i]")).toHaveLength(2);
    expect(other.querySelector(".iv-own")).toBeNull();
    const partner = (number: string) => [...el.querySelectorAll<HTMLButtonElement>(".iv-partner")].find((one) => one.textContent!.startsWith(number))!;
    partner("18").click();
    await settle();
    expect(document.activeElement).toBe(other.querySelector("section"));
    expect(el.querySelector("[role=alert]")).toBeNull();
    partner("3").click();
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toBe("feature 3 is not on this page");
    button(el, "send to Steer").click();
    await settle();
    expect(el.querySelector("[role=alert]")!.textContent).toBe("no Steer on this page knows this feature");
    expect(model.sent).toEqual([]);
  });
});
