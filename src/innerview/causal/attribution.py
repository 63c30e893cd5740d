"""Attribution to features: how much of a metric each feature of dictionaries, and what they miss, stands for.

Reference: arXiv:2403.19647 (sparse feature circuits); arXiv:1703.01365 (integrated gradients)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.codes import Codes
from innerview.dictionaries.cross_layer import CrossLayerTranscoder
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.nodes import Gradients, Node, Splice
from innerview.dictionaries.splicing import listed, splice_of
from innerview.errors import MetricError
from innerview.metrics import Measure
from innerview.models.model import Model
from innerview.outcomes import Outcome, Prompts
from innerview.plots import DIVERGING, ShowsFigure, caption, drawn
from innerview.progress import progress as bar
from innerview.where import Where

SHOWN = 20


@dataclass(frozen=True, eq=False)
class Part:
    """What one dictionary's nodes stand for in some rows.

    Attributes:
        codes: Features, dense, shape [rows, pos, n_features].
        features: What each stands for, shape [rows, pos, n_features].
        error: What is missed stands for, shape [rows, pos].
        baseline: The metric without codes and error, shape [rows]; None where it was not run.
    """

    codes: Tensor
    features: Tensor
    error: Tensor
    baseline: Tensor | None = None

    def total(self) -> Tensor:
        """Everything that it stands for, shape [rows]."""
        return self.features.flatten(1).sum(dim=1) + self.error.flatten(1).sum(dim=1)


@dataclass(frozen=True, eq=False)
class Job:
    """Prompts run with dictionaries spliced in, and measured."""

    prompts: Prompts
    measure: Measure
    dictionaries: list[Dictionary] | CrossLayerTranscoder
    where: Where

    def run(
        self,
        rows: list[int],
        chosen: Sequence[Dictionary] | CrossLayerTranscoder,
        part: float = 1.0,
        *,
        grad: bool = True,
    ) -> tuple[Tensor, Splice]:
        """The metric of each row, and the nodes of the chosen dictionaries.

        Args:
            rows: Which prompts.
            chosen: Which dictionaries are spliced in.
            part: What their codes and errors are multiplied by.
            grad: Whether to keep the graph.
        """
        splice, edits = splice_of(chosen, self.where, part=part)
        with torch.set_grad_enabled(grad):
            sites = (*self.measure.sites, self.prompts.output)
            outcome = Outcome.of(self.prompts, self.prompts.run(rows, sites, edits, grad=grad), rows)
            found = self.measure.read(outcome)
        if grad and not found.requires_grad:
            raise MetricError(
                f"the metric {self.measure.label!r} has no gradient; make it of the logits with torch alone, without detach or item"
            )
        return found, splice


@dataclass(frozen=True)
class GradientTimesActivation:
    """Each feature's gradient times its activation: the change of the metric without it, to first order. One backward for all dictionaries.

    Reference: arXiv:2403.19647
    """

    def attribute(self, job: Job, rows: list[int]) -> tuple[Tensor, list[Part]]:
        """The metric of some prompts, shape [rows], and the part of each dictionary."""
        found, splice = job.run(rows, job.dictionaries)
        parts = [_product(node, one) for node, one in zip(splice.nodes, splice.gradients(found), strict=True)]
        return found.detach(), parts


@dataclass(frozen=True)
class IntegratedGradients:
    """Gradients averaged over the way from no features and no error to all of them, times the activations; dictionary by dictionary.

    What all features and errors of a dictionary stand for sums to the change of the metric when they are all taken out. Stretches of the
    way where that fails most are halved, since a norm turns sharply where little is left.

    Attributes:
        steps: Points on each stretch, those of Gauss and Legendre.
        tolerance: Share of the change that the sum may miss.
        most_steps: Points on the whole way at most, for each batch; `FeatureAttributions.gaps` tells what is still missed then.

    Reference: arXiv:1703.01365
    """

    steps: int = 8
    tolerance: float = 1e-3
    most_steps: int = 512

    def __post_init__(self) -> None:
        for name in ("steps", "most_steps"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise MetricError(f"{name} is a whole number from 1, not {given!r}")
        if not self.tolerance > 0:
            raise MetricError(f"tolerance is a share above 0, not {self.tolerance!r}")

    def attribute(self, job: Job, rows: list[int]) -> tuple[Tensor, list[Part]]:
        """The metric of some prompts, shape [rows], and the part of each dictionary."""
        parts, clean = [], None
        assert not isinstance(job.dictionaries, CrossLayerTranscoder)
        for dictionary in job.dictionaries:
            clean, whole = job.run(rows, [dictionary], grad=False)
            baseline = job.run(rows, [dictionary], 0.0, grad=False)[0]
            parts.append(self._part(job, rows, whole.nodes[0], clean, baseline))
        assert clean is not None
        return clean, parts

    def _part(self, job: Job, rows: list[int], node: Node, clean: Tensor, baseline: Tensor) -> Part:
        """What a dictionary's features and error stand for; the stretch that misses most is halved until all together miss little."""
        allowed = (self.tolerance * (clean - baseline).abs()).clamp(min=1e-6)
        found = [self._stretch(job, rows, node, (0.0, baseline), (1.0, clean))]
        left = self.most_steps - self.steps
        while left >= 2 * self.steps and bool((sum(one.missed for one in found) > allowed).any()):
            worst = max(found, key=lambda one: float((one.missed / allowed).max()))
            found.remove(worst)
            middle = (worst.low[0] + worst.high[0]) / 2
            between = (middle, job.run(rows, [node.dictionary], middle, grad=False)[0])
            ends = ((worst.low, between), (between, worst.high))
            found += [self._stretch(job, rows, node, low, high) for low, high in ends]
            left -= 2 * self.steps
        features, error = sum(one.part.features for one in found), sum(one.part.error for one in found)
        return Part(found[0].part.codes, features, error, baseline)  # type: ignore[arg-type]

    def _stretch(
        self, job: Job, rows: list[int], node: Node, low: tuple[float, Tensor], high: tuple[float, Tensor]
    ) -> "Stretch":
        part = _product(node, self._average(job, rows, node.dictionary, low[0], high[0]))
        missed = (part.total().to(high[1].device) - (high[1] - low[1])).abs()
        return Stretch(low, high, part, missed)

    def _average(self, job: Job, rows: list[int], dictionary: Dictionary, low: float, high: float) -> Gradients:
        """Gradients along a stretch of the way, times its length."""
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        codes: Tensor | float = 0.0
        error: Tensor | float = 0.0
        half = (high - low) / 2
        for place, weight in zip(low + half * (places + 1), half * weights, strict=True):
            found, splice = job.run(rows, [dictionary], float(place))
            (one,) = splice.gradients(found)
            codes, error = codes + float(weight) * one.codes, error + float(weight) * one.error
        assert isinstance(codes, Tensor) and isinstance(error, Tensor)
        return Gradients(codes, error)


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of the way, from one point and the metric there to another, and what its sum misses, shape [rows]."""

    low: tuple[float, Tensor]
    high: tuple[float, Tensor]
    part: Part
    missed: Tensor


Method = GradientTimesActivation | IntegratedGradients


def _product(node: Node, gradients: Gradients, baseline: Tensor | None = None) -> Part:
    assert node.error is not None and gradients.error is not None
    codes, error = node.codes.detach(), node.error.detach()
    return Part(codes, codes * gradients.codes, (error * gradients.error).sum(dim=-1), baseline)


@dataclass(frozen=True, eq=False)
class FeatureAttributions(ShowsFigure):
    """What of a metric each feature, and what the dictionaries miss, stands for.

    Attributes:
        model_name: The network's name.
        sites: Site that each dictionary writes.
        metric: What was measured, in words.
        method: How it was attributed.
        prompts: Text of each prompt.
        words: Text of each token of each prompt; empty where rows are no tokens.
        activations: Codes of each dictionary over [prompt, pos].
        features: The same places, with what each stands for, in the metric's units.
        errors: What each dictionary misses stands for at each token, shape [prompt, pos].
        clean: The metric of each prompt, shape [prompt].
        baselines: The metric without each dictionary's features and errors, shape [site, prompt]; None where it was not run.
    """

    model_name: str
    sites: list[str]
    metric: str
    method: Method
    prompts: list[str] = field(repr=False)
    words: list[list[str]] = field(repr=False)
    activations: list[Codes] = field(repr=False)
    features: list[Codes] = field(repr=False)
    errors: list[Float[Tensor, "prompt pos"]] = field(repr=False)
    clean: Float[Tensor, "prompt"] = field(repr=False)
    baselines: Float[Tensor, "site prompt"] | None = field(default=None, repr=False)

    @property
    def totals(self) -> Float[Tensor, "site prompt"]:
        """What all features and errors of each dictionary stand for."""
        found = []
        for codes, error in zip(self.features, self.errors, strict=True):
            rows = codes.tokens // codes.shape[1]
            found.append(error.double().sum(dim=1).index_add(0, rows, codes.values.double()))
        return torch.stack(found)

    @property
    def gaps(self) -> Float[Tensor, "site prompt"] | None:
        """What the totals miss of the metric's change without the dictionary; None where that was not run."""
        return None if self.baselines is None else self.totals - (self.clean - self.baselines).double()

    def frame(self) -> pd.DataFrame:
        """One row a feature and token, and one for the error of each token, whose `feature` is missing."""
        parts = []
        for site, codes, found, error in zip(self.sites, self.activations, self.features, self.errors, strict=True):
            one = found.frame().rename(columns={"batch": "prompt", "value": "attribution"})
            one["activation"] = codes.values.float().numpy()
            prompt, pos = self._real(error).nonzero(as_tuple=True)
            rest = pd.DataFrame(
                {"prompt": prompt.numpy(), "pos": pos.numpy(), "attribution": error[prompt, pos].float().numpy()}
            )
            both = pd.concat([one.assign(part="feature"), rest.assign(part="error")], ignore_index=True)
            parts.append(both.assign(site=site))
        whole = pd.concat(parts, ignore_index=True).astype({"feature": "Int64"})
        whole["token"] = [self._word(row, pos) for row, pos in zip(whole["prompt"], whole["pos"], strict=True)]
        columns = ["site", "part", "prompt", "pos", "token", "feature", "activation", "attribution"]
        return whole.loc[:, columns]

    def _real(self, error: Tensor) -> Tensor:
        if not self.words:
            return torch.ones_like(error, dtype=torch.bool)
        length = torch.tensor([len(words) for words in self.words])
        return torch.arange(error.shape[1]) < length[:, None]

    def _word(self, row: int, pos: int) -> str:
        return self.words[row][pos] if self.words else ""

    def summary(self) -> pd.DataFrame:
        """Features and errors, summed over tokens and averaged over prompts, the largest first."""
        whole = self.frame()
        grouped = whole.groupby(["site", "part", "feature"], dropna=False, sort=False)
        made = grouped.agg(attribution=("attribution", "sum"), tokens=("attribution", "size")).reset_index()
        made["attribution"] /= len(self.prompts)
        order = np.argsort(-made["attribution"].abs().to_numpy(), kind="stable")
        return made.iloc[order].reset_index(drop=True)

    def figure(self) -> go.Figure:
        """Bars of the features and errors that stand for most, the largest on top."""
        top = self.summary().head(SHOWN)[::-1]
        names = [
            f"{site} · {'error' if part == 'error' else feature}"
            for site, part, feature in zip(top["site"], top["part"], top["feature"], strict=True)
        ]
        values = top["attribution"].tolist()
        bars = go.Bar(
            x=values, y=names, orientation="h", marker={"color": [DIVERGING[-1 if v > 0 else 0][1] for v in values]},
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )  # fmt: skip
        title = (
            f"{_title(self.method)} · {caption(self.model_name)} · {caption(self.metric)} · mean of {len(self.prompts)}"
        )
        return drawn(bars, title, height=max(240, 120 + 20 * len(names)), xaxis={"title": {"text": "attribution"}})

    def __repr__(self) -> str:
        return (
            f"FeatureAttributions({type(self.method).__name__} at {', '.join(self.sites[:3])} of {self.model_name} on {self.metric}, "
            f"{len(self.prompts)} prompts)"
        )


