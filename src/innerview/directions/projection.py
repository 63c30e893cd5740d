"""Reading activations along a direction, token by token."""

from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.direction import Direction
from innerview.edits import fit
from innerview.errors import DirectionError
from innerview.models import text
from innerview.shows import ShowsItself


@dataclass(frozen=True, eq=False)
class Projection(ShowsItself):
    """Projection of each token onto a direction.

    Attributes:
        values: In natural steps from the direction's center, shape [batch, pos].
        words: Text of each real token, row by row.
        tokens: Ids of each real token, row by row.
        special: Whether each token is special (BOS and the like), row by row.
        direction: What was projected on.
    """

    values: Float[Tensor, "batch pos"]
    words: list[list[str]] = field(repr=False)
    tokens: list[list[int]] = field(repr=False)
    special: list[list[bool]] = field(repr=False)
    direction: Direction

    def frame(self) -> pd.DataFrame:
        """One row a token: text, id and value."""
        rows = [
            (batch, pos, word, token, float(self.values[batch, pos]))
            for batch, (words, tokens) in enumerate(zip(self.words, self.tokens, strict=True))
            for pos, (word, token) in enumerate(zip(words, tokens, strict=True))
        ]
        return pd.DataFrame(rows, columns=["batch", "pos", "token", "id", self.direction.name])


def project(acts: Activations, direction: Direction) -> Projection:
    """How far each token lies along a direction, in natural steps from its center.

    Args:
        acts: Activations that hold the direction's site, padded right, as `capture` returns them for texts.
        direction: What to project on.
    Raises:
        DirectionError: The activations have no tokens, or another width.
    """
    if acts.tokens is None or acts.mask is None:
        raise DirectionError("these activations have no tokens to project one by one; capture texts or ids")
    value = acts[direction.site]
    width = value[0, 0].numel()
    if width != direction.vector.numel():
        raise DirectionError(
            f"direction {direction.name!r} is {direction.vector.numel()} wide, and {direction.site} is {width}"
        )
    flat = value if fit(direction.vector, value).ndim == 1 else value.flatten(-2)
    tokens = [row[keep].tolist() for row, keep in zip(acts.tokens, acts.mask, strict=True)]
    special = [[text.is_special(acts.model, i) for i in row] for row in tokens]
    amounts = torch.zeros(acts.mask.shape)
    for i, (row, keep) in enumerate(zip(direction.project(flat).cpu(), acts.mask.cpu(), strict=True)):
        amounts[i, : int(keep.sum())] = row[keep]
    return Projection(amounts, acts.words, tokens, special, direction)
