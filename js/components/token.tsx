import { pieces, type Reading } from "./glyphs";

/** One token's text; never markup, and nothing in it can turn the direction of what stands beside it. */
export function Token({ text, reading = "cell" }: { text: string; reading?: Reading }) {
  return (
    <bdi class="iv-token" dir="auto">
      {pieces(text, reading).map((piece) => (piece.glyph ? <span class="iv-glyph">{piece.text}</span> : piece.text))}
    </bdi>
  );
}
