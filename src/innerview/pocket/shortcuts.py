"""Shortcuts: a cue that goes with the cause nine times in ten, and a detail that decides nothing."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.15
CUES = ("usual", "unusual")


class Shortcuts(Behaviour):
    """The workplace follows from the job; the coat's color goes with the job `cue_share` of the time; the weather is idle.

    Held out are templates, and pairs of job and color that go against the cue.
    """

    name = "shortcuts"

    def __init__(self, lexicon: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.cues = list(dict.fromkeys(job["cue"] for job in lexicon["jobs"].values()))

    def concepts(self) -> list[Concept]:
        """The cause, the cue, whether they agree, and the idle detail."""
        return [
            Concept("job", "class", tuple(self.lexicon["jobs"]), self.name),
            Concept("job.cue", "class", tuple(self.cues), self.name),
            Concept("cue.agrees", "flag", CUES, self.name),
            Concept("idle", "class", tuple(self.lexicon["idle"]), self.name),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One person at work."""
        job = pick(rng, list(self.lexicon["jobs"]), force.get("job"))
        usual = self.lexicon["jobs"][job]["cue"]
        is_usual = rng.random() < self.lexicon["cue_share"]
        is_usual = force.get("cue.agrees", "usual" if is_usual else "unusual") == "usual"
        others = [cue for cue in self.cues if cue != usual]
        other = others[int(rng.random() * len(others))]
        cue = force.get("job.cue", usual if is_usual else other)
        idle = pick(rng, self.lexicon["idle"], force.get("idle"))
        return self.told(pick(rng, self.names), job, cue, idle, pick(rng, templates_for(self.lexicon, split)))

    def told(self, name: str, job: str, cue: str, idle: str, template: str) -> Sentence:
        """One person at work in one template."""
        where = self.lexicon["jobs"][job]["where"]
        filled = fill(template, {"name": name, "job": job, "cue": cue, "idle": idle, "answer": where})
        agrees = "usual" if self.lexicon["jobs"][job]["cue"] == cue else "unusual"
        answer = Label("workplace", where, *filled.spans["answer"][0])
        labels = (
            Label("job", job, *filled.spans["job"][0]),
            Label("job.cue", cue, *filled.spans["cue"][0]),
            Label("cue.agrees", agrees, *filled.spans["cue"][0]),
            Label("idle", idle, *filled.spans["idle"][0]),
            answer,
        )
        is_new = template in self.lexicon["held_out"]
        pair = split_of(job, cue, share=HELD_OUT_SHARE) if agrees == "unusual" else "train"
        return Sentence(
            filled.text,
            self.name,
            labels,
            either(held_out_if(is_new), pair),
            answer,
            group=f"{agrees} cue",
        )

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The job's workplace, where the prompt is a template up to it."""
        for template in templates_for(self.lexicon, "held_out"):
            found = matched(template, prompt)
            if found and found["job"] in self.lexicon["jobs"]:
                return {self.lexicon["jobs"][found["job"]]["where"]: 1.0}
        return None
