// Token text made visible: spaces, line ends, control and direction characters have a glyph each.

export interface Piece {
  text: string;
  glyph: boolean;
}

/** cell: every character is seen. prose: single spaces stay spaces, so that text reads as text. */
export type Reading = "cell" | "prose";

const NAMED = new Map([
  [" ", "␣"],
  ["\n", "↵"],
  ["\t", "⇥"],
  ["\r", "␍"],
  ["\x7f", "␡"],
]);
const HIDDEN = /[\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Zs}\x80-\x9f]/u;

function glyph(character: string): string | undefined {
  const named = NAMED.get(character);
  if (named) return named;
  const code = character.codePointAt(0)!;
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (HIDDEN.test(character)) return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  return undefined;
}

export function pieces(text: string, reading: Reading = "cell"): Piece[] {
  if (text === "") return [{ text: "∅", glyph: true }];
  const out: Piece[] = [];
  const add = (piece: string, isGlyph: boolean) => {
    const last = out[out.length - 1];
    if (last && last.glyph === isGlyph) last.text += piece;
    else out.push({ text: piece, glyph: isGlyph });
  };
  for (const character of text) {
    const seen = reading === "prose" && character === " " ? undefined : glyph(character);
    if (seen === undefined) add(character, false);
    else add(seen, true);
    if (reading === "prose" && character === "\n") add("\n", false);
  }
  return out;
}

/** A line of text with its invisible characters seen and its spaces left alone. */
export function readable(text: string): string {
  return pieces(text, "prose")
    .map((piece) => piece.text.replaceAll("\n", " "))
    .join("");
}

export function visible(text: string): string {
  return pieces(text)
    .map((piece) => piece.text)
    .join("");
}
