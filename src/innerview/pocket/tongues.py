"""Tongues: little texts in one language each, which must be kept."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, slots
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.15
OWN_SHARE = 0.8


class Tongues(Behaviour):
    """Held out are templates, and pairs of who and what; names are the same in every language."""

    name = "language"

    def __init__(self, lexicon: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names

    def concepts(self) -> list[Concept]:
        """The languages, and the words of each."""
        return [
            Concept("language", "class", tuple(self.lexicon), self.name),
            *(Concept(f"{name}.word", "word", self.words(name), self.name, is_paired=False) for name in self.lexicon),
        ]

    def words(self, language: str) -> tuple[str, ...]:
        """What the templates of a language are filled with."""
        return tuple(dict.fromkeys(word for words in self.lexicon[language]["words"].values() for word in words))

    @cached_property
    def own(self) -> dict[str, set[str]]:
        """The words that each language alone has."""
        texts = {
            name: " ".join(
                [*templates_for(entry, "held_out"), *(w for words in entry["words"].values() for w in words)]
            )
            for name, entry in self.lexicon.items()
        }
        words = {name: set(re.findall(r"\w+", re.sub(r"\{.*?\}", "", text).lower())) for name, text in texts.items()}
        return {name: words[name] - set().union(*(words[n] for n in words if n != name)) for name in words}

    def line(self, rng: Random, language: str, split: Split) -> Sentence:
        """One sentence of a language."""
        entry = self.lexicon[language]
        template = pick(rng, templates_for(entry, split))
        words = {kind: pick(rng, words) for kind, words in entry["words"].items()} | {"name": pick(rng, self.names)}
        filled = fill(template, words)
        label = Label("language", language, 0, len(filled.text))
        used = [words[slot] for slot in slots(template) if slot != "name"][:2]
        pair = split_of(*used, share=HELD_OUT_SHARE) if len(used) == 2 else "train"
        said = [
            Label(f"{language}.word", words[slot], *span)
            for slot in dict.fromkeys(slots(template))
            if slot != "name"
            for span in filled.spans[slot]
        ]
        split = either(held_out_if(template in entry["held_out"]), pair)
        return Sentence(filled.text, self.name, (label, *said), split)

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """Two sentences in one language, the second of them asked; no text of training is shorter."""
        language = pick(rng, list(self.lexicon), force.get("language"))
        lines = [self.line(rng, language, split) for _ in range(2)]
        text = joined(lines)
        start = len(text.text) - len(lines[-1].text)
        answer = Label("language", language, start, len(text.text))
        return replace(text, answer=answer, known=(), group=language)

    def is_right(self, case: Sentence, text: str) -> bool:
        """Whether the words of one language alone that the text has are of the case's language."""
        language = case.labels[0].value
        words = re.findall(r"\w+", text.lower())[:10]
        counts = {name: sum(word in own for word in words) for name, own in self.own.items()}
        return counts[language] > 0 and counts[language] >= OWN_SHARE * sum(counts.values())

    def document(self, rng: Random) -> Sentence:
        """Two to five sentences in one language; nothing in them is given away."""
        language = rng.choice(list(self.lexicon))
        lines: list[Sentence] = []
        while len(lines) < 2 or (len(lines) < 5 and rng.random() < 0.6):
            line = self.line(rng, language, "train")
            lines += [line] if line.split == "train" else []
        return replace(joined(lines), answer=None, group=language)
