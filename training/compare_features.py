"""Steers with one feature of semi-NMF, of TopK and with the difference of means, at equal cost: python -m training.compare_features

All three lie in the neurons of one layer, are found on the same sentences, and are pushed until their mean cost is equal; the effect is
then compared prompt by prompt. Prints the tables and writes them to training/FEATURES.md.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import torch
from torch import Tensor

import innerview as iv

RESULTS = Path(__file__).parent / "FEATURES.md"
TITLE = "# Steering with a feature: semi-NMF, TopK and the difference of means"
ABOUT = (
    "Neurons of the layer, the same sentences for all. Of each dictionary the five features are tried whose activation at the last token differs "
    "most between the classes, in their own standard deviations, and the one is taken that has the largest effect at the largest cost; all on "
    "sentences to fit on. The difference of means has one direction, so that nothing is chosen there. The effect is the change of log p(words of the class) − "
    "log p(words of the other), on prompts held out; the cost the mean KL(edited ‖ plain) over a prompt's tokens. Strengths are chosen so that "
    "the mean cost is the same; what is beaten is beaten where the paired 95 % interval excludes zero."
)
TRIED = 5
# In steps of each direction's own; the cost grows about with their square.
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True)
class Comparing:
    """What is compared, and on how much.

    Attributes:
        model: The network.
        concept: A concept of the world whose values have words that follow.
        values: The class that is steered to, and the one it is steered from.
        layer: Whose neurons.
        n_features: Features of each dictionary.
        pairs: Pairs of sentences to fit on, and as many held out.
        costs: Mean costs at which effects are compared, in nats.
        seed: Of sentences and dictionaries.
        lexicon: The world's words; the bundled ones when None.
    """

    model: str = "pocket"
    concept: str = "mood"
    values: tuple[str, str] = ("good", "bad")
    layer: int = 4
    n_features: int = 200
    pairs: int = 150
    costs: tuple[float, ...] = (0.05, 0.2, 0.5)
    seed: int = 0
    lexicon: Path | None = None


@dataclass(frozen=True, eq=False)
class Material:
    """Prompts of both classes, and the ids of the words that follow each."""

    positive: list[str]
    negative: list[str]
    words: tuple[list[int], list[int]]


def material(told: Comparing, model: iv.Model, split: str) -> Material:
    """Sentences up to where the class shows in a word, and the first tokens of the words of each class."""
    found = iv.pocket.sentences(
        told.concept, split, told.seed, pairs=told.pairs, values=told.values, lexicon=told.lexicon  # type: ignore[arg-type]
    )  # fmt: skip
    by_value = {value: [one.sentence for one in found if one.value == value] for value in told.values}
    first = [
        {model.tokenizer(" " + word, add_special_tokens=False)["input_ids"][0] for s in by_value[value] for word in s.answers}
        for value in told.values
    ]  # fmt: skip
    ids = (sorted(first[0] - first[1]), sorted(first[1] - first[0]))
    prompts = [[sentence.prompt.rstrip(" ") for sentence in by_value[value]] for value in told.values]
    return Material(prompts[0], prompts[1], ids)


def candidates(told: Comparing, model: iv.Model) -> dict[str, list[iv.Direction]]:
    """Directions of each kind, found on the sentences to fit on."""
    site, given = f"blocks.{told.layer}.mlp.hidden", material(told, model, "train")
    acts = iv.capture(model, given.positive + given.negative, site, progress=False)
    assert acts.mask is not None
    tokens = acts[site][acts.mask].float()
    last = acts.mask.sum(dim=1) - 1
    at = acts[site][torch.arange(len(last)), last].float()
    is_positive = torch.arange(len(at)) < len(given.positive)
    top = iv.train_dictionary(
        {site: tokens}, site, iv.TopK(8), n_features=told.n_features, n_tokens=20 * len(tokens), batch_tokens=256, seed=told.seed,
        optimization=iv.Optimization(2e-3), progress=False,
    ).dictionary  # fmt: skip
    semi = iv.fit_semi_nmf(tokens, told.n_features, site=site, share=0.05, seed=told.seed)
    made = {"difference of means": [iv.contrast(model, given.positive, given.negative, site=site)]}
    for name, sae in (("semi-NMF", semi.at(site)), ("TopK", top)):
        made[name] = _telling(sae.measured(tokens), at, is_positive)
    return made


def _telling(sae: iv.Dictionary, at: Tensor, is_positive: Tensor) -> list[iv.Direction]:
    """Directions of the features that are clearly more active for one class, pointing to the class that is steered to."""
    codes = sae.encode(at).dense().float()
    gap = (codes[is_positive].mean(0) - codes[~is_positive].mean(0)) / codes.std(0).clamp(min=1e-9)
    order = gap.abs().argsort(descending=True)[:TRIED].tolist()
    return [sae.direction(one) if gap[one] > 0 else -sae.direction(one) for one in order]


def at_cost(swept: iv.Sweep, cost: float) -> Tensor | None:
    """Effect on each prompt at the strength whose mean cost is the one asked, between the two nearest strengths; None past the last."""
    assert swept.cost is not None
    means = swept.cost.mean(dim=1)
    above = next((i for i in range(1, len(means)) if means[i] >= cost), None)
    if above is None:
        return None
    low, high = float(means[above - 1]), float(means[above])
    # The cost of a small push grows with its square, so that its root is what lies between.
    part = (math.sqrt(cost) - math.sqrt(max(low, 0.0))) / max(math.sqrt(high) - math.sqrt(max(low, 0.0)), 1e-12)
    return swept.effect[above - 1] + part * (swept.effect[above] - swept.effect[above - 1])


def interval(difference: Tensor) -> tuple[float, float]:
    """The mean of paired differences and half of its 95 % interval; n is large enough for the normal's 1.96."""
    values = difference.tolist()
    return mean(values), 1.96 * stdev(values) / len(values) ** 0.5


