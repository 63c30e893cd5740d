"""Sweeps: what an edit buys and what it costs, over its strengths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.attachments import attached
from innerview.edits import Context, Edit
from innerview.errors import EditError, MetricError
from innerview.metrics import Ledger, Measure
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.outcomes import Outcome, Prompts
from innerview.plots import ACCENT, INK, ShowsFigure, caption, drawn
from innerview.progress import progress as bar

Cost = Literal["kl"]
MOST_DOTS = 600


@dataclass(frozen=True, eq=False)
class Sweep(ShowsFigure):
    """Effect against cost, for each strength and prompt. NaN where an interrupt came first.

    Attributes:
        model_name: The network's name.
        edit: The edit in a few words, as it was given.
        metric: What was measured, in words.
        strengths: Coefficients of the edit, in the order given.
        prompts: Text of each prompt.
        values: The metric under the edit, shape [strength, prompt].
        plain: The metric without it, shape [prompt].
        cost: Mean over the prompt's tokens of KL(edited ‖ plain) of the next token, in nats, shape [strength, prompt]; None where
            it was not asked for.
        perplexity: Of the prompt itself under the edit, shape [strength, prompt]; None likewise, and for prompts that are no tokens.
        plain_perplexity: The same without it, shape [prompt]; NaN for a prompt of one token; None likewise.
        is_whole: Whether everything was measured; False when an interrupt came first.
        attached: Names of what was attached and in force throughout.
    """

    model_name: str
    edit: str
    metric: str
    strengths: list[float]
    prompts: list[str] = field(repr=False)
    values: Float[Tensor, "strength prompt"] = field(repr=False)
    plain: Float[Tensor, "prompt"] = field(repr=False)
    cost: Float[Tensor, "strength prompt"] | None = field(repr=False)
    perplexity: Float[Tensor, "strength prompt"] | None = field(repr=False)
    plain_perplexity: Float[Tensor, "prompt"] | None = field(repr=False)
    is_whole: bool = True
    attached: list[str] = field(default_factory=list)

    @property
    def effect(self) -> Float[Tensor, "strength prompt"]:
        """The metric under the edit, less without it."""
        return self.values - self.plain

    def frame(self) -> pd.DataFrame:
        """One row a strength and prompt: the metric, its change (effect), the cost in nats, and the change of the prompt's perplexity."""
        effect, rows = self.effect, []
        for i, strength in enumerate(self.strengths):
            for j, prompt in enumerate(self.prompts):
                row = [strength, j, prompt, float(self.values[i, j]), float(effect[i, j])]
                if self.cost is not None:
                    row.append(float(self.cost[i, j]))
                if self.perplexity is not None and self.plain_perplexity is not None:
                    row.append(float(self.perplexity[i, j] - self.plain_perplexity[j]))
                rows.append(row)
        columns = ["strength", "prompt", "text", "metric", "effect"]
        columns += [] if self.cost is None else ["cost"]
        columns += [] if self.perplexity is None else ["perplexity_change"]
        return pd.DataFrame(rows, columns=columns)

    def summary(self) -> pd.DataFrame:
        """One row a strength: means over the prompts that were measured, the effect's standard error, and how many they are."""
        effect, n = self.effect, (~self.values.isnan()).sum(dim=1)
        spread = ((effect - effect.nanmean(dim=1, keepdim=True)).square().nansum(dim=1) / (n - 1)).sqrt()
        columns = {
            "metric": self.values.nanmean(dim=1),
            "effect": effect.nanmean(dim=1),
            "effect_se": spread / n.sqrt(),
        }
        if self.cost is not None:
            columns["cost"] = self.cost.nanmean(dim=1)
        if self.perplexity is not None and self.plain_perplexity is not None:
            columns["perplexity_change"] = (self.perplexity - self.plain_perplexity).nanmean(dim=1)
        named = {name: column.tolist() for name, column in columns.items()} | {"n": n.tolist()}
        return pd.DataFrame(named, index=pd.Index(self.strengths, name="strength"))

    def figure(self) -> go.Figure:
        """Mean effect against mean cost, a point a strength and each prompt as a faint dot; against the strength without a cost."""
        means = self.summary().dropna(subset="effect").sort_index()
        has_cost = self.cost is not None
        x = means["cost"] if has_cost else means.index.to_series()
        # The curve runs to the right on both sides of zero.
        beside = [f"{'bottom' if strength < 0 else 'top'} left" for strength in means.index]
        labels = [f"{strength:+g}" if strength else "0" for strength in means.index]
        line = go.Scatter(
            x=x.tolist(), y=means["effect"].tolist(), text=labels, mode="lines+markers+text", textposition=beside,
            line={"color": ACCENT, "width": 1.5}, marker={"color": ACCENT, "size": 8}, cliponaxis=False,
            hovertemplate="strength %{text}<br>effect %{y:.4g}" + ("<br>cost %{x:.4g} nats" if has_cost else "") + "<extra></extra>",
        )  # fmt: skip
        title = f"{caption(self.edit)} · {caption(self.model_name)}"
        if not self.is_whole:
            title += f" · stopped: {self._measured()} measured"
        title += f"<br><span style='font-size:12px'>effect: change of the {caption(self.metric)}</span>"
        return drawn(
            [*self._dots(), line],
            title,
            xaxis={
                "title": {"text": "cost: mean KL(edited ‖ plain) of the next token, nats" if has_cost else "strength"}
            },
            yaxis={"title": {"text": "effect"}},
        )

    def _dots(self) -> list[go.Scatter]:
        frame = self.frame().dropna(subset="effect")
        if self.cost is None or len(self.prompts) < 2 or len(frame) > MOST_DOTS:
            return []
        shown = [
            f"{strength:+g} · {caption(text[:60])}"
            for strength, text in zip(frame["strength"], frame["text"], strict=True)
        ]
        return [
            go.Scatter(
                x=frame["cost"].tolist(), y=frame["effect"].tolist(), text=shown, mode="markers",
                marker={"color": INK, "size": 4, "opacity": 0.45},
                hovertemplate="%{text}<br>effect %{y:.4g}<br>cost %{x:.4g} nats<extra></extra>",
            )
        ]  # fmt: skip

    def _measured(self) -> str:
        return f"{int((~self.values.isnan()).sum())} of {self.values.numel()} strengths × prompts"

    def __repr__(self) -> str:
        measured = "" if self.is_whole else f", stopped: {self._measured()} measured"
        return (
            f"Sweep({self.edit!r} on {self.model_name}, {len(self.strengths)} strengths × {len(self.prompts)} prompt{'s' * (len(self.prompts) > 1)}, "
            f"metric {self.metric}{measured})\n{self.summary().to_string(float_format=lambda x: f'{x:.4g}')}"
        )


