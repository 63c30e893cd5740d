"""Examples of a feature as people read them: stretches of text, the strongest first, then by true quantile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from innerview.features.kept import Drawn
from innerview.features.view import Example, Stretch

# Borders between stretches: quantiles of the non-zero activations.
BANDS = ((0.9, 1.0), (0.75, 0.9), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))
MOST_TOP, MOST_EACH = 10, 5


def example_of(spell: Callable[[int], str], drawn: Drawn) -> Example:
    """One kept activation with the words around it."""
    peak = drawn.at if drawn.is_peak else int(drawn.values.argmax())
    words = tuple(spell(i) for i in drawn.ids)
    return Example(drawn.text, drawn.start, drawn.ids, words, drawn.values, peak, drawn=drawn.at, place=drawn.place)


@dataclass
class Shown:
    """What was shown of a feature already.

    Attributes:
        windows: Ids of each stretch of text.
        texts: Numbers of the texts.
    """

    windows: set[tuple[int, ...]] = field(default_factory=set)
    texts: set[int] = field(default_factory=set)

    def new(self, drawn: Sequence[Drawn], most: int) -> list[Drawn]:
        """The first few whose tokens were not shown yet, the strongest first; of a text that was shown more only where there are too few."""
        found: list[Drawn] = []
        for is_again in (False, True):
            for one in drawn:
                if len(found) < most and one.ids not in self.windows and (is_again or one.text not in self.texts):
                    self.windows.add(one.ids)
                    self.texts.add(one.text)
                    found.append(one)
        return sorted(found, key=lambda one: -one.value)


def stretches_of(
    spell: Callable[[int], str], top: list[Drawn], sample: list[Drawn], quantiles: dict[float, float]
) -> tuple[Stretch, ...]:
    """The strongest examples, and those between true quantiles, downward; no two show the same tokens.

    Args:
        spell: Gives the text of a token.
        top: The strongest, in order.
        sample: A uniform draw of all activations, the strongest first.
        quantiles: Activations at the borders of the stretches.
    """
    if not top:
        return ()
    shown = Shown()
    best = tuple(example_of(spell, one) for one in shown.new(top, MOST_TOP))
    made = [Stretch(1.0, 1.0, float(best[-1].values[best[-1].peak]), top[0].value, best)]
    # By value: a draw's own ranks are off by some 9 % of all activations, and would be shown beyond their stretch's borders.
    left = sample
    for low, high in BANDS:
        inside = [one for one in left if one.value >= quantiles[low]]
        left = left[len(inside) :]
        # Those that are the strongest of what is shown tell more; others only where there are too few.
        found = shown.new(sorted(inside, key=lambda one: not one.is_peak), MOST_EACH)
        if found:
            examples = tuple(example_of(spell, one) for one in found)
            made.append(Stretch(low, high, quantiles[low], quantiles[high], examples))
    return tuple(made)
