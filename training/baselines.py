"""What needs no network: an n-gram and a bag of words, guessing what the network is asked."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from innerview.pocket.sentence import Sentence

ORDER = 3
Ask = Callable[[Sentence], str]


def words_of(text: str) -> list[str]:
    """The words, numbers and signs of a text."""
    return re.findall(r"<\|\w+\|>|\w+|[^\w\s]", text)


@dataclass(frozen=True)
class Ngram:
    """The commonest answer after the prompt's last words, fewer of them where those were never seen."""

    counts: dict[tuple[str, ...], Counter[str]]

    @classmethod
    def learned(cls, cases: Sequence[Sentence], asked: Ask) -> Ngram:
        """Counts over training cases."""
        counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for case in cases:
            words = words_of(case.prompt)
            for length in range(ORDER + 1):
                counts[tuple(words[len(words) - length :])][asked(case)] += 1
        return cls(counts)

    def guess(self, prompt: str) -> str:
        """The answer that the counts give."""
        words = words_of(prompt)
        for length in range(min(ORDER, len(words)), -1, -1):
            found = self.counts.get(tuple(words[len(words) - length :]))
            if found:
                return found.most_common(1)[0][0]
        return ""


@dataclass(frozen=True)
class BagOfWords:
    """Naive Bayes over the prompt's words, their order lost."""

    priors: Counter[str]
    counts: dict[str, Counter[str]]
    vocabulary: int

    @classmethod
    def learned(cls, cases: Sequence[Sentence], asked: Ask) -> BagOfWords:
        """Counts over training cases."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        priors: Counter[str] = Counter()
        for case in cases:
            priors[asked(case)] += 1
            counts[asked(case)].update(words_of(case.prompt))
        return cls(priors, counts, len({word for counter in counts.values() for word in counter}))

    def guess(self, prompt: str) -> str:
        """The likeliest answer."""
        words = words_of(prompt)

        def score(answer: str) -> float:
            counter, total = self.counts[answer], sum(self.counts[answer].values()) + self.vocabulary
            return math.log(self.priors[answer]) + sum(math.log((counter[word] + 1) / total) for word in words)

        return max(self.priors, key=score, default="")
