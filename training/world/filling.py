"""Templates: text with slots, filled with words, the place of each word kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
VOWELS = "aeiou"


@dataclass(frozen=True)
class Filled:
    """A filled template; `spans[slot]` are the characters of each word put in, without its article."""

    text: str
    spans: Mapping[str, list[tuple[int, int]]]


def slots(template: str) -> list[str]:
    """The names of a template's slots, in order."""
    return [match.group(1) for match in SLOT.finditer(template)]


def fill(template: str, words: Mapping[str, str]) -> Filled:
    """The template with its slots filled.

    `{word}` is put in as it is, `{word:a}` after its article, `{word:cap}` with a capital letter.

    Raises:
        ValueError: A slot has no word, or a form is unknown.
    """
    pieces: list[str] = []
    spans: dict[str, list[tuple[int, int]]] = {}
    length = cursor = 0
    for match in SLOT.finditer(template):
        name, form = match.groups()
        if name not in words:
            raise ValueError(f"no word for slot {name!r} in {template!r}; the words given are {sorted(words)}")
        before = template[cursor : match.start()] + article(words[name], form)
        word = capitalised(words[name]) if form == "cap" else words[name]
        start = length + len(before)
        pieces += [before, word]
        length = start + len(word)
        spans.setdefault(name, []).append((start, length))
        cursor = match.end()
    return Filled("".join(pieces) + template[cursor:], spans)


def article(word: str, form: str | None) -> str:
    """What a slot's form puts before the word: "a " or "an " for the form `a`, else nothing."""
    if form in (None, "cap"):
        return ""
    if form == "a":
        return "an " if word[:1].lower() in VOWELS else "a "
    raise ValueError(f"unknown form {form!r} of a slot; the forms are 'a' and 'cap'")


def capitalised(word: str) -> str:
    """The word with its first letter a capital and the others as they were."""
    return word[:1].upper() + word[1:]
