"""Pieces of a capture as a store keeps them: one entry a real token, with its id, its row and its place in it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.errors import StoreError
from innerview.models.model import Model
from innerview.stores.layout import IDS, PLACES, ROWS

# Numbers of each weight that tell two networks of one name apart.
SAMPLED = 16


@dataclass(frozen=True, eq=False)
class Entries:
    """Tokens of one piece, behind one another.

    Attributes:
        tensors: By name, shape [tokens, ...]; rows are counted from the piece's first.
        n_rows: Rows of text in the piece.
        given: Which of the rows that were given these are; None when unknown.
        model: Name of the network.
        bos: Id of the tokenizer's BOS token; None where it has none.
    """

    tensors: dict[str, Tensor]
    n_rows: int
    given: list[int] | None
    model: str
    bos: int | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.tensors[ROWS])

    @property
    def n_bytes(self) -> int:
        """Bytes that they take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @classmethod
    def of(cls, piece: Activations, dtype: torch.dtype | None) -> "Entries":
        """The real tokens of a piece; one entry a row where sites have no tokens.

        Raises:
            StoreError: There is nothing to store, or sites do not have the same tokens.
        """
        if not isinstance(piece, Activations):
            raise StoreError(f"a store takes what capture gives, not {type(piece).__name__}")
        if piece.gradients is not None:
            raise StoreError("a store keeps activations, and this capture has gradients too; take them with to=[]")
        if not piece.tensors:
            raise StoreError("this capture holds no site; it was stored where to= said")
        mask = None if piece.mask is None else piece.mask.cpu().bool()
        if mask is None:
            mask = cls._without_tokens(piece)
        tensors = {name: _taken(name, value, mask, dtype) for name, value in piece.tensors.items()}
        n_rows = len(mask)
        axis = torch.arange(n_rows)
        tensors[ROWS] = (axis[:, None].expand(mask.shape) if mask.ndim == 2 else axis)[mask].contiguous()
        if mask.ndim == 2:
            places = mask.long().cumsum(dim=1) - 1 if piece.positions is None else piece.positions.cpu()
            tensors[PLACES] = places[mask].to(torch.int32)
        if piece.tokens is not None:
            tensors[IDS] = piece.tokens.cpu()[mask].to(torch.int32)
        given = None if piece.rows is None else piece.rows.tolist()
        bos = getattr(piece.model.tokenizer, "bos_token_id", None)
        return cls(tensors, n_rows, given, piece.model.name, bos if isinstance(bos, int) else None)

    @staticmethod
    def _without_tokens(piece: Activations) -> Tensor:
        """All of [batch, pos] where the sites say that these are their axes, else all of [batch]."""
        name, value = next(iter(piece.tensors.items()))
        site = piece.model.table.get(name)
        is_long = site is not None and site.axes[:2] == ("batch", "pos") and value.ndim > 2
        return torch.ones(value.shape[: 2 if is_long else 1], dtype=torch.bool)


def _taken(name: str, value: Tensor, mask: Tensor, dtype: torch.dtype | None) -> Tensor:
    if value.shape[: mask.ndim] != mask.shape:
        raise StoreError(
            f"{name!r} of shape {list(value.shape)} has no entry for each of the tokens {list(mask.shape)}, so it cannot be stored with them"
        )
    entries = value.detach()[mask.to(value.device)]
    if dtype is None or not entries.is_floating_point() or entries.dtype == dtype:
        return entries.cpu()
    made = entries.to(dtype)
    is_narrower = torch.finfo(dtype).max < torch.finfo(entries.dtype).max
    if is_narrower and not torch.equal(made.isfinite(), entries.isfinite()):
        raise StoreError(
            f"{name!r} holds {float(entries.abs().nan_to_num().max()):g}, which {dtype} cannot; use torch.bfloat16 or torch.float32"
        )
    return made.cpu()


def chain_of(model: Model, asked: str, rows: Sequence[bytes]) -> list[str]:
    """A hash for each row: of the network, of what is asked, and of every row up to it."""
    link = hashlib.blake2b(f"{model.name}\x1f{asked}".encode(), digest_size=16)
    for name, weight in model.module.named_parameters():
        link.update(f"{name}{list(weight.shape)}{weight.dtype}".encode())
        if not weight.is_meta and weight.numel():
            places = torch.linspace(0, weight.numel() - 1, SAMPLED, dtype=torch.float64).long().to(weight.device)
            # By index on the weight itself: flattening one that is not contiguous would copy it whole.
            found = weight.detach()[torch.unravel_index(places, weight.shape)] if weight.ndim else weight.detach()
            link.update(found.float().cpu().numpy().tobytes())
    made, key = [], link.digest()
    for row in rows:
        key = hashlib.blake2b(row, digest_size=16, key=key).digest()
        made.append(key.hex())
    return made
