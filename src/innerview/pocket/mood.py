"""Mood: little stories that are good or bad to their end, or plain, told with words of both moods."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick
from innerview.pocket.filling import fill, slots
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12
PLAIN = "plain"
# How a sentence tells its mood: in its own words, or with the other mood's word behind a not, a wrong opinion, a fear or hope.
TELLINGS = ("direct", "negated", "reported", "reversed")
SHARES = (0.4, 0.2, 0.2, 0.2)


class Mood(Behaviour):
    """Stories of one topic; held out are pairs of topic and mood word, templates, and pairs of telling and mood word."""

    name = "mood"

    def __init__(self, lexicon: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.moods = list(lexicon["values"])
        self.categories = list(lexicon["values"][self.moods[0]])
        self.table = {word: mood for mood in self.moods for words in lexicon["values"][mood].values() for word in words}

    def concepts(self) -> list[Concept]:
        """The story's mood, how a sentence tells it, its topic, and the words of each mood."""
        return [
            Concept("mood", "class", (*self.moods, PLAIN), self.name),
            Concept("telling", "class", TELLINGS, self.name),
            Concept("topic", "word", tuple(self.lexicon["topics"]), self.name),
            Concept("mood.word", "word", tuple(self.table), self.name, is_paired=False),
        ]

    def mood_of(self, word: str) -> str | None:
        """The mood that a word shows; None for a word without one."""
        return self.table.get(word)

    def other(self, mood: str) -> str:
        """The contrary of a mood."""
        return self.moods[1 - self.moods.index(mood)]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A story with a mood, whose last mood word is asked."""
        return self.story(rng, pick(rng, self.moods, force.get("mood")), split, force)

    def document(self, rng: Random) -> Sentence:
        """A story of the training split, plain ones among them."""
        if rng.random() < self.lexicon["plain_share"]:
            return self.plain_story(rng)
        return self.sentence(rng, "train")

    def story(self, rng: Random, mood: str, split: Split, force: Force = FREE) -> Sentence:
        """Two to five sentences about one topic and the same people, each in a telling of its own."""
        topic = pick(rng, list(self.lexicon["topics"]), force.get("topic"))
        people = self.people(rng)
        kinds = ["openings", *(["middles"] * rng.randint(0, 3))]
        told = []
        for kind in kinds:
            telling = force.get("telling", rng.choices(TELLINGS, SHARES)[0])
            is_plain = rng.random() < self.lexicon["plain_share"] / 2 and kind == "middles"
            seeds = rng.random(), rng.random()
            if is_plain:
                plain = Random(seeds[0])
                told.append(self.plain(plain, pick(plain, self.lexicon["plain_middles"]), topic, people))
            else:
                told.append(self.told(Random(seeds[1]), kind, telling, mood, topic, people))
        told.append(self.closing(rng, mood, topic, people, split))
        return self.asked(joined(told), mood)

    def asked(self, story: Sentence, mood: str) -> Sentence:
        """The story, its last mood word its answer, grouped by whether counting its mood words misleads."""
        spoken = [story.text[label.start : label.end] for label in story.labels if label.concept == "mood"]
        score = sum(1 if self.mood_of(word) == mood else -1 for word in spoken[:-1])
        group = f"{mood}, words {'for it' if score > 0 else 'even or against it'}"
        right = tuple(word for word in self.table if self.table[word] == mood)
        return replace(story, group=group, answers=right)

    def is_right(self, case: Sentence, text: str) -> bool:
        """Whether the first mood word of the text is of the story's mood."""
        words = (word for word in re.findall(r"\w+", text) if word in self.table)
        return next(words, None) in case.answers

    def told(self, rng: Random, kind: str, telling: str, mood: str, topic: str, people: dict[str, str]) -> Sentence:
        """One sentence of a story. Its mood labels carry the story's mood, whatever mood the word would show alone."""
        templates = self.lexicon[kind] if telling == "direct" else self.lexicon[f"{telling}_{kind}"]
        template = pick(rng, templates)
        direct = self.words(rng, mood, topic, people)
        contrary = {f"un{name}": self.contrary(direct[name], mood, name) for name in self.categories}
        filled = fill(template, direct | contrary)
        labels, held = [], False
        for slot in dict.fromkeys(slots(template)):
            name = slot.removeprefix("un") if slot not in self.categories else slot
            if name in self.categories:
                word = (direct | contrary)[slot]
                for span in filled.spans[slot]:
                    labels += [Label("mood", mood, *span), Label("mood.word", word, *span)]
                combination = (telling if slot != name else "direct", word)
                held |= split_of(topic, word, share=HELD_OUT_SHARE) == "held_out"
                held |= telling != "direct" and split_of(*combination, share=HELD_OUT_SHARE) == "held_out"
        labels.sort(key=lambda label: label.start)
        labels.append(Label("telling", telling, 0, len(filled.text)))
        labels += [Label("topic", topic, *span) for span in filled.spans.get("topic", ())]
        mood_labels = tuple(label for label in labels if label.concept == "mood")
        # A telling's first mood word could be of either mood in a story's opening, so only later sentences give theirs away.
        known = mood_labels if kind != "openings" and telling == "direct" else ()
        return Sentence(filled.text, self.name, tuple(labels), held_out_if(held), known=known)

    def contrary(self, word: str, mood: str, category: str) -> str:
        """The other mood's word at the same place of its list, so that twin stories keep to the same ranks."""
        words = self.lexicon["values"][mood][category]
        others = self.lexicon["values"][self.other(mood)][category]
        return others[words.index(word) % len(others)]

    def closing(self, rng: Random, mood: str, topic: str, people: dict[str, str], split: Split) -> Sentence:
        """The last sentence, in direct words."""
        held_out = self.lexicon["held_out_closings"]
        template = pick(rng, self.lexicon["closings"] + (held_out if split == "held_out" else []))
        words = self.words(rng, mood, topic, people)
        filled = fill(template, words)
        named = [name for name in slots(template) if name in self.categories]
        labels = [Label("mood", mood, *filled.spans[name][0]) for name in named]
        answer = labels[-1]
        labels += [Label("mood.word", words[name], *filled.spans[name][0]) for name in named]
        labels += [Label("topic", topic, *span) for span in filled.spans.get("topic", ())]
        held = any(split_of(topic, words[name], share=HELD_OUT_SHARE) == "held_out" for name in named)
        is_new = template in held_out
        split = either(held_out_if(is_new), held_out_if(held))
        return Sentence(filled.text, self.name, tuple(labels), split, answer)

    def people(self, rng: Random) -> dict[str, str]:
        """Two people for a story."""
        name, friend = rng.sample(self.names, 2)
        return {"name": name, "friend": friend}

    def words(self, rng: Random, mood: str, topic: str, people: dict[str, str]) -> dict[str, str]:
        """A word for each slot that a story may have; equal generators give the same ranks in either mood."""
        words = {**people, "topic": topic, "part": pick(rng, self.lexicon["topics"][topic])}
        words["plain"] = pick(rng, self.lexicon["plain"])
        return words | {name: pick(rng, self.lexicon["values"][mood][name]) for name in self.categories}

    def plain(self, rng: Random, template: str, topic: str, people: dict[str, str]) -> Sentence:
        """One sentence without a mood."""
        words = {**people, "topic": topic, "part": pick(rng, self.lexicon["topics"][topic])}
        words["plain"] = pick(rng, self.lexicon["plain"])
        filled = fill(template, words)
        return Sentence(filled.text, self.name, (Label("telling", PLAIN, 0, len(filled.text)),), "train")

    def plain_story(self, rng: Random) -> Sentence:
        """A story without a mood."""
        topic = pick(rng, list(self.lexicon["topics"]))
        people = self.people(rng)
        middles = self.lexicon["plain_middles"]
        chosen = rng.sample(middles, min(rng.randint(1, 3), len(middles)))
        opening, closing = pick(rng, self.lexicon["plain_openings"]), pick(rng, self.lexicon["plain_closings"])
        story = joined([self.plain(rng, template, topic, people) for template in (opening, *chosen, closing)])
        whole = Label("mood", PLAIN, 0, len(story.text))
        return Sentence(story.text, self.name, (whole, *story.labels), "train")
