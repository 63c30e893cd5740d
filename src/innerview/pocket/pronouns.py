"""Pronouns: he or she, him or her, as the name asks."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched, slots
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1


class Pronouns(Behaviour):
    """Held out are templates, and names in templates; the other person in a sentence has the other pronoun."""

    name = "pronouns"

    def __init__(self, lexicon: dict[str, Any], names: dict[str, list[str]]) -> None:
        self.lexicon = lexicon
        self.names = names

    def concepts(self) -> list[Concept]:
        """The gender of a name."""
        return [Concept("gender", "flag", tuple(self.names), self.name)]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A sentence about a person, perhaps beside another."""
        genders = list(self.names)
        gender = pick(rng, genders, force.get("gender"))
        ranks = rng.random(), rng.random()
        own, others = self.names[gender], self.names[genders[1 - genders.index(gender)]]
        name, other = own[int(ranks[0] * len(own))], others[int(ranks[1] * len(others))]
        return self.told(name, other, gender, pick(rng, templates_for(self.lexicon, split)))

    def told(self, name: str, other: str, gender: str, template: str) -> Sentence:
        """One sentence; its last pronoun is asked, those before it are known too."""
        forms = self.lexicon["forms"][gender]
        filled = fill(template, {"name": name, "other": other, **forms})
        pronouns = [
            Label("pronoun", forms[form], *span)
            for form in dict.fromkeys(slots(template))
            if form in forms
            for span in filled.spans[form]
        ]
        pronouns.sort(key=lambda label: label.start)
        gendered = Label("gender", gender, *filled.spans["name"][0])
        is_new = template in self.lexicon["held_out"]
        split = either(held_out_if(is_new), split_of(name, template, share=HELD_OUT_SHARE))
        group = "beside another" if "other" in slots(template) else "alone"
        return Sentence(
            filled.text, self.name, (gendered, *pronouns), split, pronouns[-1], tuple(pronouns), group=group
        )

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The pronoun of the name, where the prompt is a template up to its last one."""
        forms = next(iter(self.lexicon["forms"].values()))
        for template in templates_for(self.lexicon, "held_out"):
            asked = [slot for slot in slots(template) if slot in forms][-1]
            found = matched(template, prompt, asked)
            for gender, names in self.names.items():
                if found and found["name"] in names:
                    return {self.lexicon["forms"][gender][asked]: 1.0}
        return None
