// Shades that carry a value, and the text colour that stays readable on each of them.

export type Rgb = readonly [number, number, number];

export interface Theme {
  dark: boolean;
  bg: Rgb;
  ink: Rgb;
}

export type Shade = {
  background: string;
  color: string;
};

export const LIGHT: Theme = { dark: false, bg: [255, 255, 255], ink: [29, 33, 41] };
export const CONTRAST = 4.5;

const SEQUENTIAL = { light: [15, 118, 110], dark: [45, 212, 191] } as const;
// PuOr (ColorBrewer): orange above zero, purple below, told apart with any colour vision.
const ABOVE = { light: [179, 88, 6], dark: [241, 163, 64] } as const;
const BELOW = { light: [84, 39, 136], dark: [178, 171, 210] } as const;
const BLACK: Rgb = [0, 0, 0];
const WHITE: Rgb = [255, 255, 255];

export function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

function mix(from: Rgb, to: Rgb, share: number): Rgb {
  const part = (i: 0 | 1 | 2) => Math.round(from[i] + (to[i] - from[i]) * share);
  return [part(0), part(1), part(2)];
}

export function css([r, g, b]: Rgb): string {
  return `rgb(${r}, ${g}, ${b})`;
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((c) => {
    const s = c / 255;
    return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

export function contrast(a: Rgb, b: Rgb): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high! + 0.05) / (low! + 0.05);
}

/** The theme's ink or paper where they can be read, else black or white: one of those always can. */
export function textOn(background: Rgb, theme: Theme): Rgb {
  for (const candidate of [theme.ink, theme.bg]) {
    if (contrast(background, candidate) >= CONTRAST) return candidate;
  }
  return contrast(background, BLACK) > contrast(background, WHITE) ? BLACK : WHITE;
}

function shade(theme: Theme, to: Rgb, share: number): Shade {
  const background = mix(theme.bg, to, share);
  return { background: css(background), color: css(textOn(background, theme)) };
}

/** A shade for a share of one, from paper to the accent. */
export function sequential(value: number, theme: Theme): Shade {
  const to = theme.dark ? SEQUENTIAL.dark : SEQUENTIAL.light;
  return shade(theme, to, Number.isFinite(value) ? clamp(value, 0, 1) * 0.85 : 0);
}

/** A shade for a signed share, -1 to 1, zero being paper. */
export function diverging(value: number, theme: Theme): Shade {
  const side = value < 0 ? BELOW : ABOVE;
  const to = theme.dark ? side.dark : side.light;
  return shade(theme, to, Number.isFinite(value) ? clamp(Math.abs(value), 0, 1) * 0.8 : 0);
}

const FAINT = { light: [190, 196, 206], dark: [82, 88, 100] } as const;

/** A colour for a share of one that is seen on the paper even at nothing: for points, which have no text on them. */
export function mixed(theme: Theme, share: number): Rgb {
  const [from, to] = theme.dark ? [FAINT.dark, SEQUENTIAL.dark] : [FAINT.light, SEQUENTIAL.light];
  return mix(from, to, clamp(share, 0, 1));
}
