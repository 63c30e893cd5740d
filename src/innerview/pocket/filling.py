"""Templates: text with slots, filled with words, the place of each word kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
FORMS = ("a", "A", "cap")
VOWELS = "aeiou"


@dataclass(frozen=True)
class Filled:
    """A filled template; `spans[slot]` are the characters of each word put in, without its article."""

    text: str
    spans: Mapping[str, list[tuple[int, int]]]


@lru_cache(maxsize=8192)
def parsed(template: str) -> tuple[tuple[str, str, str], ...]:
    """The template as (text before, slot, form) in order; the last one has no slot.

    Raises:
        ValueError: A form is unknown.
    """
    parts, cursor = [], 0
    for match in SLOT.finditer(template):
        form = match.group(2) or ""
        if form and form not in FORMS:
            raise ValueError(f"unknown form {form!r} of a slot in {template!r}; the forms are {', '.join(FORMS)}")
        parts.append((template[cursor : match.start()], match.group(1), form))
        cursor = match.end()
    return (*parts, (template[cursor:], "", ""))


def slots(template: str) -> list[str]:
    """The names of a template's slots, in order."""
    return [slot for _, slot, _ in parsed(template) if slot]


def fill(template: str, words: Mapping[str, str]) -> Filled:
    """The template with its slots filled.

    `{word}` is put in as it is, `{word:a}` after its article, `{word:A}` after its article at the start of a sentence,
    `{word:cap}` with a capital letter.

    Raises:
        ValueError: A slot has no word, or a form is unknown.
    """
    text = ""
    spans: dict[str, list[tuple[int, int]]] = {}
    for before, name, form in parsed(template):
        text += before
        if not name:
            continue
        if name not in words:
            raise ValueError(f"no word for slot {name!r} in {template!r}; the words given are {sorted(words)}")
        word = words[name]
        if form == "cap":
            word = capitalised(word)
        elif form:
            text += capitalised(article(word)) if form == "A" else article(word)
        spans.setdefault(name, []).append((len(text), len(text) + len(word)))
        text += word
    return Filled(text, spans)


def article(word: str) -> str:
    """ "a " or "an ", as the word's first letter asks."""
    return "an " if word[:1].lower() in VOWELS else "a "


def capitalised(word: str) -> str:
    """The word with its first letter a capital and the others as they were."""
    return word[:1].upper() + word[1:]


@lru_cache(maxsize=4096)
def prefix_pattern(template: str, answer: str = "answer") -> re.Pattern[str] | None:
    """What a prompt looks like that ends before the answer of this template; None where the answer comes first.

    Slots are named groups. The prompt may have other sentences before it.
    """
    pattern = ""
    for before, name, form in parsed(template):
        pattern += re.escape(before)
        if name == answer:
            pattern = pattern.removesuffix(r"\ ") + (" an?" if form == "a" else "")
            return re.compile(r"(?:^|[.!?\n] ?)" + pattern + "$")
        if not name:
            return None
        known = f"(?P={name})" if f"(?P<{name}>" in pattern else rf"(?P<{name}>[^.!?\n]+?)"
        pattern += ("[Aa]n? " if form in ("a", "A") else "") + known
    return None


def matched(template: str, prompt: str, answer: str = "answer") -> dict[str, str] | None:
    """The words in a prompt that ends before the answer of this template, by their slots; None where it does not."""
    pattern = prefix_pattern(template, answer)
    found = pattern.search(prompt) if pattern else None
    return found.groupdict() if found else None
