import { describe, expect, it } from "vitest";
import { pieces, visible } from "../../js/components/glyphs";
import { isAnswer, unpack } from "../../js/wire";
import arrays from "../wire/arrays.json";
import glyphs from "../wire/glyphs.json";
import messages from "../wire/messages.json";

function bytes(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

describe("arrays", () => {
  it.each(arrays)("$dtype $shape is read from its bytes", ({ dtype, shape, data, values }) => {
    const read = unpack({ data: bytes(data), dtype, shape });
    expect(Array.from(read.data)).toEqual(values);
    expect(read.shape).toEqual(shape);
  });

  it("is read from the middle of a longer message, where its bytes are not aligned", () => {
    const whole = new Uint8Array([9, 9, 9, ...bytes("AACAPwAAAMA=")]);
    const read = unpack({ data: new DataView(whole.buffer, 3), dtype: "float32", shape: [2] });
    expect(Array.from(read.data)).toEqual([1, -2]);
  });

  it("refuses a shape that does not hold its numbers, and an unknown dtype", () => {
    expect(() => unpack({ data: bytes("AACAPw=="), dtype: "float32", shape: [2] })).toThrow("array of 1 numbers");
    expect(() => unpack({ data: bytes("AA=="), dtype: "int64", shape: [1] })).toThrow('"int64"');
  });
});

describe("glyphs", () => {
  it.each(glyphs)("$text is shown as $shown", ({ text, shown }) => {
    expect(visible(text)).toBe(shown);
  });

  it("leaves spaces alone in prose, and breaks the line where a line end is shown", () => {
    expect(pieces(" a\n", "prose").map((piece) => piece.text)).toEqual([" a", "↵", "\n"]);
  });
});

describe("answers", () => {
  it.each(messages)("an answer to $ask.kind is told from everything else", ({ ask, error }) => {
    expect(isAnswer(error ? { id: ask.id, error } : { id: ask.id, ok: {} })).toBe(true);
    expect(isAnswer(ask)).toBe(false);
  });

  it.each([[null], ["ok"], [{ id: "1", ok: {} }], [{ ok: {} }], [{ id: 1, error: {} }]])("%j is none", (content) => {
    expect(isAnswer(content)).toBe(false);
  });
});
