"""Attention patterns of one text: held whole where they are few, read anew around a token where they are many."""

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
# Numbers of one block of queries that are read together, 32 MiB in float32, and how many such blocks are kept.
BLOCK = 2**23
KEPT = 4


class Patterns:
    """What each head of each layer attends to, in one text.

    Attributes:
        model_name: The network's name.
        words: Text of each token.
        ids: Id of each token.
        heads: Site and number of each head, the first layer's first.
        is_held: Whether every pattern is at hand; else they are read for some tokens at a time, by a forward each.
    """

    def __init__(
        self, model: Model, ids: list[int], held: dict[str, torch.Tensor] | None, heads: list[tuple[str, int]]
    ):
        self.model_name = model.name
        self.words = text.words(model, ids)
        self.ids = ids
        self.heads = heads
        self.is_held = held is not None
        self._model = model
        self._held = held
        self._queries = max(1, BLOCK // (len(heads) * len(ids)))
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
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

    def weights(self, token: int, side: str = "from") -> np.ndarray:
        """Weights of all heads, shape [head, pos]: from a token to each, or to it from each."""
        if self._held is not None:
            found = [value[:, token] if side == "from" else value[:, :, token] for value in self._held.values()]
            return torch.cat(found).float().numpy()
        if side != "from":
            raise WidgetError(
                f"who attends to a token is known where all patterns are held, and those of {len(self.ids)} tokens are too many; "
                "capture one layer's patterns and give them to iv.Attention"
            )
        return self._block(token // self._queries)[:, token % self._queries]

    def whole(self) -> np.ndarray | None:
        """All of it, shape [head, pos, key], where it is held."""
        return None if self._held is None else torch.cat(list(self._held.values())).float().numpy()

    def _block(self, number: int) -> np.ndarray:
        """Weights of some queries, shape [head, query, key]; read by one forward at a time."""
        with self._lock:
            if number not in self._blocks:
                queries = list(range(number * self._queries, min((number + 1) * self._queries, len(self.ids))))
                acts = capture(self._model, [self.ids], SITES, positions=queries, hermetic=True, to="cpu")
                self._blocks[number] = np.concatenate(
                    [_keys(acts[site][0], len(self.ids), site).float().numpy() for site in acts]
                )
                while len(self._blocks) > KEPT:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(number)
            return self._blocks[number]


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