def compared(told: Comparing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effects of each direction at each cost, and the paired differences of semi-NMF from the others."""
    model = iv.open_model(told.model)
    fit, held = material(told, model, "train"), material(told, model, "held_out")
    up, down = (torch.tensor(ids) for ids in held.words)

    def metric(logits: Tensor) -> Tensor:
        logs = logits[:, -1].float().log_softmax(dim=-1)
        return logs[:, up].logsumexp(dim=-1) - logs[:, down].logsumexp(dim=-1)

    def swept(prompts: list[str], direction: iv.Direction) -> iv.Sweep:
        return iv.sweep(model, prompts, iv.Add(direction), STRENGTHS, metric=metric, progress=False)

    def gain(direction: iv.Direction) -> float:
        effect = at_cost(swept(fit.negative[: told.pairs // 3], direction), max(told.costs))
        return -math.inf if effect is None else float(effect.mean())

    found = {
        name: swept(held.negative, listed[0] if len(listed) == 1 else max(listed, key=gain))
        for name, listed in candidates(told, model).items()
    }
    effects, pairs = [], []
    for cost in told.costs:
        here = {name: at_cost(swept, cost) for name, swept in found.items()}
        for name, effect in here.items():
            told_of = (float("nan"), float("nan")) if effect is None else interval(effect)
            effects.append((cost, name, *told_of, 0 if effect is None else len(effect)))
        for name, effect in here.items():
            own = here["semi-NMF"]
            if name != "semi-NMF" and own is not None and effect is not None:
                gap, half = interval(own - effect)
                pairs.append((cost, f"semi-NMF − {name}", gap, gap - half, gap + half, len(own)))
    return (
        pd.DataFrame(effects, columns=["cost (nats)", "direction", "effect (nats)", "± 95 %", "prompts"]),
        pd.DataFrame(pairs, columns=["cost (nats)", "difference", "mean", "low", "high", "prompts"]),
    )


def main() -> None:
    """Compare, print, and write down."""
    given = argparse.ArgumentParser(description=__doc__)
    for name, kind in (
        ("model", str),
        ("concept", str),
        ("layer", int),
        ("n-features", int),
        ("pairs", int),
        ("seed", int),
    ):
        given.add_argument(f"--{name}", type=kind, default=getattr(Comparing, name.replace("-", "_")))
    given.add_argument("--values", nargs=2, default=Comparing.values)
    given.add_argument("--lexicon", type=Path, default=None)
    asked = vars(given.parse_args())
    told = Comparing(**{**asked, "values": tuple(asked["values"])})
    tables = [one.round(3).to_string(index=False) for one in compared(told)]
    said = f"`{told.model}`, {told.concept} ({' from '.join(told.values)}), neurons of layer {told.layer}, {told.n_features} features, seed {told.seed}."
    body = "\n\n".join([TITLE, ABOUT, said, *(f"```\n{table}\n```" for table in tables)])
    print(body)
    RESULTS.write_text(body + "\n")


if __name__ == "__main__":
    main()