def sweep(
    model: Model, prompts: Any, edit: Edit, strengths: Sequence[float], *, metric: Any, cost: Cost | None = "kl", batch_size: int = 32,
    progress: bool = True,
) -> Sweep:  # fmt: skip
    """Effect and cost of an edit at each strength, for each prompt. Strengths and prompts are the rows of one batch.

    Args:
        model: The network; what is attached, and open blocks, are in force with and without the edit.
        prompts: A text, a chat, ids, or a list of them; for any other network what it takes, with rows along the first axis: a tensor, a
            tuple of them, or a mapping of arguments.
        edit: What to sweep: anything with `with_coefficient`, such as Add.
        strengths: Coefficients, in the edit's own unit.
        metric: `logit_difference`, `token_probability`, a Direction or Reading (read at the last token), or a function of the logits
            behind each prompt's last token [batch, 1, vocab] (or of what a network without tokens returns) that returns [batch]; it is
            called with all prompts, in their order.
        cost: `"kl"`, the mean over the prompt's tokens of KL(edited ‖ plain) in nats; None leaves it out.
        batch_size: Rows of a forward at most.
        progress: Whether to show a bar, where it takes longer than a second.
    Raises:
        EditError: The edit has no strength, or a strength is no finite number.
        MetricError: The metric does not go with the network or the prompts.

    An interrupt leaves what was measured: the result says `is_whole=False` and holds NaN elsewhere.
    """
    steps = _strengths(strengths)
    edits = [_at(edit, step) for step in steps]
    given = Prompts.of(model, prompts)
    check_batch_size(batch_size)
    if cost not in ("kl", None):
        raise EditError(f"no cost {cost!r}; it is 'kl' or None")
    has_perplexity = cost is not None and given.has_tokens
    work = _Work(given, edits, Measure.of(model, metric, len(given)), cost is not None)
    is_whole = work.run(batch_size, progress)
    return Sweep(
        model_name=model.name,
        edit=edit.label,
        metric=work.measure.label,
        strengths=steps,
        prompts=[given.said(row) for row in range(len(given))],
        values=work.ledger.values[1:],
        plain=work.ledger.values[0],
        cost=None if cost is None else work.cost,
        perplexity=work.perplexity[1:] if has_perplexity else None,
        plain_perplexity=work.perplexity[0] if has_perplexity else None,
        is_whole=is_whole,
        attached=[one.name for one in attached(model) if one.enabled],
    )


