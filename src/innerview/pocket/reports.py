"""Reports: what a liar or an honest person says, with a negation or without; the truth is the exclusive or."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1
LIES = ("honest", "lying")
NEGATED = ("plain", "negated")


class Reports(Behaviour):
    """Held out are templates, names, and pairs of a thing and its state."""

    name = "reports"

    def __init__(self, lexicon: dict[str, Any], names: list[str], held_out_names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.held_out_names = held_out_names

    def concepts(self) -> list[Concept]:
        """Whether the speaker lies, whether a not was said, and what is true."""
        states = tuple(state for states in self.lexicon["things"].values() for state in states)
        return [
            Concept("speaker", "flag", LIES, self.name),
            Concept("negation", "flag", NEGATED, self.name),
            Concept("state", "class", tuple(dict.fromkeys(states)), self.name),
            Concept("thing", "word", tuple(self.lexicon["things"]), self.name),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One report and what follows from it."""
        names = self.names + (self.held_out_names if split == "held_out" else [])
        things = self.lexicon["things"]
        of_state = [thing for thing, states in things.items() if force.get("state", states[0]) in states]
        name, thing = pick(rng, names), pick(rng, of_state, force.get("thing"))
        said = pick(rng, (0, 1))
        speaker = pick(rng, LIES, force.get("speaker"))
        negation = pick(rng, NEGATED, force.get("negation"))
        honesty, template = rng.random(), pick(rng, templates_for(self.lexicon, split))
        if "state" in force:
            is_said = (speaker == "honest") == (negation == "plain")
            wanted = things[thing].index(force["state"])
            said = wanted if is_said else 1 - wanted
        trait = self.lexicon[speaker][int(honesty * len(self.lexicon[speaker]))]
        return self.told(template, name, thing, said, (speaker, trait), negation)

    def told(
        self, template: str, name: str, thing: str, said: int, speaker: tuple[str, str], negation: str
    ) -> Sentence:
        """One report in one template; `said` is which of the thing's two states is named, `speaker` a value and its words."""
        states = self.lexicon["things"][thing]
        is_said = (speaker[0] == "honest") == (negation == "plain")
        truth = states[said] if is_said else states[1 - said]
        claim = states[said] if negation == "plain" else f"{self.lexicon['not']} {states[said]}"
        words = {"name": name, "thing": thing, "trait": speaker[1], "claim": claim, "answer": truth}
        filled = fill(template, words)
        answer = Label("state", truth, *filled.spans["answer"][0])
        labels = (
            answer,
            Label("speaker", speaker[0], *filled.spans["trait"][0]),
            Label("negation", negation, *filled.spans["claim"][0]),
            Label("thing", thing, *filled.spans["thing"][0]),
        )
        is_new = template in self.lexicon["held_out"] or name in self.held_out_names
        pair = split_of(thing, speaker[1], negation, states[said], share=HELD_OUT_SHARE)
        split = either(held_out_if(is_new), pair)
        return Sentence(filled.text, self.name, labels, split, answer, group=f"{speaker[0]}, {negation}")

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """What is true, where the prompt is a template up to it."""
        for template in templates_for(self.lexicon, "held_out"):
            found = matched(template, prompt)
            states = self.lexicon["things"].get(found["thing"]) if found else None
            if found and states:
                state = found["claim"].removeprefix(self.lexicon["not"] + " ")
                speaker = next((value for value in LIES if found["trait"] in self.lexicon[value]), None)
                if state in states and speaker:
                    is_so = (speaker == "honest") == (state == found["claim"])
                    return {state if is_so else states[1 - states.index(state)]: 1.0}
        return None
