import { afterEach, describe, expect, it } from "vitest";
import { boxOf, Plot, ranks } from "../../js/components/scatter";
import widget from "../../js/widgets/feature_map";
import { FakeModel, pack, press, READY, settle } from "./model";

const POINTS = [0, 0, 1, 0, 0, 1, 1, 1, NaN, NaN];

function traits(more: Record<string, unknown> = {}) {
  return {
    about: { n_features: 5, names: ["density", "max"], how: "PCA of decoder directions", n_placed: 4, model: "m", site: "s", dictionary: "d", about: "TopK" },
    points: pack(POINTS, "float32", [5, 2]),
    columns: { density: pack([0.1, 0.2, NaN, 0.4, 0.5], "float32", [5]) },
    labels: ["zero", "one", "<b>two</b>", "", "four"],
    colour: "density",
    selected: pack([], "int32", [0]),
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

describe("points on a canvas", () => {
  const plot = new Plot(POINTS, boxOf(POINTS), 200, 200);

  it("lie in their box with y upward, both axes at one scale", () => {
    const [x0, y0, x1, y1, x2, y2] = plot.at;
    expect(y0).toBe(y1);
    expect(x0).toBe(x2);
    expect(y2!).toBeLessThan(y0!);
    expect(x1! - x0!).toBeCloseTo(y0! - y2!, 3);
  });

  it("are found by a place near them, and not from afar", () => {
    expect(plot.nearest(plot.at[6]! + 5, plot.at[7]! - 5)).toBe(3);
    expect(plot.nearest(100, 100)).toBeNull();
  });

  it("are found inside a line drawn by hand, and by the arrows", () => {
    expect(plot.inside([[0, 0], [200, 0], [200, 100], [0, 100]]).sort()).toEqual([2, 3]);
    expect(plot.towards(0, 1, 0)).toBe(1);
    expect(plot.towards(0, 0, -1)).toBe(2);
    expect(plot.towards(1, 1, 0)).toBeNull();
  });

  it("have shades by rank, none where nothing is known", () => {
    expect([...ranks([10, 1, NaN, 1000, 1])]).toEqual([expect.closeTo(2 / 3), 0, NaN, 1, 0]);
  });
});

describe("the map", () => {
  it("says the feature that the keyboard reaches, and opens and selects it", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const map = el.querySelector("[role=application]")!;
    press(map, "ArrowRight");
    await settle();
    const said = () => el.querySelector(".iv-said")!.textContent;
    expect(said()).toMatch(/^feature [0-3]/);
    press(map, "Enter");
    press(map, " ");
    await settle();
    expect(model.sent.filter(({ kind }) => kind === "follow")).toHaveLength(1);
    expect(el.textContent).toContain("1 selected");
    expect(el.textContent).toContain("1 write nothing and have no place");
  });

  it("asks for a column that was not sent", async () => {
    const model = new FakeModel(traits());
    const el = await draw(model);
    const pick = el.querySelector("select")!;
    pick.value = "max";
    pick.dispatchEvent(new Event("change"));
    await settle();
    const ask = model.sent.find(({ kind }) => kind === "column");
    expect(ask.name).toBe("max");
    expect(el.querySelector(".iv-legend")).toBeNull();
    const packed = pack([1, 2, 3, 4, 5], "float32", [5]);
    model.emit("msg:custom", { id: ask.id, ok: { name: "max", values: { ...packed, buffer: 0 } } }, [packed.data]);
    await settle();
    expect(el.querySelector(".iv-legend")!.getAttribute("aria-label")).toBe("max: least 1.00, median 3.00, largest 5.00");
  });

  it("stands where nothing has a place", async () => {
    const about = { ...traits().about, n_placed: 0 };
    expect((await draw(new FakeModel(traits({ about })))).textContent).toContain("no feature has a place");
  });
});