def check_batch_size(given: Any) -> None:
    """Refuse what is no number of rows.

    Raises:
        EditError: It is none.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise EditError(f"batch_size is a number of rows from 1, not {given!r}")


def _strengths(given: Any) -> list[float]:
    listed = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, Real):
        listed = [listed]
    if isinstance(listed, (str, bytes)) or not hasattr(listed, "__iter__"):
        raise EditError(f"strengths are numbers such as [-2, 0, 2], not {given!r}")
    numbers = list(listed)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
            raise EditError(f"a strength is a finite number, not {number!r}")
    if not numbers:
        raise EditError("no strength to sweep over: the list is empty; give some, such as [-2, 0, 2]")
    return [float(number) for number in numbers]


def _at(edit: Any, strength: float) -> Edit:
    """The edit at one strength.

    Raises:
        EditError: It has none.
    """
    if not isinstance(edit, Edit):
        raise EditError(f"a sweep takes one edit such as iv.Add(direction), not {edit!r} of type {type(edit).__name__}")
    if type(edit).with_coefficient is Edit.with_coefficient:
        raise EditError(
            f"{edit.label} has no strength to sweep over; sweep an edit that has one, such as iv.Add(direction)"
        )
    return edit.with_coefficient(strength)


@dataclass(frozen=True, eq=False)
class _Stacked(Edit):
    """Several edits of one kind at one place, each on its own equal share of the rows."""

    parts: tuple[Edit, ...]

    def apply(self, x: Tensor, share: Tensor | None = None, context: Context | None = None) -> Tensor:
        count = len(self.parts)
        if x.shape[0] % count:
            raise EditError(
                f"{self.site!r} has {x.shape[0]} rows, not as many for each of {count} strengths; sweep at a site with rows in front"
            )
        given = _split(x, share, context, count)
        return torch.cat([part.apply(*one) for part, one in zip(self.parts, given, strict=True)])

    def check(self, site: Site) -> None:
        self.parts[0].check(site)

    @property
    def width(self) -> int | None:
        return self.parts[0].width

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        return self.parts[0].sources

    @property
    def label(self) -> str:
        return self.parts[0].label


def _split(
    x: Tensor, share: Tensor | None, context: Context | None, count: int
) -> list[tuple[Tensor, Tensor | None, Context | None]]:
    """What an edit is given, in equal pieces of rows."""
    shares = [None] * count if share is None else share.chunk(count)
    masks = [None] * count if context is None or context.mask is None else context.mask.chunk(count)
    contexts = [None if context is None else context.part(nth, count, mask) for nth, mask in enumerate(masks)]
    return list(zip(x.chunk(count), shares, contexts, strict=True))


class _Work:
    """The forwards of a sweep, and what they have brought so far. Row 0 of what is measured is the plain network."""

    def __init__(self, prompts: Prompts, edits: list[Edit], measure: Measure, has_cost: bool) -> None:
        self.prompts = prompts
        self.edits = edits
        self.measure = measure
        self.has_cost = has_cost
        strengths, count = len(edits), len(prompts)
        self.ledger = Ledger(measure, strengths + 1, count)
        self.cost = torch.full((strengths, count), torch.nan, dtype=torch.float64)
        self.perplexity = torch.full((strengths + 1, count), torch.nan, dtype=torch.float64)

    def run(self, batch_size: int, progress: bool) -> bool:
        """Measure everything; False when an interrupt came first, but not before something was measured."""
        count = len(self.prompts)
        total = (len(self.edits) + 1) * count
        with bar(total, "sweep", "row", delay_s=1.0, is_shown=progress) as done:
            try:
                for first in range(0, count, batch_size):
                    self._some(range(first, min(first + batch_size, count)), batch_size, done)
            except KeyboardInterrupt:
                self.ledger.close()
                if bool(self.ledger.values[1:].isnan().all()):
                    raise
                return False
        return True

    def _some(self, rows: range, batch_size: int, done: Callable[..., Any]) -> None:
        """All strengths of some prompts."""
        plain = self._forward(rows, [])
        self._take(0, rows, plain, 0, None)
        done(len(rows))
        kept = plain if self.has_cost else None
        together = max(1, batch_size // len(rows))
        for first in range(0, len(self.edits), together):
            some = self.edits[first : first + together]
            acts = self._forward(
                [*rows] * len(some), [_Stacked(parts=tuple(some), site=some[0].site, where=some[0].where)]
            )
            for i in range(len(some)):
                self._take(first + i + 1, rows, acts, i * len(rows), kept)
            done(len(rows) * len(some))

    def _forward(self, rows: Sequence[int], edits: list[Edit]) -> Any:
        return self.prompts.run(rows, (*self.measure.sites, self.prompts.output), edits)

    def _take(self, cell: int, rows: range, acts: Any, since: int, plain: Any) -> None:
        self.ledger.take(cell, Outcome.of(self.prompts, acts, rows, since))
        if not self.has_cost:
            return
        here = slice(since, since + len(rows))
        after = _logprobs(acts[self.prompts.output][here])
        mask = None if acts.mask is None else acts.mask[here].to(after.device)
        mask = mask if mask is None or mask.shape == after.shape[:2] else None
        if self.prompts.has_tokens and acts.tokens is not None:
            self.perplexity[cell, rows] = _perplexity(after, acts.tokens[here].to(after.device), mask)
        if plain is not None:
            self.cost[cell - 1, rows] = divergence(after, _logprobs(plain[self.prompts.output]), mask)


def _logprobs(logits: Tensor) -> Tensor:
    if not logits.is_floating_point() or logits.ndim not in (2, 3):
        raise MetricError(
            f"the network returns {list(logits.shape)} of {logits.dtype}, which are no logits, so KL has no meaning; pass cost=None"
        )
    return logits.float().log_softmax(dim=-1)


def divergence(edited: Tensor, plain: Tensor, mask: Tensor | None) -> Float[Tensor, "batch"]:
    """KL(edited ‖ plain) in nats of each row, mean over its real tokens.

    Args:
        edited: Log-probabilities, shape [batch, pos, vocab], or [batch, vocab].
        plain: The same without the edit.
        mask: True for real tokens, shape [batch, pos]; None for all.
    """
    # A word that is impossible on both sides counts nothing, not minus infinity less itself.
    gap = torch.where(edited.isneginf(), 0.0, edited - plain)
    each = (edited.exp() * gap).sum(dim=-1).clamp(min=0).double()
    if each.ndim == 1:
        return each.cpu()
    if mask is None:
        return each.mean(dim=1).cpu()
    return (each.where(mask, 0.0).sum(dim=1) / mask.sum(dim=1)).cpu()


def _perplexity(logprobs: Tensor, ids: Tensor, mask: Tensor | None) -> Float[Tensor, "batch"]:
    """Perplexity of each row's tokens behind its first, NaN for a row of one token."""
    told = logprobs[:, :-1].gather(2, ids[:, 1:, None])[..., 0].double()
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    told = told.where(real[:, 1:], 0.0).sum(dim=1)
    return (-told / (real.sum(dim=1) - 1)).exp().cpu()
