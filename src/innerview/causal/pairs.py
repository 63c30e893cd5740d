"""Pairs of prompts, clean and corrupt, that line up token for token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch

from innerview.errors import PatchError
from innerview.models.model import Model
from innerview.outcomes import Prompts, leaves

AROUND = 6


@dataclass(frozen=True, eq=False)
class Pairs:
    """Prompts in pairs of one length.

    Attributes:
        clean: The prompts of one side.
        corrupt: The prompts of the other.
    """

    clean: Prompts
    corrupt: Prompts

    @classmethod
    def of(cls, model: Model, clean: Any, corrupt: Any) -> "Pairs":
        """Pairs from prompts, one after another.

        Raises:
            PatchError: There are not as many on both sides, or a pair does not line up.
        """
        pairs = cls(Prompts.of(model, clean), Prompts.of(model, corrupt))
        if len(pairs.clean) != len(pairs.corrupt):
            raise PatchError(
                f"{len(pairs.clean)} clean prompts and {len(pairs.corrupt)} corrupt ones; give a corrupt one for each clean one"
            )
        if pairs.clean.has_tokens != pairs.corrupt.has_tokens:
            raise PatchError("one side is tokens and the other is none; give both as texts, as ids, or as tensors")
        if pairs.clean.ids is not None and pairs.corrupt.ids is not None:
            for pair, (one, other) in enumerate(zip(pairs.clean.ids, pairs.corrupt.ids, strict=True)):
                if len(one) != len(other):
                    raise PatchError(pairs._apart(pair))
                if one == other:
                    raise PatchError(
                        f"clean and corrupt are the same tokens in pair {pair}: {pairs.clean.said(pair)!r}; patching would change nothing"
                    )
        else:
            pairs._check_tensors()
        return pairs

    def __len__(self) -> int:
        return len(self.clean)

    def lengths(self) -> list[int]:
        """Tokens of each pair; 0 where rows are no tokens."""
        return [self.clean.length(pair) for pair in range(len(self))]

    def _check_tensors(self) -> None:
        one, other = (leaves(side.inputs) for side in (self.clean, self.corrupt))
        if [x.shape for x in one] != [x.shape for x in other]:
            shapes = ["; ".join(str(list(x.shape)) for x in side) for side in (one, other)]
            raise PatchError(f"clean is {shapes[0]} and corrupt {shapes[1]}; give tensors of one shape")
        for pair in range(len(self)):
            if all(torch.equal(x[pair], y[pair]) for x, y in zip(one, other, strict=True)):
                raise PatchError(f"clean and corrupt are the same input in pair {pair}; patching would change nothing")

    def _apart(self, pair: int) -> str:
        """What to say of a pair that does not line up: both tokenisations side by side, from shortly before they part."""
        one, other = self.clean.words(pair), self.corrupt.words(pair)
        rows = [(a or "", b or "") for a, b in zip_longest(map(repr, one), map(repr, other))]
        first = next(i for i, (a, b) in enumerate(rows) if a != b)
        shown = range(max(0, first - AROUND), min(len(rows), first + AROUND))
        width = max(len(rows[i][0]) for i in shown)
        lines = [
            f"{'>' if i == first else ' '} {i:>4}  {rows[i][0]:<{max(width, 5)}}  {rows[i][1]}".rstrip() for i in shown
        ]
        return (
            f"clean and corrupt do not line up in pair {pair}: {len(one)} tokens against {len(other)}; they part at token {first}\n"
            + "\n".join([f"   pos  {'clean':<{max(width, 5)}}  corrupt", *lines])
            + "\ngive prompts that have as many tokens, such as names that are one token each"
        )


def positions_of(pairs: Pairs, given: Any) -> list[tuple[int, ...]] | None:
    """Absolute positions for each pair, None for all tokens.

    Args:
        pairs: The pairs.
        given: None, one position, several for all pairs, or for each pair its own list of them. Negative ones count from the end.
    Raises:
        PatchError: A position is outside of its prompt, or the rows are no tokens.
    """
    if given is None:
        return None
    if not pairs.clean.has_tokens:
        raise PatchError(f"positions={given!r} asks for tokens, and this network reads none; drop it")
    if hasattr(given, "tolist"):
        given = given.tolist()
    listed = [given] if _is_whole(given) else list(given)
    is_nested = bool(listed) and not any(map(_is_whole, listed))
    if is_nested and len(listed) != len(pairs):
        raise PatchError(f"{len(listed)} lists of positions for {len(pairs)} pairs; give one for all, or one for each")
    each = listed if is_nested else [listed] * len(pairs)
    wrong = [one for many in each for one in (many if hasattr(many, "__iter__") else [many]) if not _is_whole(one)]
    if wrong:
        raise PatchError(f"a position is a whole number, not {wrong[0]!r}")
    return [_absolute(one, length, pair) for pair, (one, length) in enumerate(zip(each, pairs.lengths(), strict=True))]


def _is_whole(given: Any) -> bool:
    return hasattr(given, "__index__") and not isinstance(given, bool)


def _absolute(given: Sequence[Any], length: int, pair: int) -> tuple[int, ...]:
    found = []
    for position in given:
        place = int(position)
        if not -length <= place < length:
            raise PatchError(
                f"no position {place} in pair {pair}, which has {length} tokens; use {-length} to {length - 1}"
            )
        found.append(place % length)
    return tuple(dict.fromkeys(found))
