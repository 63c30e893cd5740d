import { afterEach, describe, expect, it } from "vitest";
import { fullShade } from "../../js/components/shaded";
import widget from "../../js/widgets/token_strip";
import { FakeModel, pack, press, READY, settle } from "./model";

function traits(more: Record<string, unknown> = {}) {
  return {
    words: ["<s>", " a", "\n", "é"],
    values: pack([NaN, 1, -2, 0.5, 4, 4, 4, 4], "float32", [2, 4]),
    labels: ["mood", "other"],
    ids: [0, 11, 12, 13],
    about: { unit: "steps", what: "mood · blocks.3.resid", starts: [0, 3] },
    series: 0,
    status: READY,
    ...more,
  };
}

let el: HTMLElement;
let end = () => {};
async function draw(model: FakeModel) {
  el = document.createElement("div");
  document.body.append(el);
  end = widget.render({ model, el });
  await settle();
}
afterEach(() => {
  end();
  el.remove();
});

describe("a strip", () => {
  it("says a token's value, id and bytes", async () => {
    await draw(new FakeModel(traits()));
    el.querySelector("[data-i='3']")!.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    await settle();
    expect(el.querySelector(".iv-said")!.textContent).toBe("é · +0.500 steps · id 13 · bytes C3 A9");
  });

  it("leaves a token without a value unshaded, and begins each text on its own line", async () => {
    await draw(new FakeModel(traits()));
    expect(el.querySelector<HTMLElement>("[data-i='0']")!.style.background).toBe("");
    expect(el.querySelector<HTMLElement>("[data-i='1']")!.style.background).not.toBe("");
    expect(el.querySelectorAll("br")).toHaveLength(1);
  });

  it("switches its values", async () => {
    const model = new FakeModel(traits());
    await draw(model);
    [...el.querySelectorAll("button")].find((b) => b.textContent === "other")!.click();
    await settle();
    expect(model.traits.series).toBe(1);
    expect(el.textContent).toContain("fullest shade is 4.00 steps");
  });

  it("has one Tab stop and moves with the arrows", async () => {
    await draw(new FakeModel(traits()));
    const stops = () => [...el.querySelectorAll<HTMLElement>("[data-i]")].filter((t) => t.tabIndex === 0).map((t) => t.dataset.i);
    expect(stops()).toEqual(["0"]);
    press(el.querySelector("[data-i='0']")!, "ArrowRight");
    await settle();
    expect(stops()).toEqual(["1"]);
    press(el.querySelector("[data-i='1']")!, "End");
    await settle();
    expect(stops()).toEqual(["3"]);
  });

  it("stands without tokens", async () => {
    await draw(new FakeModel(traits({ words: [], ids: [], values: pack([], "float32", [1, 0]), labels: ["mood"] })));
    expect(el.textContent).toContain("no tokens");
  });
});

describe("the fullest shade", () => {
  it("does not follow a single outlier, and is never zero", () => {
    expect(fullShade([...Array(40).fill(1), 1000])).toBe(1);
    expect(fullShade([0, 0])).toBeGreaterThan(0);
    expect(fullShade([NaN])).toBe(1);
  });
});
