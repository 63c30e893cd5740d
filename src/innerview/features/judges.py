"""Who says where a label fits: what is known of the text, or an endpoint."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from innerview.errors import FeatureError
from innerview.features.asking import asked
from innerview.features.corpus import Corpus, reads_bos
from innerview.features.endpoint import Endpoint
from innerview.features.known_labels import KnownLabels, KnownMaterial, fact_of
from innerview.features.label_tests import Answer
from innerview.features.passages import Passage
from innerview.features.prompting import Messages, answers_of, judging, marked, written
from innerview.features.records import Records
from innerview.features.view import Label
from innerview.models.model import Model
from innerview.where.spans import Reader

# Passages of one chat: models lose count in long lists.
BATCH = 10


@dataclass(frozen=True)
class Question:
    """Whether a label fits some passages.

    Attributes:
        label: The label.
        passages: The passages.
        is_pointing: Whether the words that are pointed at are asked about, and not the whole passage.
    """

    label: Label
    passages: tuple[Passage, ...]
    is_pointing: bool


class Judge(Protocol):
    """Somebody who answers questions about a corpus of their own, or of the user's."""

    @property
    def corpus(self) -> Corpus:
        """What passages are of."""
        ...

    def answers(self, questions: Mapping[str, Question], progress: bool | None) -> tuple[dict[str, list[Answer]], bool]:
        """An answer a passage, by question; and whether all were answered."""
        ...


@dataclass(frozen=True, eq=False)
class KnownJudge:
    """What is known of labelled sentences.

    Attributes:
        material: The sentences, and where each fact holds.
    """

    material: KnownMaterial

    @property
    def corpus(self) -> Corpus:
        """The labelled sentences."""
        return self.material.facts.corpus

    def answers(self, questions: Mapping[str, Question], progress: bool | None) -> tuple[dict[str, list[Answer]], bool]:
        """A label fits where its fact holds, or holds at most of what is pointed at."""
        return {
            key: [self._fits(question, one) for one in question.passages] for key, question in questions.items()
        }, True

    def _fits(self, question: Question, passage: Passage) -> bool:
        holds = self.material.holds(fact_of(question.label))
        if not question.is_pointing:
            return bool(holds[passage.start : passage.stop].any())
        return 2 * int(holds[list(passage.marked)].sum()) >= len(passage.marked) > 0


@dataclass(frozen=True, eq=False)
class EndpointJudge:
    """An endpoint that is shown passages.

    Attributes:
        endpoint: Whom to ask.
        corpus: What passages are of.
        model: The network whose tokens they are.
        records: Answers so far.
    """

    endpoint: Endpoint
    corpus: Corpus
    model: Model
    records: Records

    def answers(self, questions: Mapping[str, Question], progress: bool | None) -> tuple[dict[str, list[Answer]], bool]:
        """What the endpoint says of each passage; None where its answer could not be read."""
        chats: dict[str, Messages] = {}
        sizes: dict[str, int] = {}
        keys: dict[str, list[str]] = {}
        for key, question in questions.items():
            for start in range(0, len(question.passages), BATCH):
                part = question.passages[start : start + BATCH]
                chat = judging(question.label.text, [self._text(one) for one in part], is_pointing=question.is_pointing)
                # The same question is the same answer, whatever asked it.
                own = hashlib.sha256("\x1f".join(one["content"] for one in chat).encode()).hexdigest()
                chats[own], sizes[own] = chat, len(part)
                keys.setdefault(key, []).append(own)
        is_whole = asked(
            self.endpoint, chats, lambda key, said: answers_of(said, sizes[key]), self.records, what="scoring", progress=progress
        )  # fmt: skip
        held = {own: self._checked(self.records.held[own], sizes[own]) for own in sizes if own in self.records.held}
        blank: dict[str, list[Answer]] = {own: [None] * size for own, size in sizes.items()}
        return {
            key: [one for own in listed for one in held.get(own, blank[own])] for key, listed in keys.items()
        }, is_whole

    def _checked(self, answers: Any, size: int) -> list[Answer]:
        if isinstance(answers, list) and len(answers) == size and all(isinstance(one, bool) for one in answers):
            return answers
        raise FeatureError(
            f"{self.records.path} holds {answers!r:.60}, which are no {size} answers of yes and no; give another file, or remove it"
        )

    def _text(self, passage: Passage) -> str:
        ids = self.corpus.ids[passage.start : passage.stop].tolist()
        words = written(Reader.of(self.model.tokenizer), ids)
        return marked(words, {place - passage.start for place in passage.marked})


def judge_of(
    by: Any, model: Model, dictionary: Any, texts: Any, file: str | os.PathLike[str] | None, about: Mapping[str, Any]
) -> Judge:
    """The judge, and the corpus that it judges on.

    Args:
        by: KnownLabels, or an Endpoint.
        model: The network.
        dictionary: Whose features.
        texts: What an endpoint is shown passages of; known labels bring their own sentences.
        file: Where an endpoint's answers are kept.
        about: What makes the job the same one.
    Raises:
        FeatureError: It is no judge, or texts are missing or too many.
    """
    if isinstance(by, KnownLabels):
        if texts is not None:
            raise FeatureError("known labels judge their own sentences, whose every word is known; drop texts=")
        return KnownJudge(KnownMaterial(by.facts(model, dictionary, "held_out")))
    if not isinstance(by, Endpoint):
        raise FeatureError(f"labels are judged by iv.KnownLabels() or iv.Endpoint(url, model), not by {by!r:.60}")
    if texts is None:
        raise FeatureError(
            "an endpoint judges passages of texts that no label was made from; give held-out ones as texts="
        )
    corpus = Corpus.of(model, texts, reads_bos=reads_bos(dictionary))
    records = Records.at(file, {**about, "answered by": by.model})
    return EndpointJudge(by, corpus, model, records)
