import { describe, expect, it } from "vitest";
import { contrast, diverging, sequential, type Rgb, type Theme } from "../../js/components/colour";

const THEMES: Record<string, Theme> = {
  "Jupyter light": { dark: false, bg: [255, 255, 255], ink: [33, 33, 33] },
  "Jupyter dark": { dark: true, bg: [17, 17, 17], ink: [255, 255, 255] },
  "soft light": { dark: false, bg: [238, 232, 213], ink: [88, 110, 117] },
  "soft dark": { dark: true, bg: [0, 43, 54], ink: [147, 161, 161] },
};

const rgb = (text: string): Rgb => text.match(/\d+/g)!.map(Number) as unknown as Rgb;

describe.each(Object.entries(THEMES))("%s", (_, theme) => {
  it("keeps text readable on every shade", () => {
    for (let i = -100; i <= 100; i++) {
      for (const shade of [sequential(Math.abs(i) / 100, theme), diverging(i / 100, theme)]) {
        expect(contrast(rgb(shade.background), rgb(shade.color))).toBeGreaterThanOrEqual(4.5);
      }
    }
  });

  it("shades nothing as paper, and what is no number too", () => {
    const paper = `rgb(${theme.bg.join(", ")})`;
    expect(diverging(0, theme).background).toBe(paper);
    expect(sequential(0, theme).background).toBe(paper);
    expect(diverging(NaN, theme).background).toBe(paper);
  });

  it("tells above from below by more than lightness", () => {
    const [up, down] = [diverging(1, theme), diverging(-1, theme)].map((shade) => rgb(shade.background));
    expect(up![0] - up![2]).toBeGreaterThan(0);
    expect(down![0] - down![2]).toBeLessThan(0);
  });
});
