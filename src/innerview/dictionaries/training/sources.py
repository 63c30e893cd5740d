"""Where training gets its tokens from: a store, tensors, or anything that gives tensors one after the other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from innerview.dictionaries.manifest import BOS, UNKNOWN, Bos
from innerview.dictionaries.training.windows import Batch, Chunk, mixed
from innerview.errors import DictionaryError


class Source(Protocol):
    """What gives shuffled batches of activations by site, the same ones for the same seed."""

    @property
    def model(self) -> str:
        """Name of the network that they are of."""
        ...

    @property
    def bos(self) -> Bos:
        """What became of BOS tokens."""
        ...

    @property
    def n_tokens(self) -> int | None:
        """Tokens of one pass; None where nobody knows."""
        ...

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        """One pass in batches, those before `first` left out."""
        ...


@dataclass(frozen=True, eq=False)
class Tensors:
    """Activations that lie in memory, by site, each shape [n_tokens, d]."""

    by_site: Mapping[str, Tensor] = field(repr=False)
    model: str = UNKNOWN
    bos: Bos = "unknown"

    @property
    def n_tokens(self) -> int | None:
        return len(next(iter(self.by_site.values())))

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        chosen = {site: _of_site(self.by_site, site) for site in sites}
        n = len(chosen[sites[0]])
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        for start in range(first * batch_tokens, n - batch_tokens + 1, batch_tokens):
            index = order[start : start + batch_tokens]
            yield {site: tensor[index.to(tensor.device)] for site, tensor in chosen.items()}


@dataclass(frozen=True, eq=False)
class Pieces:
    """Activations that come one after the other: tensors [n, d], or mappings of them by site."""

    pieces: Iterable[Any] = field(repr=False)
    buffer_tokens: int
    model: str = UNKNOWN
    bos: Bos = "unknown"
    n_tokens: int | None = None

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        return mixed(self._chunks(sites), self.buffer_tokens, batch_tokens, seed, first=first)

    def _chunks(self, sites: Sequence[str]) -> Iterator[Chunk]:
        for piece in self.pieces:
            given = piece if isinstance(piece, Mapping) else dict.fromkeys(sites, piece)
            chosen = {site: _of_site(given, site) for site in sites}
            yield Chunk(len(chosen[sites[0]]), lambda chosen=chosen: chosen)


@dataclass(frozen=True, eq=False)
class Stored:
    """Activations of a store."""

    store: Any
    buffer_tokens: int

    @property
    def bos(self) -> Bos:
        # Every stored token is trained on, BOS among them.
        found = getattr(self.store, "bos", UNKNOWN)
        return found if found in BOS else "unknown"

    @property
    def model(self) -> str:
        return str(getattr(self.store, "model", UNKNOWN))

    @property
    def n_tokens(self) -> int | None:
        return int(self.store.n_tokens)

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        size = max(self.buffer_tokens, batch_tokens)
        for batch in self.store.batches(list(sites), batch_tokens, seed, first=first, buffer_tokens=size):
            yield {site: batch[site].flatten(1) for site in sites}


def _of_site(given: Mapping[str, Any], site: str) -> Tensor:
    found = given.get(site)
    if found is None:
        raise DictionaryError(f"no activations of {site!r}; given are those of {', '.join(map(str, given))}")
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim < 2:
        told = f"{found.dtype} of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise DictionaryError(f"activations of {site!r} are real numbers of shape [n_tokens, d], not {told}")
    return found.detach().flatten(1)


def is_store(given: Any) -> bool:
    """Whether something gives batches as a store does."""
    return hasattr(given, "batches") and hasattr(given, "n_tokens")
