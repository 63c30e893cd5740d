import { afterEach, describe, expect, it } from "vitest";
import browser from "../../js/widgets/feature_browser";
import map from "../../js/widgets/feature_map";
import page from "../../js/widgets/feature_page";
import golden from "../wire/traits.json";
import { FakeModel, settle } from "./model";

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

let el: HTMLElement;
let end = () => {};
let model: FakeModel;
async function draw(widget: { render(view: any): () => void }, name: keyof typeof golden) {
  el = document.createElement("div");
  document.body.append(el);
  model = new FakeModel(traits(name));
  end = widget.render({ model, el });
  await settle();
}
afterEach(() => {
  end();
  el.remove();
  expect(model.listening).toBe(0);
});

describe("what Python sends is drawn", () => {
  it("as a feature's page", async () => {
    await draw(page, "feature_page");
    expect(el.querySelector("h3")!.textContent).toMatch(/^Feature 3/);
    expect(el.querySelectorAll(".iv-example").length).toBeGreaterThan(0);
    expect(el.querySelectorAll(".iv-hist-bar").length).toBeGreaterThan(0);
    expect(el.querySelectorAll(".iv-written-words li").length).toBeGreaterThan(20);
    expect(el.querySelectorAll("button.iv-partner").length).toBeGreaterThan(9);
  });

  it("as the table of all features", async () => {
    await draw(browser, "feature_browser");
    expect(el.textContent).toContain("48 of 48 features");
    expect(el.querySelectorAll("[data-row]").length).toBeGreaterThan(15);
    expect(el.querySelector("[data-row='0'] .iv-num")!.textContent).toMatch(/%$/);
  });

  it("as a map", async () => {
    await draw(map, "feature_map");
    expect(el.textContent).toContain("48 features");
    expect(el.querySelector(".iv-legend")!.getAttribute("aria-label")).toMatch(/^fires on: least/);
    expect([...el.querySelectorAll("option")].length).toBeGreaterThan(3);
  });
});
