"""Metrics: one number for each prompt, read where the prompt ends."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.direction import Direction
from innerview.errors import MetricError
from innerview.models.model import Model
from innerview.models.text import token_word
from innerview.outcomes import Outcome
from innerview.readings import Reading


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric made ready for one network and its prompts.

    Attributes:
        label: What it measures, in words.
        read: Gives one number a row of an outcome.
        sites: What it reads besides the logits.
        needs_all: Whether it must see all prompts at once, in their order.
    """

    label: str
    read: Callable[[Outcome], Tensor]
    sites: tuple[str, ...] = ()
    needs_all: bool = False

    @classmethod
    def of(cls, model: Model, metric: Any, count: int) -> "Measure":
        """The measure that a metric stands for, for `count` prompts.

        Raises:
            MetricError: It is no metric, or does not go with the network and the prompts.
        """
        if isinstance(metric, (LogitDifference, TokenProbability)):
            return metric.measure(model, count)
        if isinstance(metric, (Direction, Reading)):
            return _reading(model, metric.reading() if isinstance(metric, Direction) else metric)
        if callable(metric) and not inspect.isclass(metric):
            return cls(
                getattr(metric, "__name__", "metric").replace("<lambda>", "metric"), _called(metric), needs_all=True
            )
        raise MetricError(
            f"no metric: {metric!r} of type {type(metric).__name__}; give iv.logit_difference(right, wrong), "
            "iv.token_probability(words), a Direction or a Reading, or a function of logits [batch, 1, vocab]"
        )


@dataclass(frozen=True)
class LogitDifference:
    """Logit of one token less that of another; made by `logit_difference`."""

    right: Any
    wrong: Any

    def measure(self, model: Model, count: int) -> Measure:
        """Ready for a network and `count` prompts."""
        right, wrong = (_one_each(model, given, count) for given in (self.right, self.wrong))

        def read(outcome: Outcome) -> Tensor:
            return _picked(outcome, right) - _picked(outcome, wrong)

        each = [len(set(ids.tolist())) > 1 for ids in (right, wrong)]
        said = "logit difference of each prompt’s own tokens"
        return Measure(said if all(each) else f"logit {_words(model, right)} − {_words(model, wrong)}", read)


@dataclass(frozen=True)
class TokenProbability:
    """Summed probability of a set of tokens; made by `token_probability`."""

    tokens: Any

    def measure(self, model: Model, count: int) -> Measure:
        """Ready for a network and `count` prompts."""
        sets = _set_each(model, self.tokens, count)

        def read(outcome: Outcome) -> Tensor:
            chances = _logits(outcome).softmax(dim=-1)
            _check_vocab(torch.cat(sets), chances)
            return torch.stack(
                [chance[sets[int(row)]].sum() for chance, row in zip(chances, outcome.rows, strict=True)]
            )

        same = all(torch.equal(one, sets[0]) for one in sets)
        return Measure(f"probability of {_listed(model, sets[0]) if same else 'each prompt’s tokens'}", read)


def logit_difference(right: Any, wrong: Any) -> LogitDifference:
    """A metric: how far the logit of `right` is above that of `wrong`, for the next token, in nats.

    Args:
        right: A word that is one token, such as `" John"`, or its id; a list of them gives one to each prompt.
        wrong: The same.
    Reference: arXiv:2211.00593
    """
    return LogitDifference(right, wrong)


def token_probability(tokens: Any) -> TokenProbability:
    """A metric: the summed probability of a set of tokens as the next one, from 0 to 1.

    Args:
        tokens: Words that are one token each, or ids: a set for all prompts, or a list of sets, one a prompt.
    """
    return TokenProbability(tokens)


def token_id(model: Model, given: Any) -> int:
    """The id of a word that is one token, or of an id.

    Raises:
        MetricError: The network has no such token, or the word is several.
    """
    if isinstance(given, str):
        return _id_of_word(model, given)
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise MetricError(f"a token is a word or an id, not {given!r} of type {type(given).__name__}")
    found = int(given)
    if found < 0 or (model.vocab is not None and found >= model.vocab):
        raise MetricError(f"no token {found}: {model.name} knows ids 0 to {(model.vocab or 0) - 1}")
    return found


def _id_of_word(model: Model, word: str) -> int:
    if model.tokenizer is None:
        raise MetricError(f"{model.name} has no tokenizer to read {word!r}; give ids")
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    ids: list[int] = []
    # Some tokenizers put a space of their own before a text: the bare word then is the one with the space.
    for spelled in (word, word.removeprefix(" ")):
        found = list(model.tokenizer(spelled, add_special_tokens=False)["input_ids"]) if spelled else []
        is_whole = spelled == word or (len(found) == 1 and token_word(model.tokenizer, found[0]) == word)
        if len(found) == 1 and found[0] != unknown and is_whole:
            return int(found[0])
        ids = ids or found
    if not ids or unknown in ids:
        raise MetricError(f"{word!r} is no token that {model.name} knows; give a word of its vocabulary, or an id")
    parts = ", ".join(repr(token_word(model.tokenizer, i)) for i in ids)
    raise MetricError(
        f"{word!r} is {len(ids)} tokens of {model.name}: {parts}; a metric reads the next one alone, so give one of them"
    )


def _is_one(given: Any) -> bool:
    return isinstance(given, str) or not isinstance(given, Iterable) or (isinstance(given, Tensor) and given.ndim == 0)


def _items(given: Any) -> list[Any]:
    return list(given.tolist() if hasattr(given, "tolist") else given)


