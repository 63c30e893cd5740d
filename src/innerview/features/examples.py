"""Examples of a feature as people read them: stretches of text, the strongest first, then by true quantile."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from innerview.features.corpus import Corpus
from innerview.features.view import Example, Stretch
from innerview.models import text
from innerview.models.model import Model

# Borders between stretches: quantiles of the non-zero activations.
BANDS = ((0.99, 1.0), (0.9, 0.99), (0.75, 0.9), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))
MOST_TOP, MOST_EACH = 10, 5


@dataclass(frozen=True, eq=False)
class Drawn:
    """One activation that was kept.

    Attributes:
        place: Its token, counted through the corpus.
        around: The feature's values at the tokens around it, shape [width].
        before: Tokens before its own in `around`.
    """

    place: int
    around: np.ndarray
    before: int

    @property
    def value(self) -> float:
        """Its value."""
        return float(self.around[self.before])

    @property
    def is_peak(self) -> bool:
        """Whether nothing around it is stronger."""
        return self.value >= float(self.around.max())


def example_of(model: Model, corpus: Corpus, drawn: Drawn) -> Example:
    """The text around one activation."""
    row = corpus.row_of(drawn.place)
    start, stop = int(corpus.starts[row]), int(corpus.starts[row + 1])
    first = max(start, drawn.place - drawn.before)
    last = min(stop, drawn.place + len(drawn.around) - drawn.before)
    ids = tuple(corpus.ids[first:last].tolist())
    shift = drawn.before - drawn.place
    values = drawn.around[first + shift : last + shift].astype(np.float32)
    begins = max(0, int(corpus.firsts[row]) + first - start)
    at = drawn.place - first
    peak = at if drawn.is_peak else int(values.argmax())
    return Example(
        int(corpus.texts[row]), begins, ids, tuple(text.words(model, ids)), values, peak, drawn=at, place=drawn.place
    )


def stretches_of(
    model: Model, corpus: Corpus, top: list[Drawn], sample: list[Drawn], quantiles: dict[float, float]
) -> tuple[Stretch, ...]:
    """The strongest examples, and those between true quantiles, downward; no two show the same tokens.

    Args:
        model: The network, for its tokens' texts.
        corpus: What was read.
        top: The strongest, in order.
        sample: A uniform draw of all activations, the strongest first: its ranks are quantiles.
        quantiles: Activations at quantiles, as they are shown.
    """
    if not top:
        return ()
    shown: set[tuple[int, ...]] = set()
    best = tuple(_new((example_of(model, corpus, one) for one in top), shown, MOST_TOP))
    made = [Stretch(1.0, 1.0, best[-1].values[best[-1].peak].item(), top[0].value, best)]
    for low, high in BANDS:
        # A draw of n has its ranks at (i + ½) / n.
        ranks = (1 - (np.arange(len(sample)) + 0.5) / max(1, len(sample))).tolist()
        inside = [one for rank, one in zip(ranks, sample, strict=True) if low <= rank < high]
        # Those that are the strongest of what is shown tell more; others only where there are too few.
        ordered = sorted(inside, key=lambda one: not one.is_peak)
        found = list(_new((example_of(model, corpus, one) for one in ordered), shown, MOST_EACH))
        found.sort(key=lambda one: -one.values[one.drawn])
        least = quantiles.get(low, sample[-1].value if sample else 0.0)
        most = quantiles.get(high, top[0].value)
        if found:
            made.append(Stretch(low, high, least, most, tuple(found)))
    return tuple(made)


def _new(examples: Iterable[Example], shown: set[tuple[int, ...]], most: int) -> Iterable[Example]:
    """The first few whose tokens were not shown yet."""
    for one in examples:
        if most <= 0:
            return
        if one.ids not in shown:
            shown.add(one.ids)
            most -= 1
            yield one
