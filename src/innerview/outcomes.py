"""What forwards leave behind at the end of each prompt."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
# What a tokenizer returns for texts: rows of ids, and which of them are real.
READ_AS_TEXT = {"input_ids", "attention_mask"}


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts as rows that can be chosen, repeated and run.

    Attributes:
        model: The network that reads them.
        ids: Token ids of each row; None where the network is given something else.
        inputs: What it is given instead: tensors, the first axis being rows, alone, in a tuple, or by argument.
        is_bare: Whether ids are given as a bare tensor, to a network whose forward knows no `input_ids`; all rows are of one length then.
    """

    model: Model
    ids: tuple[tuple[int, ...], ...] | None
    inputs: Any
    is_bare: bool = False

    @classmethod
    def of(cls, model: Model, given: Any) -> "Prompts":
        """Prompts from a text, a chat, ids, a list of them, or what the network takes.

        Raises:
            TextError: They cannot be read.
        """
        if isinstance(given, Mapping):
            if set(given) <= READ_AS_TEXT and isinstance(given.get("input_ids"), Tensor):
                return cls(model, _real_ids(given), None)
            given = dict(given)
        is_ready = isinstance(given, (dict, tuple)) and bool(leaves(given))
        if is_ready or (isinstance(given, Tensor) and given.is_floating_point()):
            counts = {x.shape[0] if x.ndim else 0 for x in leaves(given)}
            if len(counts) > 1 or counts & {0} or any(x.ndim < 2 for x in leaves(given)):
                shapes = "; ".join(str(list(x.shape)) for x in leaves(given))
                raise TextError(
                    f"inputs have as many rows each along their first axis, and at least one axis more, not {shapes}; give x[None]"
                )
            return cls(model, None, given)
        if isinstance(given, Tensor) and given.ndim == 2 and not _knows_ids(model):
            return cls(model, tuple(tuple(row) for row in given.tolist()), None, is_bare=True)
        return cls(model, tuple(tuple(row) for row in text.encode(model, given).rows()), None)

    def __len__(self) -> int:
        return len(self.ids) if self.ids is not None else int(leaves(self.inputs)[0].shape[0])

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

    def run(self, rows: Sequence[int], sites: Sequence[str], edits: Any = (), *, grad: bool = False) -> Activations:
        """Activations of the chosen rows in one forward, in their order; a row may be chosen often. `grad` keeps their graph."""
        given = self._given(list(rows))
        # One forward: the edits of a study speak of its rows.
        found = capture(self.model, given, list(sites), edits=edits, batch_size=len(rows), progress=False, grad=grad)
        if self.ids is None or found.tokens is not None:
            return found
        ids = given.cpu()
        return replace(found, tokens=ids, mask=torch.ones_like(ids, dtype=torch.bool))

    def _given(self, rows: list[int]) -> Any:
        if self.ids is None:
            return _at(self.inputs, rows)
        ids = [list(self.ids[row]) for row in rows]
        return torch.tensor(ids, device=self.model.device) if self.is_bare else ids


def leaves(inputs: Any) -> list[Tensor]:
    """The tensors of what a network is given."""
    many = (
        list(inputs.values()) if isinstance(inputs, dict) else list(inputs) if isinstance(inputs, tuple) else [inputs]
    )
    return [one for one in many if isinstance(one, Tensor)]


def _knows_ids(model: Model) -> bool:
    return "input_ids" in inspect.signature(model.module.forward).parameters


def _at(inputs: Any, rows: list[int]) -> Any:
    if isinstance(inputs, dict):
        return {key: value[rows] if isinstance(value, Tensor) else value for key, value in inputs.items()}
    return tuple(one[rows] for one in inputs) if isinstance(inputs, tuple) else inputs[rows]


def _real_ids(given: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """Ids of each row of a tokenizer's output, without pads."""
    ids = given["input_ids"]
    mask = given.get("attention_mask")
    keep = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    return tuple(tuple(row[real].tolist()) for row, real in zip(ids, keep, strict=True))


@dataclass(frozen=True, eq=False)
class Outcome:
    """The end of some rows: what a metric reads.

    Attributes:
        logits: Logits of the next token behind each row's last real one, float32, shape [batch, vocab]; where rows are no tokens, what
            the root module returns, shape [batch, ...].
        rows: Which prompt each row is, shape [batch].
        acts: Activations by site at each row's last real token, shape [batch, ...].
        has_tokens: Whether the logits are those behind a token.
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
        return cls(logits, torch.tensor(list(rows)), ends, logits.ndim < acts[prompts.output].ndim)

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
    """What stands at each row's last real token; the whole value where rows are no tokens, or those of another text (a decoder's)."""
    if mask is None or value.shape[:2] != mask.shape:
        return value
    columns = torch.arange(mask.shape[1]).expand_as(mask).masked_fill(~mask.cpu(), -1).amax(dim=1)
    return value[torch.arange(value.shape[0]), columns.to(value.device)]