def _check_count(found: int, count: int, what: str) -> None:
    if found != count:
        raise MetricError(f"{found} {what} for {count} prompts; give one for all, or one for each")


def _one_each(model: Model, given: Any, count: int) -> Tensor:
    """An id for each prompt, shape [count]."""
    if _is_one(given):
        return torch.full((count,), token_id(model, given))
    if isinstance(given, (set, frozenset)):
        raise MetricError(f"a set has no order, so {given!r} cannot give one token to each prompt; give a list")
    ids = [token_id(model, one) for one in _items(given)]
    _check_count(len(ids), count, "tokens")
    return torch.tensor(ids)


def _set_each(model: Model, given: Any, count: int) -> list[Tensor]:
    """Ids for each prompt, without doubles."""
    items = [given] if _is_one(given) else _items(given)
    is_nested = bool(items) and not any(map(_is_one, items))
    sets = [_items(one) for one in items] if is_nested else [items] * count
    _check_count(len(sets), count, "sets of tokens")
    made = [torch.tensor(sorted({token_id(model, one) for one in each})) for each in sets]
    if not all(each.numel() for each in made):
        raise MetricError("a set of tokens is empty, and its probability would always be 0; name at least one token")
    return made


def _logits(outcome: Outcome) -> Float[Tensor, "batch vocab"]:
    if outcome.logits.ndim != 2:
        raise MetricError(
            f"this network returns {list(outcome.logits.shape)}, which are no logits [batch, vocab]; give a function of them as the metric"
        )
    return outcome.logits


def _picked(outcome: Outcome, ids: Tensor) -> Float[Tensor, "batch"]:
    """Logit of each row's own token."""
    logits = _logits(outcome)
    _check_vocab(ids, logits)
    return logits.gather(1, ids[outcome.rows].to(logits.device)[:, None])[:, 0]


def _check_vocab(ids: Tensor, logits: Tensor) -> None:
    if int(ids.max()) >= logits.shape[-1]:
        raise MetricError(f"no token {int(ids.max())}: this network has logits for ids 0 to {logits.shape[-1] - 1}")


def _words(model: Model, ids: Tensor) -> str:
    """The one token of all prompts, or that each has its own."""
    return repr(token_word(model.tokenizer, int(ids[0]))) if len(set(ids.tolist())) == 1 else "each prompt’s own"


def _listed(model: Model, ids: Tensor) -> str:
    words = [repr(token_word(model.tokenizer, i)) for i in ids.tolist()]
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _reading(model: Model, reading: Reading) -> Measure:
    site = model.site(reading.site).name

    def read(outcome: Outcome) -> Tensor:
        # With an axis of tokens, so that heads are told from tokens.
        found = reading.of(outcome.acts[site][:, None])
        if found.ndim != 2:
            raise MetricError(
                f"{site!r} is {list(outcome.acts[site].shape)} for each prompt, more than one vector; read another site"
            )
        return found[:, 0]

    return Measure(f"{reading.name} at {site}", read, (site,))


def _called(metric: Callable[[Tensor], Any]) -> Callable[[Outcome], Tensor]:
    def read(outcome: Outcome) -> Tensor:
        batch = len(outcome.rows)
        found = metric(outcome.logits[:, None] if outcome.has_tokens else outcome.logits)
        try:
            numbers = torch.as_tensor(found).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise MetricError(
                f"the metric returned {found!r:.80}, no numbers; return one a prompt, [{batch}]"
            ) from error
        if numbers.ndim == 0 and batch == 1:
            return numbers[None]
        if tuple(numbers.shape) != (batch,):
            raise MetricError(
                f"the metric returned shape {list(numbers.shape)} for {batch} prompts; return one number a prompt, [{batch}], "
                "without a mean over them"
            )
        return numbers

    return read


@dataclass(eq=False)
class Ledger:
    """Metric values of cells × prompts as they come in; a metric that needs all prompts waits for a cell's last.

    Attributes:
        values: float64, shape [cells, prompts]; NaN where nothing was measured.
    """

    measure: Measure
    cells: int
    count: int
    values: Tensor = field(init=False)
    _waiting: dict[int, list[Outcome]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.values = torch.full((self.cells, self.count), torch.nan, dtype=torch.float64)

    def take(self, cell: int, outcome: Outcome) -> None:
        """Measure some prompts of a cell."""
        if not self.measure.needs_all:
            self._put(cell, outcome)
            return
        parts = self._waiting.setdefault(cell, [])
        parts.append(outcome)
        if sum(len(part.rows) for part in parts) == self.count:
            self._put(cell, Outcome.joined(self._waiting.pop(cell), self.count))

    def close(self) -> None:
        """Measure what still waits, where an interrupt left prompts out."""
        for cell, parts in list(self._waiting.items()):
            self._put(
                cell, Outcome.joined(self._waiting.pop(cell), self.count), only=[int(r) for p in parts for r in p.rows]
            )

    def _put(self, cell: int, outcome: Outcome, only: Sequence[int] | None = None) -> None:
        found = self.measure.read(outcome).detach().double().cpu()
        rows = outcome.rows
        if only is not None:
            found, rows = found[list(only)], torch.tensor(list(only))
        if not torch.isfinite(found).all():
            bad = int(rows[~torch.isfinite(found)][0])
            raise MetricError(
                f"the metric {self.measure.label!r} is NaN or infinite for prompt {bad}, counted from 0; look at its logits"
            )
        self.values[cell, rows] = found