def _title(method: Method) -> str:
    return "Gradient × activation" if isinstance(method, GradientTimesActivation) else "Integrated gradients"


def attribute_features(
    model: Model, dictionaries: Dictionary | Sequence[Dictionary] | CrossLayerTranscoder, prompts: Any, metric: Any,
    method: Method = GradientTimesActivation(), *, where: Where = Where(), batch_size: int = 8, progress: bool = True,
) -> FeatureAttributions:  # fmt: skip
    """What of a metric each feature of dictionaries stands for, token by token, and what the dictionaries miss.

    Args:
        model: The network; what is attached, and open blocks, are in force.
        dictionaries: One, or one a site, or a cross-layer transcoder. Several are not summed: what one stands for passes through the later
            ones too.
        prompts: A text, a chat, ids, or a list of them.
        metric: As in `sweep`: `logit_difference`, `token_probability`, a Direction, or a function of the last logits [batch, 1, vocab].
        method: `GradientTimesActivation()` or `IntegratedGradients(steps)`.
        where: Tokens that count; the network has its own values at the others.
        batch_size: Rows of a forward at most.
        progress: Whether to show a bar, where it takes longer than a second.
    Raises:
        MetricError: The metric has no gradient, or the method is no method, or none for a cross-layer transcoder.
        DictionaryError: It is a crosscoder, whose features are known too late.
    Reference: arXiv:2403.19647, arXiv:1703.01365
    """
    if not isinstance(method, (GradientTimesActivation, IntegratedGradients)):
        raise MetricError(
            f"a method is iv.GradientTimesActivation() or iv.IntegratedGradients(steps=10), not {method!r}"
        )
    if torch.is_inference_mode_enabled():
        raise MetricError("inside torch.inference_mode() there are no gradients; leave the block")
    given, is_layered = Prompts.of(model, prompts), isinstance(dictionaries, CrossLayerTranscoder)
    if is_layered and isinstance(method, IntegratedGradients):
        raise MetricError(
            "integrated gradients take one dictionary's features out at a time, and what a layer of a cross-layer transcoder writes lies in "
            "the outputs of several; use iv.GradientTimesActivation()"
        )
    found = dictionaries if isinstance(dictionaries, CrossLayerTranscoder) else listed(dictionaries)
    sites = list(found.sites_out) if isinstance(found, CrossLayerTranscoder) else [one.site_out for one in found]
    job = Job(given, Measure.of(model, metric, len(given)), found, where)
    size = len(given) if job.measure.needs_all else max(1, batch_size)
    ledger = _Ledger(len(sites), given)
    with bar(len(given), "attributing", "prompt", delay_s=1.0, is_shown=progress) as step:
        for rows in _batches(len(given), size):
            ledger.take(rows, *method.attribute(job, rows))
            step(len(rows))
    words = [given.words(row) for row in range(len(given))] if given.has_tokens else []
    return FeatureAttributions(
        model.name, sites, job.measure.label, method, [given.said(row) for row in range(len(given))],
        words, *ledger.joined(), clean=torch.cat(ledger.clean), baselines=ledger.baselines(),
    )  # fmt: skip


