"""What capture returns: activations by site, with the tokens they belong to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from innerview.errors import SiteError
from innerview.models import text
from innerview.models.model import Model


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, Tensor]):
    """Activations by site.

    Attributes:
        tensors: Tensor of each site, shape [batch, pos, ...]; without `pos` where tokens were reduced to one value.
        tokens: Token ids, shape [batch, pos]; None when the network reads no ids, or tokens were reduced.
        mask: True where a token is real, shape [batch, pos]; None likewise.
        model: The network they were captured from.
        positions: Place of each token in its row, shape [batch, pos]; None when every token is here.
        gradients: Gradient at each site, shaped as its tensor; None when none was asked for.
        rows: Which of the given rows these are, shape [batch]; None when they are all.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    tokens: Tensor | None
    mask: Tensor | None
    model: Model = field(repr=False)
    positions: Tensor | None = field(default=None, repr=False)
    gradients: dict[str, Tensor] | None = field(default=None, repr=False)
    rows: Tensor | None = field(default=None, repr=False)

    def __getitem__(self, site: str) -> Tensor:
        if site in self.tensors:
            return self.tensors[site]
        matches = [s.name for s in self.model.expand(site)]
        if len(matches) == 1 and matches[0] in self.tensors:
            return self.tensors[matches[0]]
        raise SiteError(
            f"{site!r} was not captured; captured are {', '.join(self.tensors) or 'none: they went where to= said'}"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def sites(self) -> list[str]:
        """Names of the captured sites."""
        return list(self.tensors)

    def stack(self, pattern: str) -> Tensor:
        """The sites that match, stacked along a first axis, shape [layer, batch, pos, ...].

        Raises:
            SiteError: None match, or their shapes differ.
        """
        found = [v for name, v in self.tensors.items() if fnmatchcase(name, pattern)]
        if not found:
            found = [self.tensors[site.name] for site in self.model.expand(pattern) if site.name in self.tensors]
        if not found:
            raise SiteError(f"nothing captured matches {pattern!r}; captured are {', '.join(self.tensors)}")
        shapes = {tuple(v.shape) for v in found}
        if len(shapes) > 1:
            raise SiteError(
                f"the sites that match {pattern!r} have several shapes: {sorted(shapes)}; stack one kind of site"
            )
        return torch.stack(found)

    @property
    def words(self) -> list[list[str]]:
        """Text of each token here, row by row."""
        if self.tokens is None or self.mask is None:
            return []
        return [text.words(self.model, row[keep].tolist()) for row, keep in zip(self.tokens, self.mask, strict=True)]

    def _has_tokens(self, site: str) -> bool:
        """Whether a site's first axes are those of the tokens; an attention pattern's are not."""
        assert self.mask is not None
        axes = self.model.site(site).axes
        return (not axes or axes[:2] == ("batch", "pos")) and self.tensors[site].shape[:2] == self.mask.shape

    def frame(self) -> pd.DataFrame:
        """One row a site and token: its text, and the norm of its activation; one row for a site that has no tokens."""
        if self.tokens is None or self.mask is None:
            rows: list[Any] = [(site, list(v.shape), float(v.float().norm())) for site, v in self.tensors.items()]
            return pd.DataFrame(rows, columns=["site", "shape", "norm"])
        words = self.words
        rows = []
        for site, value in self.tensors.items():
            if not self._has_tokens(site):
                rows.append((site, None, None, None, float(value.float().norm())))
                continue
            norms = value.float().flatten(2).norm(dim=-1)
            for batch, keep in enumerate(self.mask):
                for nth, pos in enumerate(keep.nonzero().flatten().tolist()):
                    place = nth if self.positions is None else int(self.positions[batch, pos])
                    rows.append((site, batch, place, words[batch][nth], float(norms[batch, pos])))
        return pd.DataFrame(rows, columns=["site", "batch", "pos", "token", "norm"])
