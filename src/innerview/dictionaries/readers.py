"""What tells an edit how active features are, where no plain reading can: the dictionary itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from innerview.errors import EditError


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features that are read by encoding tokens: they compete, each token is normalised, or several sites are read at once.

    Attributes:
        dictionary: What they are features of.
        features: Their numbers.
        sites: Where it reads.
        widths: Numbers a token at each of them.
        reads: Gives the features' values of the activations at those sites, shape [*tokens, n].
        worth: Gives what one unit of a decoder's row is worth at each token, shape [*tokens, 1] or a number.
        why: Why no plain reading does, in words.
        otherwise: What else can be done where it cannot be read, behind a comma.
    """

    dictionary: Any
    features: tuple[int, ...]
    sites: tuple[str, ...]
    widths: tuple[int, ...]
    reads: Callable[..., Tensor] = field(repr=False)
    worth: Callable[..., Tensor | float] = field(repr=False)
    why: str = "its features compete"
    otherwise: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What the features are called."""
        return tuple(f"feature {one}" for one in self.features)

    def values(self, *x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens n"]:
        """How active each of them is."""
        return self.reads(*x).to(x[0].device, x[0].dtype)

    def scale(self, *x: Float[Tensor, "*tokens width"]) -> Tensor | float:
        """What one unit of a decoder's row is worth at each token, shape [*tokens, 1] or a number."""
        return self.worth(*x)

    def is_same(self, other: Any) -> bool:
        """Whether the other reads the same features of the same dictionary."""
        return isinstance(other, Encoded) and other.dictionary is self.dictionary and other.features == self.features

    def to_dict(self) -> dict[str, Any]:
        """Nothing: a dictionary does not fit beside an edit.

        Raises:
            EditError: Always; the reason and the way out stand in it.
        """
        raise EditError(
            f"{', '.join(self.names[:3])} of {self.dictionary!r} cannot be read without the dictionary, because {self.why}; "
            "save the dictionary, and make the edit anew from it with clamp, scale or ablate"
        )
