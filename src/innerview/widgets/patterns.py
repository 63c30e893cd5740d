"""Attention patterns of one text: held whole where they are few, read a layer at a time where they are many."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import torch

from innerview.activations import Activations
from innerview.capturing import capture
from innerview.errors import WidgetError
from innerview.models import text
from innerview.models.model import Model

SITES = "blocks.*.attn.pattern"
# Numbers that are kept: 128 MiB in float32.
HELD = 2**25
# Bytes of what is kept of a text that is read a layer at a time; a layer that is larger in half precision is kept around a token alone.
KEPT_BYTES = 2**30
# Numbers of what is kept around a token then.
BLOCK = 2**25


class Patterns:
    """What each head of each layer attends to, in one text.

    Attributes:
        model_name: The network's name.
        words: Text of each token.
        ids: Id of each token.
        heads: Site and number of each head, the first layer's first.
        layers: The sites, the first layer's first.
        is_held: Whether every pattern is at hand; else they are read a layer at a time, by a forward each, and all of its tokens are
            at hand from then on.
    """

    def __init__(
        self, model: Model, ids: list[int], held: dict[str, torch.Tensor] | None, heads: list[tuple[str, int]]
    ):
        self.model_name = model.name
        self.words = text.words(model, ids)
        self.ids = ids
        self.heads = heads
        self.layers = list(dict.fromkeys(site for site, _ in heads))
        self.is_held = held is not None
        self._model = model
        self._held = held
        self._read: OrderedDict[tuple[int, str, int], torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, shown: Any, given: Any, row: int) -> "Patterns":
        """Patterns from activations that hold some, or from a network and a text.

        Raises:
            WidgetError: There are none in it, or no such row.
        """
        if isinstance(shown, Activations):
            return cls._captured(shown, row)
        if not isinstance(shown, Model):
            raise WidgetError(
                f"Attention takes a Model and a text, or what iv.capture(model, text, {SITES!r}) returns, not {type(shown).__name__}"
            )
        if given is None:
            raise WidgetError(f"Attention of {shown.name} needs a text; try iv.Attention(model, 'some text')")
        ids = list(text.encode(shown, given).rows()[0])
        # One token says which heads there are; a text may be too long for more.
        first = capture(shown, [ids[:1]], SITES, hermetic=True)
        if not list(first):
            raise WidgetError(f"{shown.name} has no attention patterns; model.sites() lists what it has")
        heads = [(site, head) for site in first for head in range(first[site].shape[1])]
        if len(heads) * len(ids) ** 2 > HELD:
            return cls(shown, ids, None, heads)
        acts = capture(shown, [ids], SITES, hermetic=True)
        return cls(shown, ids, {site: _square(acts[site][0], len(ids), site) for site in acts}, heads)

    @classmethod
    def _captured(cls, acts: Activations, row: int) -> "Patterns":
        sites = [site for site in acts if site.endswith("attn.pattern")]
        if not sites:
            raise WidgetError(
                f"no attention patterns among {', '.join(acts) or 'no sites'}; capture {SITES!r}, or give iv.Attention(model, text)"
            )
        if acts.tokens is None or acts.mask is None or acts.positions is not None:
            raise WidgetError(
                "patterns are shown over whole texts; capture them without reduce=, where= and positions="
            )
        if not 0 <= row < acts.tokens.shape[0]:
            raise WidgetError(f"no row {row}; {acts.tokens.shape[0]} texts were captured, counted from 0")
        ids = acts.tokens[row][acts.mask[row].cpu()].tolist()
        held = {site: _square(acts[site][row], len(ids), site) for site in sites}
        return cls(acts.model, ids, held, [(site, head) for site in sites for head in range(held[site].shape[0])])

    def heads_of(self, layer: int) -> list[int]:
        """Which of all heads are a layer's; of every layer when negative."""
        return [i for i, (site, _) in enumerate(self.heads) if layer < 0 or site == self.layers[layer]]

    def weights(self, token: int, side: str = "from", layer: int = -1) -> np.ndarray:
        """Weights of a layer's heads, shape [head, pos]: from a token to each, or to it from each.

        Args:
            token: The token.
            side: `"from"` or `"to"`.
            layer: Number of the layer; -1 is all of them, where all are held.
        Raises:
            WidgetError: All layers are asked for of a text that is read one at a time.
        """
        if self._held is not None:
            chosen = list(self._held.values()) if layer < 0 else [self._held[self.layers[layer]]]
            return torch.cat([_line(value, token, side) for value in chosen]).float().numpy()
        if layer < 0:
            raise WidgetError(f"patterns of {len(self.ids)} tokens are read a layer at a time; say which")
        return self._around(token, side, layer).float().numpy()

    def whole(self) -> np.ndarray | None:
        """All of it, shape [head, pos, key], where it is held."""
        return None if self._held is None else torch.cat(list(self._held.values())).float().numpy()

    def _around(self, token: int, side: str, layer: int) -> torch.Tensor:
        """One token's line of a layer, shape [head, pos]; whoever asks first reads the layer."""
        n_heads, length = len(self.heads_of(layer)), len(self.ids)
        is_whole = 2 * n_heads * length**2 <= KEPT_BYTES
        step = length if is_whole else max(1, min(length, BLOCK // (n_heads * length)))
        key = (layer, "" if is_whole else side, 0 if is_whole else token // step)
        with self._lock:
            if key not in self._read:
                self._make_room()
                first = key[2] * step
                self._read[key] = self._layer(layer, key[1], slice(first, first + step))
                self._make_room()
            self._read.move_to_end(key)
            return _line(self._read[key], token - key[2] * step, side)

    def _layer(self, layer: int, side: str, part: slice) -> torch.Tensor:
        """All of a layer, or its queries or keys in `part`, by one forward as far as that layer."""
        site = self.layers[layer]
        read = _square(
            capture(self._model, [self.ids], site, hermetic=True, progress=False)[site][0], len(self.ids), site
        )
        if side:
            read = read[:, part] if side == "from" else read[:, :, part]
        is_large = not side and read.numel() * read.element_size() > KEPT_BYTES // 2
        # Half precision is what most networks of this size compute in; three digits are shown.
        return read.to(torch.float16) if is_large and read.dtype == torch.float32 else read.clone()

    def _make_room(self) -> None:
        while len(self._read) > 1 and sum(one.numel() * one.element_size() for one in self._read.values()) > KEPT_BYTES:
            self._read.popitem(last=False)


def _line(value: torch.Tensor, token: int, side: str) -> torch.Tensor:
    return value[:, token] if side == "from" else value[:, :, token]


def _square(value: torch.Tensor, length: int, site: str) -> torch.Tensor:
    return _keys(value, length, site)[:, :length].detach().cpu()


def _keys(value: torch.Tensor, length: int, site: str) -> torch.Tensor:
    """The keys that are tokens; a network's own prompt stands before them, pads behind."""
    if value.ndim != 3 or value.shape[-1] < length:
        raise WidgetError(f"{site!r} is {list(value.shape)} for a text of {length} tokens: no weight for each of them")
    before = (
        max(0, value.shape[-1] - value.shape[-2]) if value.shape[-2] >= length else max(0, value.shape[-1] - length)
    )
    return value[..., before : before + length]
