"""Steps on a circle: so many days, months or hours after or before one of them."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1
SIGNS = {"after": 1, "before": -1}


class Circles(Behaviour):
    """Words in a ring; held out are combinations of item, number and way, in every template, and whole templates."""

    name = "circles"

    def __init__(self, circles: dict[str, Any]) -> None:
        self.circles = circles

    def concepts(self) -> list[Concept]:
        """A circle of items for each kind, where a step starts on it, and how far it goes."""
        found = []
        for kind, circle in self.circles.items():
            items = tuple(circle["items"])
            found += [Concept(kind, "circle", items, self.name), Concept(f"{kind}.from", "circle", items, self.name)]
            found += [Concept(f"{kind}.steps", "line", tuple(circle["numbers"]), self.name)]
            found += [Concept(f"{kind}.way", "flag", tuple(SIGNS), self.name)]
        return found

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A step on one of the circles."""
        forced = next((name.split(".")[0] for name in force if name.split(".")[0] in self.circles), None)
        kind = pick(rng, list(self.circles), forced)
        circle = self.circles[kind]
        way = pick(rng, list(SIGNS), force.get(f"{kind}.way"))
        item = pick(rng, circle["items"], force.get(f"{kind}.from"))
        number = circle["numbers"].index(pick(rng, circle["numbers"], force.get(f"{kind}.steps"))) + 1
        if kind in force:
            items = circle["items"]
            item = items[(items.index(force[kind]) - SIGNS[way] * number) % len(items)]
        templates = circle[way] + (circle["held_out"][way] if split == "held_out" else [])
        return self.told(kind, item, number, way, pick(rng, templates))

    def told(self, kind: str, item: str, number: int, way: str, template: str) -> Sentence:
        """One step in one template; `number` counts from one."""
        circle = self.circles[kind]
        words = {
            "item": item,
            "number": circle["numbers"][number - 1],
            "unit": circle["unit"] if number == 1 else circle["units"],
            "answer": self.reached(kind, item, number, way),
        }
        filled = fill(template, words)
        answer = Label(kind, words["answer"], *filled.spans["answer"][0])
        labels = (
            answer,
            Label(f"{kind}.from", item, *filled.spans["item"][0]),
            Label(f"{kind}.steps", words["number"], *filled.spans["number"][0]),
            Label(f"{kind}.way", way, filled.spans["number"][0][0], len(filled.text)),
        )
        split = self.split(kind, item, number, way, template)
        is_new = self.split(kind, item, number, way, self.circles[kind][way][0]) == "held_out"
        group = f"{kind}, {'steps never seen' if is_new else 'held-out wordings'}"
        return Sentence(filled.text, self.name, labels, split, answer, group=group)

    def reached(self, kind: str, item: str, number: int, way: str) -> str:
        """Where a step ends."""
        items = self.circles[kind]["items"]
        return items[(items.index(item) + SIGNS[way] * number) % len(items)]

    def split(self, kind: str, item: str, number: int, way: str, template: str) -> Split:
        """Where a combination belongs; steps by one are always seen, in the templates of training."""
        is_new = template in self.circles[kind]["held_out"][way]
        combination = "train" if number == 1 else split_of(kind, item, str(number), way, share=HELD_OUT_SHARE)
        return either(held_out_if(is_new), combination)

    def document(self, rng: Random) -> Sentence:
        """A list in order, or one to four steps from one item."""
        kind = rng.choice(list(self.circles))
        if rng.random() < 0.25:
            return self.listing(rng, kind)
        force = {f"{kind}.from": rng.choice(self.circles[kind]["items"])}
        return joined([self.sentence(rng, "train", force) for _ in range(rng.randint(1, 4))])

    def listing(self, rng: Random, kind: str) -> Sentence:
        """Neighbors on the circle, forward or backward, from anywhere."""
        circle, items = self.circles[kind], self.circles[kind]["items"]
        sign, templates = rng.choice([(1, circle["lists"]), (-1, circle["lists_back"])])
        start, length = rng.randrange(len(items)), rng.randint(3, len(items))
        run = ", ".join(items[(start + sign * k) % len(items)] for k in range(length))
        filled = fill(rng.choice(templates), {"run": run})
        label = Label(f"{kind}.list", "forward" if sign > 0 else "backward", *filled.spans["run"][0])
        # Two items show which way the list goes; from there on it is known.
        start = label.start + len(", ".join(run.split(", ")[:2]))
        known = Label(label.concept, label.value, start, label.end)
        return Sentence(filled.text, self.name, (label,), "train", known=(known,))

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The one place where the step ends, where the prompt is a template up to it."""
        for kind, circle in self.circles.items():
            for way in SIGNS:
                for template in circle[way] + circle["held_out"][way]:
                    match = matched(template, prompt)
                    number = match["number"].lower() if match else None
                    if match and match["item"] in circle["items"] and number in circle["numbers"]:
                        return {self.reached(kind, match["item"], circle["numbers"].index(number) + 1, way): 1.0}
        return None
