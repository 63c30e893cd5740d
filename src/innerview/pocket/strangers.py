"""Strangers: people met once, whose names may or may not give their country away."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.2
CUES = ("named", "unnamed")


class Strangers(Behaviour):
    """A surname's ending names the country nine times in ten, or says nothing: a guess that uses its subject, or not.

    Held out are templates, and whole names: what is said of those is a guess, and its odds are known.
    """

    name = "strangers"

    def __init__(self, lexicon: dict[str, Any], known: frozenset[str]) -> None:
        self.lexicon = lexicon
        self.known = known
        self.countries = list(lexicon["countries"])

    def concepts(self) -> list[Concept]:
        """Whether the name gives the country away, the ending, and the country."""
        return [
            Concept("cue", "flag", CUES, self.name),
            Concept("ending", "word", (*self.lexicon["endings"], *self.lexicon["plain_endings"]), self.name),
            Concept("birthplace", "value", tuple(self.countries), self.name),
        ]

    def odds(self, ending: str) -> dict[str, float]:
        """How often a person whose surname has this ending comes from each country."""
        total = sum(self.lexicon["countries"].values())
        share = 1.0 if ending in self.lexicon["plain_endings"] else 1.0 - self.lexicon["cue_share"]
        odds = {country: share * weight / total for country, weight in self.lexicon["countries"].items()}
        home = self.lexicon["endings"].get(ending)
        if home:
            odds[home] += self.lexicon["cue_share"]
        return odds

    def person(self, rng: Random, cue: str, forced: str | None = None) -> tuple[str, str]:
        """A name that no known person has, and its ending, which may be forced."""
        endings = list(self.lexicon["endings"]) if cue == "named" else self.lexicon["plain_endings"]
        while True:
            drawn = endings[int(rng.random() * len(endings))]
            ending = forced or drawn
            name = f"{pick(rng, self.lexicon['first'])} {pick(rng, self.lexicon['stems'])}{ending}"
            if name not in self.known:
                return name, ending

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """Where a stranger comes from."""
        cue = pick(rng, CUES, force.get("cue"))
        person, ending = self.person(rng, cue, force.get("ending"))
        odds = self.odds(ending)
        country = force.get("birthplace", rng.choices(list(odds), list(odds.values()))[0])
        return self.told(person, ending, country, pick(rng, templates_for(self.lexicon, split)))

    def told(self, person: str, ending: str, country: str, template: str) -> Sentence:
        """One stranger in one template."""
        filled = fill(template, {"person": person, "answer": country})
        start, end = filled.spans["person"][0]
        answer = Label("birthplace", country, *filled.spans["answer"][0])
        cue = "named" if ending in self.lexicon["endings"] else "unnamed"
        labels = (Label("cue", cue, start, end), Label("ending", ending, end - len(ending), end), answer)
        is_new = template in self.lexicon["held_out"]
        split = either(held_out_if(is_new), self.split_of_person(person))
        return Sentence(filled.text, self.name, labels, split, answer, group=cue, odds=self.odds(ending))

    def split_of_person(self, person: str) -> Split:
        """Where a whole name belongs."""
        return split_of(person, share=HELD_OUT_SHARE)

    def ending_of(self, person: str) -> str | None:
        """The ending that a stranger's surname has, the longest that fits; None where it has none of the lexicon's."""
        endings = (*self.lexicon["endings"], *self.lexicon["plain_endings"])
        return max((ending for ending in endings if person.endswith(ending)), key=len, default=None)

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The odds of the name's ending, where the prompt is a template up to its answer and nobody known is named."""
        for template in templates_for(self.lexicon, "held_out"):
            match = matched(template, prompt)
            ending = self.ending_of(match["person"]) if match and match["person"] not in self.known else None
            if ending:
                return self.odds(ending)
        return None
