"""Snippets of code: brackets that close in order, and names that were defined."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import split_of

HELD_OUT_SHARE = 0.12
# How many items each bracket holds, so that where it closes is known, not only with what.
BRACKETS = {"(": (")", 2), "[": ("]", 3), "{": ("}", 1)}
KINDS = ("brackets", "names")


class Snippets(Behaviour):
    """Held out are pairs of names defined together."""

    name = "code"

    def __init__(self, lexicon: dict[str, Any]) -> None:
        self.lexicon = lexicon

    def concepts(self) -> list[Concept]:
        """What a snippet asks, its names, and its brackets."""
        return [
            Concept("snippet", "flag", KINDS, self.name),
            Concept("variable", "word", tuple(self.lexicon["variables"]), self.name),
            Concept("bracket", "class", tuple(BRACKETS), self.name, is_paired=False),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A snippet whose brackets or whose names are asked."""
        kind = pick(rng, KINDS, force.get("snippet"))
        names = rng.sample(self.lexicon["variables"], 3)
        names[0] = force.get("variable", names[0])
        home = split_of(*sorted(names[:2]), share=HELD_OUT_SHARE)
        return self.brackets(rng, names, home) if kind == "brackets" else self.names(rng, names, home)

    def brackets(self, rng: Random, names: list[str], split: Split) -> Sentence:
        """An assignment of something nested; what closes it is asked."""
        head = f"{names[0]} = {rng.randrange(100)}\n{names[1]} = "
        nested = self.nested(rng, names[:1], rng.randint(2, 3))
        text = head + nested
        closing = len(nested) - len(nested.rstrip(")]}"))
        answer = Label("closing", text[-closing:], len(text) - closing, len(text))
        known = tuple(Label("closing", sign, place, place + 1) for place, sign in enumerate(text) if sign in ")]}")
        opened = tuple(Label("bracket", sign, place, place + 1) for place, sign in enumerate(text) if sign in BRACKETS)
        labels = (Label("snippet", "brackets", 0, len(text)), *opened)
        return Sentence(text, self.name, labels, split, answer, known, group="brackets")

    def nested(self, rng: Random, names: list[str], depth: int) -> str:
        """A bracket with its items; one of them is another bracket while depth remains."""
        sign = rng.choice(list(BRACKETS))
        closing, count = BRACKETS[sign]
        items = [self.atom(rng, names) for _ in range(count)]
        if depth > 1:
            items[rng.randrange(count)] = self.nested(rng, names, depth - 1)
        return sign + ", ".join(items) + closing

    def atom(self, rng: Random, names: list[str]) -> str:
        """A number or a name."""
        return str(rng.randrange(10)) if rng.random() < 0.6 else rng.choice(names)

    def names(self, rng: Random, names: list[str], split: Split) -> Sentence:
        """A function of two parameters or a few assignments; the name used at the end is asked."""
        one, other, result = names
        sign = rng.choice(self.lexicon["operators"])
        form = rng.choice(self.lexicon["forms"])
        function = rng.choice(self.lexicon["functions"])
        words = {"one": one, "other": other, "result": result, "sign": sign, "function": function}
        words |= {"number": str(rng.randrange(100)), "digit": str(rng.randrange(10))}
        text = form["text"].format_map(words)
        names_here = [words[name] for name in form["defined"]]
        answer_name = rng.choice(names_here)
        start = len(text)
        text += answer_name
        answer = Label("variable", answer_name, start, len(text))
        labels = (Label("snippet", "names", 0, len(text)), answer)
        return Sentence(text, self.name, labels, split, answer, group="names", answers=tuple(names_here))

    def document(self, rng: Random) -> Sentence:
        """One snippet, ended as code ends."""
        snippet = self.sentence(rng, "train")
        closing = ")" if snippet.text.count("(") > snippet.text.count(")") else ""
        return Sentence(
            snippet.text + closing + "\n",
            self.name,
            snippet.labels,
            "train",
            snippet.answer,
            snippet.known,
            group=snippet.group,
        )