def _batches(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))


class _Ledger:
    """Parts of dictionaries as they come in, batch by batch; kept sparse."""

    def __init__(self, count: int, prompts: Prompts) -> None:
        self.parts: list[list[tuple[list[int], "_Sparse"]]] = [[] for _ in range(count)]
        self.clean: list[Tensor] = []
        self.prompts = prompts

    def take(self, rows: list[int], clean: Tensor, parts: list[Part]) -> None:
        """Keep what some rows gave; what is active nowhere stands for nothing."""
        self.clean.append(clean.cpu())
        for kept, part in zip(self.parts, parts, strict=True):
            codes = Codes.from_dense(part.codes.cpu())
            place = torch.unravel_index(codes.tokens, codes.shape)
            values = part.features.cpu()[*place, codes.features]
            base = None if part.baseline is None else part.baseline.cpu()
            kept.append((rows, _Sparse(codes, values, part.error.cpu(), base)))

    def joined(self) -> tuple[list[Codes], list[Codes], list[Tensor]]:
        """Activations, attributions and errors of each dictionary over [prompt, pos]."""
        made = [self._joined(parts) for parts in self.parts]
        return [one[0] for one in made], [one[1] for one in made], [one[2] for one in made]

    def _joined(self, parts: list[tuple[list[int], "_Sparse"]]) -> tuple[Codes, Codes, Tensor]:
        width = max(one.error.shape[1] for _, one in parts)
        shape = (len(self.prompts), width)
        tokens = [rows[0] * width + _moved(one.codes, width) for rows, one in parts]
        features = torch.cat([one.codes.features for _, one in parts])
        codes = Codes(
            torch.cat(tokens), features, torch.cat([one.codes.values for _, one in parts]), shape, parts[0][1].codes.n_features
        )  # fmt: skip
        errors = [torch.nn.functional.pad(one.error, (0, width - one.error.shape[1])) for _, one in parts]
        return codes, codes.with_values(torch.cat([one.values for _, one in parts])), torch.cat(errors)

    def baselines(self) -> Tensor | None:
        """The metric without each dictionary, shape [site, prompt]."""
        if any(one.baseline is None for parts in self.parts for _, one in parts):
            return None
        return torch.stack([torch.cat([one.baseline for _, one in parts]) for parts in self.parts])  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class _Sparse:
    """A part without its zeros."""

    codes: Codes
    values: Tensor
    error: Tensor
    baseline: Tensor | None


def _moved(codes: Codes, width: int) -> Tensor:
    """Flat places of codes among rows of another width."""
    own = codes.shape[1]
    return codes.tokens // own * width + codes.tokens % own
