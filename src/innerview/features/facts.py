"""Facts of labelled sentences, token by token: what a feature can be held against."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import Corpus, reads_bos
from innerview.models.model import Model
from innerview.models.text import token_word
from innerview.where.spans import Reader

Kind = Literal["word", "behind", "part", "token"]
KINDS = ("word", "behind", "part", "token")


@dataclass(frozen=True, order=True)
class Fact:
    """Something that holds at some tokens.

    Attributes:
        kind: `word`, tokens that say a value of a concept; `behind`, tokens that come after it in the sentence; `part`, tokens of one part of
            the world; `token`, one token of the vocabulary.
        concept: Name of the concept, of the part of the world, or the token's text.
        value: Value of the concept; empty for any.
    """

    kind: Kind
    concept: str
    value: str = ""

    @property
    def text(self) -> str:
        """The fact in words."""
        if self.kind == "token":
            return f"the token ‘{self.concept}’"
        if self.kind == "part":
            return f"in sentences of the kind {self.concept}"
        said = f"{self.value} ({self.concept})" if self.value else f"any {self.concept}"
        return said if self.kind == "word" else f"after {said}"

    def to_dict(self) -> dict[str, str]:
        """As JSON takes it."""
        return {"kind": self.kind, "concept": self.concept, "value": self.value}

    @classmethod
    def from_dict(cls, given: Any) -> "Fact":
        """The fact that `to_dict` said.

        Raises:
            FeatureError: A field is missing or damaged.
        """
        fields: dict[str, Any] = given if isinstance(given, dict) else {}
        kind, concept, value = (fields.get(name) for name in ("kind", "concept", "value"))
        if kind not in KINDS or not isinstance(concept, str) or not isinstance(value, str):
            raise FeatureError(f"a fact has a kind ({', '.join(KINDS)}), a concept and a value, not {given!r:.80}")
        return cls(kind, concept, value)


@dataclass(frozen=True, eq=False)
class Facts:
    """Sentences as rows of tokens, and which facts hold at each.

    Attributes:
        corpus: The rows.
        facts: Every fact that holds anywhere.
        which: Number of a fact, an entry each time that one holds at a token, shape [n].
        places: The token, counted through the corpus, shape [n].
    """

    corpus: Corpus
    facts: tuple[Fact, ...] = field(repr=False)
    which: Int[Tensor, "n"] = field(repr=False)
    places: Int[Tensor, "n"] = field(repr=False)

    @cached_property
    def numbers(self) -> dict[Fact, int]:
        """Number of each fact."""
        return {fact: number for number, fact in enumerate(self.facts)}

    def holds(self, fact: Fact) -> Bool[Tensor, "tokens"]:
        """Where a fact holds; nowhere, if none of the sentences says it."""
        made = torch.zeros(len(self.corpus.ids), dtype=torch.bool)
        number = self.numbers.get(fact)
        if number is not None:
            made[self.places[self.which == number]] = True
        return made

    @classmethod
    def of(cls, model: Model, dictionary: Dictionary, sentences: Sequence[Any]) -> "Facts":
        """The facts of some sentences.

        Args:
            model: The network whose tokens they are.
            dictionary: Whose features are held against them; its manifest says whether BOS counts.
            sentences: Each with `.text`, `.labels` (concept, value, start, end) and `.behaviour`.
        Raises:
            FeatureError: There are none.
        """
        if not sentences:
            raise FeatureError("no labelled sentences; iv.KnownLabels() draws the pocket world's")
        corpus = Corpus.of(model, [one.text for one in sentences], reads_bos=reads_bos(dictionary))
        reader, numbers = Reader.of(model.tokenizer), {}
        which: list[int] = []
        places: list[int] = []
        for row in range(corpus.n_rows):
            start, ids, sentence = int(corpus.starts[row]), corpus.row(row), sentences[int(corpus.texts[row])]
            spans = _spans(model.tokenizer, sentence.text, ids, int(corpus.firsts[row])) or _read(reader, ids, sentence)
            for place, fact in _of_row(len(ids), spans, sentence):
                which.append(numbers.setdefault(fact, len(numbers)))
                places.append(start + place)
            for place, one in enumerate(ids):
                which.append(numbers.setdefault(Fact("token", token_word(model.tokenizer, one)), len(numbers)))
                places.append(start + place)
        flat, kept = torch.tensor(places), torch.tensor(which)
        counts = corpus.is_read[flat]
        return cls(corpus, tuple(numbers), kept[counts], flat[counts])


def _spans(tokenizer: Any, said: str, ids: list[int], first: int) -> list[tuple[int, int]] | None:
    """Where in its sentence each token of a row begins and ends, as a tokenizer tells that keeps count; None where it does not.

    Args:
        tokenizer: The tokenizer.
        said: The whole sentence.
        ids: The row: the sentence, or a piece of it.
        first: Place in the sentence of the row's first token, −1 under a BOS that was put before.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    told = tokenizer(said, return_offsets_mapping=True, verbose=False)
    spans = list(told["offset_mapping"])
    whole, skipped = list(told["input_ids"]), max(0, -first)
    start = first + skipped
    stop = start + len(ids) - skipped
    if whole[start:stop] != ids[skipped:]:
        return None
    return [(0, 0)] * skipped + [(low, high) for low, high in spans[start:stop]]


def _read(reader: Reader, ids: list[int], sentence: Any) -> list[tuple[int, int]]:
    """The same read from the row's own text; none where the sentence is not found in it again, as where letters are made small."""
    whole, spans = reader.layout(ids)
    begin = whole.find(sentence.text)
    return [] if begin < 0 else [(low - begin, high - begin) for low, high in spans]


def _of_row(n: int, spans: list[tuple[int, int]], sentence: Any) -> list[tuple[int, Fact]]:
    """Facts of one row's tokens, each once; of its labels none where nothing tells which tokens say them."""
    part = Fact("part", sentence.behaviour)
    found = dict.fromkeys((place, part) for place in range(n))
    for label in sentence.labels:
        for place, (start, end) in enumerate(spans):
            kind: Kind | None = "behind" if start >= label.end else "word" if end > max(label.start, start) else None
            if kind is not None:
                for value in (label.value, ""):
                    found[place, Fact(kind, label.concept, value)] = None
    return list(found)
