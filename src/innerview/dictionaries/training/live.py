"""A training as it runs: curves, and a few features' strongest tokens, for whoever watches; and the way to stop it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerview.dictionaries.architectures import Losses
from innerview.dictionaries.entries import Active
from innerview.dictionaries.training.settings import DictionarySpec
from innerview.opened import opened

# Features that are watched, and examples that are kept of each.
WATCHED = 8
KEPT = 5


@dataclass(frozen=True)
class Example:
    """A token at which a feature was strongly active.

    Attributes:
        value: How active, in normalised units.
        ids: Ids of the tokens around it, those beyond the row left out.
        place: Which of them it is.
        tokens_seen: How far training was.
    """

    value: float
    ids: tuple[int, ...]
    place: int
    tokens_seen: int


@dataclass(eq=False)
class LiveTraining:
    """A training that runs, as `opened` lists it under `training`.

    Attributes:
        specs: The dictionaries.
        n_steps: Steps of the whole training.
        n_tokens: Its tokens.
        model: Name of the network.
        step: Steps done.
        tokens: Tokens seen.
        state: `running`, `done`, `stopped` or `failed`.
        histories: Points of each dictionary's curves: tokens, loss, its parts, l0, fvu, dead.
        examples: Of each dictionary, strong tokens of a few features.
    """

    specs: tuple[DictionarySpec, ...]
    n_steps: int
    n_tokens: int
    model: str
    step: int = 0
    tokens: int = 0
    state: str = "running"
    histories: list[list[dict[str, float]]] = field(default_factory=list, repr=False)
    examples: list[dict[int, list[Example]]] = field(default_factory=list, repr=False)
    _listeners: list[Callable[["LiveTraining"], None]] = field(default_factory=list, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def stop(self) -> None:
        """End the training behind the step it is at; what is trained by then is kept."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def listen(self, listener: Callable[["LiveTraining"], None]) -> Callable[[], None]:
        """Call `listener(training)`, in the thread that trains, at each point of the curves; returns the way to end that."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def tell(self) -> None:
        """Tell the listeners."""
        for listener in list(self._listeners):
            listener(self)
        opened.changed("training")

    def watch(self, nth: int, losses: Losses | None, contexts: Tensor | None) -> None:
        """Take up what the watched features of one dictionary do in a batch."""
        if losses is None or contexts is None:
            return
        codes = losses.codes.dense() if isinstance(losses.codes, Active) else losses.codes
        kept = self.examples[nth]
        if len(kept) < WATCHED:
            busiest = (codes != 0).sum(dim=0).topk(min(WATCHED, codes.shape[1])).indices
            for feature in busiest.tolist()[: WATCHED - len(kept)]:
                kept.setdefault(feature, [])
        for feature, listed in kept.items():
            values, rows = codes[:, feature].topk(min(KEPT, len(codes)))
            fresh = [
                _example(float(value), contexts[row], self.tokens)
                for value, row in zip(values.tolist(), rows.tolist(), strict=True)
                if value > 0
            ]
            listed[:] = _distinct(fresh + listed)[:KEPT]


def _example(value: float, around: Tensor, seen: int) -> Example:
    ids = around.tolist()
    middle = len(ids) // 2
    return Example(value, tuple(one for one in ids if one >= 0), sum(one >= 0 for one in ids[:middle]), seen)


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """The strongest first; of one context the newest alone, whose value is of the newest weights."""
    found: dict[tuple[tuple[int, ...], int], Example] = {}
    for example in examples:
        found.setdefault((example.ids, example.place), example)
    return sorted(found.values(), key=lambda one: -one.value)


def contexts_of(batch: dict[str, Tensor], name: str) -> Tensor | None:
    """What travels with a batch beside activations."""
    found = batch.get(name)
    return None if found is None else found.to(torch.int64)
