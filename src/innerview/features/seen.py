"""The codes of one chunk of a corpus, feature by feature, as everything that is counted takes them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.tallies import ordered


@dataclass(frozen=True, eq=False)
class Seen:
    """Codes of one chunk, sorted by feature, then by row and position.

    Attributes:
        features: Feature of each code, shape [codes].
        places: Its token, counted through the corpus, shape [codes].
        rows: The row of its token, shape [codes].
        values: Its value, float32, shape [codes].
        by_token: Places in these tensors in the order of the tokens, and of the features at each, shape [codes].
        n_features: Features of the dictionary.
        n_tokens: Tokens of the chunk that count.
    """

    features: Int[Tensor, "codes"]
    places: Int[Tensor, "codes"]
    rows: Int[Tensor, "codes"]
    values: Float[Tensor, "codes"]
    by_token: Int[Tensor, "codes"]
    n_features: int
    n_tokens: int

    @classmethod
    def sorted(
        cls, features: Tensor, places: Tensor, rows: Tensor, values: Tensor, n_features: int, n_tokens: int
    ) -> "Seen":
        """The same from codes that are sorted by token."""
        order = ordered(features)
        by_token = torch.empty_like(order)
        by_token[order] = torch.arange(len(order), device=order.device)
        return cls(
            features[order], places[order], rows[order], values.float()[order], by_token, n_features, n_tokens
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.features)

    def peaks(self) -> Int[Tensor, "peaks"]:
        """The largest code of each feature in each row: places in these tensors, in their order."""
        if not len(self):
            return self.features
        is_new = torch.ones_like(self.features, dtype=torch.bool)
        is_new[1:] = (self.features[1:] != self.features[:-1]) | (self.rows[1:] != self.rows[:-1])
        group = is_new.cumsum(0) - 1
        most = self.values.new_full((int(group[-1]) + 1,), -torch.inf)
        most.scatter_reduce_(0, group, self.values, "amax")
        is_most = self.values == most[group]
        # Of equal ones the first: running count of the largest so far, less that before the group.
        count = is_most.cumsum(0)
        before = (count - is_most.long())[is_new][group]
        return (is_most & (count - before == 1)).nonzero()[:, 0]

    def around(self, chosen: Int[Tensor, "chosen"], before: int, behind: int) -> Float[Tensor, "chosen width"]:
        """Values of the same feature at the tokens around some codes, 0 where it was not active or the row has ended.

        Codes of one feature and row lie side by side, so that each step looks one code further, at those alone that go on.
        """
        made = self.values.new_zeros(len(chosen), before + 1 + behind)
        made[:, before] = self.values[chosen]
        for sign, reach in ((-1, before), (1, behind)):
            live = torch.arange(len(chosen), device=chosen.device)
            for step in range(1, reach + 1):
                at, own = chosen[live] + sign * step, chosen[live]
                near = at.clamp(0, len(self) - 1)
                gap = (self.places[near] - self.places[own]) * sign
                goes = (at == near) & (self.features[near] == self.features[own])
                goes &= (self.rows[near] == self.rows[own]) & (gap <= reach)
                live, near, gap = live[goes], near[goes], gap[goes]
                if not len(live):
                    break
                made[live, before + sign * gap] = self.values[near]
        return made
