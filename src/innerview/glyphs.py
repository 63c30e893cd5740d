"""Token text with every character seen."""

import unicodedata

NAMED = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
HIDDEN = frozenset({"Cf", "Cs", "Zl", "Zp", "Zs"})


def glyph(character: str) -> str:
    """The character, or what is shown for it when it cannot be seen."""
    if character in NAMED:
        return NAMED[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if unicodedata.category(character) in HIDDEN or 0x80 <= code <= 0x9F:
        return f"⟨U+{code:04X}⟩"
    return character


def visible(text: str) -> str:
    """Token text with every character seen."""
    return "".join(map(glyph, text)) or "∅"


def legible(text: str) -> str:
    """A text in words with every character seen but the spaces between them."""
    return "".join(one if one == " " else glyph(one) for one in text)
