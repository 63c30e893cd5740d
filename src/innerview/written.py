"""Activations of the tokens that a run feeds while it writes, kept as they pass: no second forward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.chosen import wanted_sites
from innerview.errors import CaptureError
from innerview.models import text
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import Run
from innerview.sides import is_decoders, is_pair


class Written:
    """What passes at sites while a run writes.

    Raises:
        CaptureError: A site does not hold one activation for each token that passes.
    """

    def __init__(self, model: Model, sites: str | Sequence[str]) -> None:
        self.model = model
        self.sites = wanted_sites(model, sites) if sites else []
        self.run: Run | None = None
        self._kept: dict[str, list[Tensor]] = {site.name: [] for site in self.sites}
        self._columns: dict[str, int] = dict.fromkeys(self._kept, 0)
        reads_two = is_pair(model.module)
        for site in self.sites:
            if reads_two and not is_decoders(model.module, site.point):
                raise CaptureError(
                    f"{site.name!r} is of the encoder's tokens, which pass once and not as the decoder writes; iv.capture(model, prompts) gives it"
                )
            if site.name == "logits" or site.is_eager or site.pos_axis != 1:
                raise CaptureError(
                    f"{site.name!r} is not computed for every token while a run writes; iv.capture it from the text that was written"
                )

    def taps(self) -> dict[Any, list[Any]]:
        """Taps by point."""
        found: dict[Any, list[Any]] = {}
        for site in self.sites:
            found.setdefault(site.point, []).append((site, self._keep))
        return found

    def _keep(self, site: Site, value: Tensor) -> None:
        forward = None if self.run is None else self.run.at(site.point)
        assert forward is not None
        if forward.shape is None or tuple(value.shape[:2]) != forward.shape:
            raise CaptureError(
                f"{site.name!r} of shape {list(value.shape)} does not have the tokens {list(forward.shape or ())} of this forward; "
                "iv.capture it from the text that was written"
            )
        # Without a cache, old tokens pass again; a copy, because a network may write over its own tensor.
        fresh = value.detach()[:, max(0, self._columns[site.name] - forward.col0) :]
        self._kept[site.name].append(fresh.clone())
        self._columns[site.name] = forward.col0 + forward.q

    def activations(self, ids: Tensor, left_pad: Tensor, counts: Tensor) -> Activations:
        """What was kept, padded right.

        Args:
            ids: Ids of every column, prompts and what was written, shape [rows, columns].
            left_pad: Pads before each row's prompt, shape [rows].
            counts: Tokens of each row to give back, from its first real one, shape [rows].
        Raises:
            CaptureError: Nothing has passed.
        """
        if any(not pieces for pieces in self._kept.values()):
            raise CaptureError("no forward of this run is over, so nothing was kept; ask again behind its first token")
        column = torch.arange(int(counts.max()))
        mask = column < counts[:, None]
        index = (left_pad[:, None] + column).masked_fill(~mask, 0)
        values = {}
        for name, pieces in self._kept.items():
            whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
            pieces[:] = [whole]
            rows = torch.arange(whole.shape[0], device=whole.device)[:, None]
            values[name] = whole[rows, index.to(whole.device)]
        tokens = ids.gather(1, index).masked_fill(~mask, text.pad_id(self.model))
        return Activations(values, tokens, mask, self.model)
