"""Steps on a circle: so many days or months after or before one of them."""

from __future__ import annotations

from random import Random
from typing import Any

from training.world.filling import fill
from training.world.sentence import Label, Sentence, Split, joined
from training.world.splits import split_of

WORDED_SHARE = 0.1
UNSEEN_SHARE = 0.05
SIGNS = {"after": 1, "before": -1}


class CalendarSteps:
    """Circles of words; held out are some steps in some templates, and a few steps in every template."""

    name = "calendar"

    def __init__(self, circles: dict[str, Any]) -> None:
        self.circles = circles

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A step whose combination is of the split."""
        return self.step(rng, rng.choice(list(self.circles)), split)

    def step(self, rng: Random, kind: str, split: Split, item: str | None = None) -> Sentence:
        """A step on the circle `kind`, from `item` where one is given."""
        circle = self.circles[kind]
        while True:
            way = rng.choice(list(SIGNS))
            start = item or rng.choice(circle["items"])
            number = rng.randint(1, len(circle["numbers"]))
            sentence = self.told(kind, start, number, way, rng.choice(circle[way]))
            if sentence.split == split:
                return sentence

    def told(self, kind: str, item: str, number: int, way: str, template: str) -> Sentence:
        """One step in one template; `number` counts from one."""
        circle = self.circles[kind]
        place = circle["items"].index(item) + SIGNS[way] * number
        words = {
            "item": item,
            "number": circle["numbers"][number - 1],
            "unit": circle["unit"] if number == 1 else circle["units"],
            "answer": circle["items"][place % len(circle["items"])],
        }
        filled = fill(template, words)
        answer = Label(kind, words["answer"], *filled.spans["answer"][0])
        labels = (
            answer,
            Label(f"{kind}.from", item, *filled.spans["item"][0]),
            Label(f"{kind}.{way}", words["number"], *filled.spans["number"][0]),
            Label(f"{kind}.step", self.step_split(kind, item, number, way), 0, len(filled.text)),
        )
        return Sentence(filled.text, self.name, labels, self.split(kind, item, number, way, template), answer)

    def split(self, kind: str, item: str, number: int, way: str, template: str) -> Split:
        """Where a step in a template belongs."""
        if self.step_split(kind, item, number, way) == "held_out":
            return "held_out"
        return split_of(kind, item, str(number), template, share=WORDED_SHARE)

    def step_split(self, kind: str, item: str, number: int, way: str) -> Split:
        """Whether a step is seen in any template; steps by one always are."""
        return "train" if number == 1 else split_of(kind, item, str(number), way, share=UNSEEN_SHARE)

    def document(self, rng: Random) -> Sentence:
        """A list in order, or one to four steps from one item."""
        kind = rng.choice(list(self.circles))
        if rng.random() < 0.25:
            return self.listing(rng, kind)
        item = rng.choice(self.circles[kind]["items"])
        return joined([self.step(rng, kind, "train", item) for _ in range(rng.randint(1, 4))])

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
