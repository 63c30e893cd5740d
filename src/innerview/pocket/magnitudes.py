"""Magnitudes: things that lie on a line, and which of two lies further along it."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12
WAYS = ("more", "less")


class Magnitudes(Behaviour):
    """Lines of things, small to large; held out are pairs of things, in either order, and templates."""

    name = "magnitudes"

    def __init__(self, lines: dict[str, Any]) -> None:
        self.lines = lines

    def concepts(self) -> list[Concept]:
        """Each line, and which way a comparison goes."""
        found = [Concept(kind, "line", tuple(line["items"]), self.name) for kind, line in self.lines.items()]
        return [*found, Concept("comparison", "flag", WAYS, self.name)]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One comparison."""
        kind = pick(rng, list(self.lines), next((name for name in force if name in self.lines), None))
        items = self.lines[kind]["items"]
        one, other = rng.sample(range(len(items)), 2)
        if kind in force:
            one = items.index(force[kind])
            other = other if other != one else (other + 1) % len(items)
        way = pick(rng, WAYS, force.get("comparison"))
        return self.told(kind, items[one], items[other], way, pick(rng, templates_for(self.lines[kind], split)))

    def told(self, kind: str, one: str, other: str, way: str, template: str) -> Sentence:
        """One comparison in one template: either which of the two it is, or which of the two words holds between them."""
        line = self.lines[kind]
        is_more = line["items"].index(one) > line["items"].index(other)
        winner = one if is_more == (way == "more") else other
        words = {"one": one, "other": other, "most": line["most"][way], "winner": winner}
        words["than"] = line["than"]["more" if is_more else "less"]
        filled = fill(template, words)
        asked = "winner" if "winner" in filled.spans else "than"
        value = winner if asked == "winner" else words["than"]
        answer = Label(f"{kind}.{asked}", value, *filled.spans[asked][-1])
        labels = (Label(kind, one, *filled.spans["one"][0]), Label(kind, other, *filled.spans["other"][0]), answer)
        if "most" in filled.spans:
            labels = (*labels, Label("comparison", way, *filled.spans["most"][0]))
        pair = split_of(kind, *sorted((one, other)), share=HELD_OUT_SHARE)
        split = either(held_out_if(template in line["held_out"]), pair)
        return Sentence(filled.text, self.name, labels, split, answer, group=kind)
