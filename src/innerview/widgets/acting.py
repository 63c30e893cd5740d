"""Features behind what another widget shows: those active at a token, and those that wrote a lens's word."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.edits import Edit
from innerview.errors import InnerviewError, WidgetError
from innerview.features.view import Partner
from innerview.features.words import Readout
from innerview.models.model import Model
from innerview.widgets import links, wire
from innerview.widgets.base import Widget, whole
from innerview.widgets.feature_sheet import about
from innerview.widgets.feature_wire import partners

MOST_FEATURES = 12
MOST_DICTIONARIES = 3


@dataclass(frozen=True)
class Acting:
    """Features of one dictionary that are behind something.

    Attributes:
        dictionary: The dictionary.
        features: With their numbers, the largest first.
    """

    dictionary: Dictionary
    features: tuple[Partner, ...]


def active_at(
    model: Model, dictionary: Dictionary, ids: Sequence[int], pos: int, edits: Sequence[Edit] = ()
) -> tuple[Partner, ...]:
    """The features most active at a token, by their activation."""
    # A token depends on nothing behind it.
    acts = capture(
        model, [list(ids[: pos + 1])], dictionary.site, edits=tuple(edits), hermetic=True, progress=False
    )[dictionary.site]  # fmt: skip
    values = codes_of(dictionary, acts[0, pos])
    return listed(dictionary, values)


def writers(
    model: Model, dictionary: Dictionary, at: Float[Tensor, "d_in"], cell: Float[Tensor, "d_model"], token: int
) -> tuple[Partner, ...]:
    """Features by what they add to a word's logit, read off a cell of a lens.

    A feature's own way alone, through the final norm at the cell's size: activation × decoder row · unembedding.

    Args:
        model: The network.
        dictionary: A dictionary of it.
        at: What the dictionary reads at the cell's token.
        cell: The stream at the cell.
        token: The word.
    """
    values = codes_of(dictionary, at)
    readout = Readout.of(model, dictionary)
    active = values.nonzero()[:, 0]
    column = replace(readout, matrix=readout.matrix[:, [token]])
    worth = column.logits(dictionary.weights.decoder[active.to(dictionary.weights.decoder.device)])[:, 0].cpu()
    stream = cell.float().cpu()
    size = (stream - stream.mean() if readout.centers else stream).square().mean().sqrt().clamp(min=1e-6)
    scale = 1.0 if readout.norm is None else float(1.0 / size)
    added = torch.zeros_like(values)
    added[active] = values[active] * worth * scale
    return listed(dictionary, added)


@torch.no_grad()
def codes_of(dictionary: Dictionary, at: Tensor) -> Float[Tensor, "n_features"]:
    """Every feature at one token."""
    return dictionary.encode_dense(at.detach()[None])[0].float().cpu()


def listed(dictionary: Dictionary, values: Float[Tensor, "n_features"]) -> tuple[Partner, ...]:
    """The features with the largest values above zero, with their labels."""
    labels = links.labels_of(dictionary)
    best = values.topk(min(MOST_FEATURES, len(values)))
    return tuple(
        Partner(index, value, text=labels[index].text if index in labels else "")
        for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if value > 0
    )


class OpensActing(Widget):
    """A widget that shows which features are behind something, and opens their pages."""

    def do_follow(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open a feature that was shown last."""
        shown: list[Any] = getattr(self, "_acting", [])
        if not shown:
            raise WidgetError("no features are shown to open; choose a token first")
        one = shown[whole(message.get("dictionary"), 0, len(shown) - 1)]()
        if one is None:
            raise WidgetError("the dictionary of these features is gone; choose the token again")
        feature = whole(message.get("feature"), 0, one.n_features - 1)
        links.open_feature(self.linked_model(), links.key_of(one), feature)
        return {"feature": feature}

    def linked_model(self) -> Model | None:
        """The model whose features are opened."""
        return getattr(self, "_model", None)

    def acting_of(self, find: Callable[[Dictionary], tuple[Partner, ...]], note: str = "") -> dict[str, Any]:
        """What each linked dictionary finds, as the wire carries it.

        Raises:
            WidgetError: No dictionary is linked, or none can say.
        """
        model = self.linked_model()
        known = [] if model is None else links.dictionaries_of(model)
        if not known:
            raise WidgetError(
                "no page or browser of this model's features is open; run iv.FeatureBrowser(dashboard) in a cell"
            )
        found, problem = [], None
        for dictionary in known[:MOST_DICTIONARIES]:
            try:
                found.append(Acting(dictionary, find(dictionary)))
            except InnerviewError as error:
                problem = problem or error
        if not found and problem is not None:
            raise problem
        self._acting = [weakref.ref(one.dictionary) for one in found]
        groups = [
            {"about": about(one.dictionary), "site": one.dictionary.site, "features": partners(one.features)}
            for one in found
        ]
        return {"groups": groups, "note": wire.sendable(note)}
