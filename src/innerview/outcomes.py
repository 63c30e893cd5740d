"""What forwards leave behind at the end of each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from innerview.activations import Activations
from innerview.capturing import capture
from innerview.errors import TextError
from innerview.models import text
from innerview.models.model import Model

# The output of the root module, for networks whose logits have no site of their own.
ROOT_OUTPUT = "module:"


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts as rows that can be chosen, repeated and run.

    Attributes:
        model: The network that reads them.
        ids: Token ids of each row; None where the network reads none.
        inputs: What it reads instead, the first axis being rows; None where it reads ids.
    """

    model: Model
    ids: tuple[tuple[int, ...], ...] | None
    inputs: Tensor | None

    @classmethod
    def of(cls, model: Model, given: Any) -> "Prompts":
        """Prompts from a text, a chat, ids, a list of them, or a tensor that the network takes.

        Raises:
            TextError: They cannot be read.
        """
        if isinstance(given, Tensor) and given.is_floating_point():
            if given.ndim < 2 or given.shape[0] == 0:
                raise TextError(
                    f"inputs have an axis of rows and at least one more, not the shape {list(given.shape)}; give x[None]"
                )
            return cls(model, None, given)
        return cls(model, tuple(tuple(row) for row in text.encode(model, given).rows()), None)

    def __len__(self) -> int:
        return len(self.ids if self.ids is not None else self.inputs)  # type: ignore[arg-type]

    @property
    def has_tokens(self) -> bool:
        """Whether the rows are tokens."""
        return self.ids is not None

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return len(self.ids[row]) if self.ids is not None else 0

    def words(self, row: int) -> list[str]:
        """Text of each token of a row."""
        return [] if self.ids is None else text.words(self.model, self.ids[row])

    def said(self, row: int) -> str:
        """A row in words."""
        return text.decode(self.model, self.ids[row]) if self.ids is not None else f"input {row}"

    @property
    def output(self) -> str:
        """The site where what the network says can be read."""
        return "logits" if "logits" in self.model.table else ROOT_OUTPUT

    def run(self, rows: Sequence[int], sites: Sequence[str], edits: Any = ()) -> Activations:
        """Activations of the chosen rows, in their order; a row may be chosen often."""
        if self.ids is not None:
            return capture(self.model, [list(self.ids[row]) for row in rows], list(sites), edits=edits)
        assert self.inputs is not None
        return capture(self.model, self.inputs[list(rows)], list(sites), edits=edits)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of some rows: what a metric reads.

    Attributes:
        logits: Logits of the next token behind each row's last real one, float32, shape [batch, vocab]; of a network without
            tokens what its root module returns, shape [batch, ...].
        rows: Which prompt each row is, shape [batch].
        acts: Activations by site at each row's last real token, shape [batch, ...].
        has_tokens: Whether the rows are tokens.
    """

    logits: Tensor
    rows: Int[Tensor, "batch"]
    acts: dict[str, Tensor]
    has_tokens: bool

    @classmethod
    def of(cls, prompts: Prompts, acts: Activations, rows: Sequence[int], since: int = 0) -> "Outcome":
        """The end of the captured rows from `since` on, as many as `rows` names."""
        here = slice(since, since + len(rows))
        mask = None if acts.mask is None else acts.mask[here]
        ends = {site: _last(value[here], mask) for site, value in acts.items()}
        logits = ends.pop(prompts.output).float()
        return cls(logits, torch.tensor(list(rows)), ends, prompts.has_tokens)

    @classmethod
    def joined(cls, parts: Sequence["Outcome"], count: int) -> "Outcome":
        """The prompts 0 to `count - 1` in their order; NaN for those that are in no part."""
        rows = torch.cat([part.rows for part in parts])

        def spread(pieces: list[Tensor]) -> Tensor:
            whole = torch.cat(pieces)
            made = whole.new_full((count, *whole.shape[1:]), torch.nan)
            made[rows.to(whole.device)] = whole
            return made

        acts = {site: spread([part.acts[site].float() for part in parts]) for site in parts[0].acts}
        return cls(spread([part.logits for part in parts]), torch.arange(count), acts, parts[0].has_tokens)


def _last(value: Tensor, mask: Tensor | None) -> Tensor:
    """What stands at each row's last real token; the whole value where rows are no tokens."""
    if mask is None:
        return value
    columns = torch.arange(mask.shape[1]).expand_as(mask).masked_fill(~mask.cpu(), -1).amax(dim=1)
    return value[torch.arange(value.shape[0]), columns.to(value.device)]
