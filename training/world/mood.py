"""Mood: little stories that are good or bad to their end, or plain."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from training.world.filling import fill, slots
from training.world.sentence import Label, Sentence, Split, joined
from training.world.splits import split_of

HELD_OUT_SHARE = 0.12
PLAIN = "plain"


class Mood:
    """Stories of one topic; held out are pairs of a story's topic and its first mood word."""

    name = "mood"

    def __init__(self, lexicon: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.categories = {category for words in lexicon["values"].values() for category in words}
        self.plain_share = lexicon.get("plain_share", 0.3)

    def mood_of(self, word: str) -> str | None:
        """The mood that a word shows; None for a word without one."""
        for mood, categories in self.lexicon["values"].items():
            if any(word in words for words in categories.values()):
                return mood
        return None

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A story with a mood whose last mood word is asked."""
        while True:
            story = self.story(rng, rng.choice(list(self.lexicon["values"])))
            if story.split == split:
                return story

    def document(self, rng: Random) -> Sentence:
        """A story of the training split, plain ones among them."""
        if rng.random() < self.plain_share:
            return self.story(rng, PLAIN)
        return self.sentence(rng, "train")

    def story(self, rng: Random, mood: str) -> Sentence:
        """Three to six sentences about one topic in one mood, about the same people."""
        topic = rng.choice(list(self.lexicon["topics"]))
        prefix = "plain_" if mood == PLAIN else ""
        kinds = [prefix + "openings"]
        for _ in range(rng.randint(1, 4)):
            kinds.append("plain_middles" if rng.random() < 0.3 else prefix + "middles")
        templates = list(dict.fromkeys(rng.choice(self.lexicon[kind]) for kind in [*kinds, prefix + "closings"]))
        name, friend = rng.sample(self.names, 2)
        people = {"name": name, "friend": friend}
        story = joined([self.told(template, self.words(rng, mood, topic) | people, mood) for template in templates])
        if mood == PLAIN:
            return story
        first = next(label for label in story.labels if label.concept == "mood")
        opening = story.text[first.start : first.end]
        split = split_of(topic, opening, share=HELD_OUT_SHARE)
        # Nothing before the first mood word gives it away.
        return replace(story, split=split, known=story.labels[1:])

    def words(self, rng: Random, mood: str, topic: str) -> dict[str, str]:
        """A word for each slot that a story may have."""
        name, friend = rng.sample(self.names, 2)
        parts = self.lexicon["topics"][topic]
        words = {"topic": topic, "part": rng.choice(parts), "name": name, "friend": friend}
        words["plain"] = often(rng, self.lexicon["plain"])
        if mood == PLAIN:
            return words
        return words | {
            category: often(rng, self.lexicon["values"][mood][category]) for category in sorted(self.categories)
        }

    def told(self, template: str, words: dict[str, str], mood: str) -> Sentence:
        """One sentence of a story; its mood words are its labels, the last of them its answer."""
        filled = fill(template, words)
        labels = [
            Label("mood", mood, *span)
            for name in dict.fromkeys(slots(template))
            if name in self.categories
            for span in filled.spans[name]
        ]
        labels.sort(key=lambda label: label.start)
        if mood == PLAIN:
            labels = [Label("mood", PLAIN, 0, len(filled.text))]
        answer = labels[-1] if labels and mood != PLAIN else None
        return Sentence(filled.text, self.name, tuple(labels), "train", answer)


def often(rng: Random, words: list[str]) -> str:
    """A word, the earlier in the list the oftener, as Zipf found: the k-th with weight 1/k."""
    return rng.choices(words, [1 / (k + 1) for k in range(len(words))])[0]
