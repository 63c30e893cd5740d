"""Matryoshka: BatchTopK's codes, and a loss that every prefix pays, against the paper's formula in float64."""

import dataclasses

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.architectures import Architecture, Step
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from tests.dictionaries.test_losses import FEATURES, ROWS, WIDTH, a_step, check, pre_of

SIZES = (3, 10)


@pytest.mark.parametrize("dead", [0, 4])
@pytest.mark.parametrize("skip", [False, True])
def test_every_prefix_pays_for_its_own_reconstruction(dead: int, skip: bool) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        pre = pre_of(w, x)
        kept = torch.zeros(pre.numel(), dtype=pre.dtype).scatter(0, pre.flatten().topk(4 * ROWS).indices, 1.0)
        codes = torch.relu(pre * kept.view_as(pre))
        parts = {}
        for size in (*SIZES, FEATURES):
            made = codes[:, :size] @ w["decoder"][:size] + w["decoder_bias"] + (x @ w["skip"].T if "skip" in w else 0)
            name = "reconstruction" if size == FEATURES else f"reconstruction by {size}"
            parts[name] = ((made - target) ** 2).sum(1).mean()
        if dead:
            by_dead = torch.relu(pre[:, :dead]) @ w["decoder"][:dead]
            parts["auxiliary"] = ((by_dead - (target - made).detach()) ** 2).sum(1).mean() / 32
        return parts

    check(iv.Matryoshka(4, prefixes=SIZES), formula, a_step(dead=dead), skip=skip)


def test_a_prefix_without_active_features_pays_for_the_bias_alone() -> None:
    architecture = iv.Matryoshka(1, prefixes=(1,), auxiliary_weight=0.0)
    weights = Weights(
        torch.eye(4, 5), torch.tensor([-50.0, 0, 0, 0]), torch.eye(4, 5), torch.ones(5), None, {"threshold": torch.zeros(4)}
    )  # fmt: skip
    x = torch.rand(6, 5)
    step = Step(0, 10, torch.zeros(4, dtype=torch.int64), 0, 10)
    parts = architecture.losses(weights, x, x, step).parts
    torch.testing.assert_close(parts["reconstruction by 1"], (x - 1).square().sum(-1).mean())


def test_codes_are_those_of_batch_top_k_with_the_same_threshold() -> None:
    torch.manual_seed(0)
    weights = Weights(
        torch.randn(64, 8), torch.randn(64), torch.randn(64, 8), torch.randn(8), None, {"threshold": torch.full((64,), 1.5)}
    )  # fmt: skip
    manifest = Manifest(True, Normalisation(), site="blocks.0.resid")
    nested = iv.Dictionary(weights, iv.Matryoshka(4), manifest)
    plain = dataclasses.replace(nested, architecture=iv.BatchTopK(4))
    x = torch.randn(40, 8)
    assert torch.equal(nested.encode(x).dense(), plain.encode(x).dense())
    assert nested.reading(5).threshold == 1.5


def test_prefixes_are_sizes_or_shares_and_grow() -> None:
    assert iv.Matryoshka(prefixes=(2, 0.5)).sizes(16) == (2, 8, 16)
    assert iv.Matryoshka(prefixes=(2, 16)).sizes(16) == (2, 16)
    assert iv.Matryoshka().sizes(1024) == (32, 96, 224, 480, 1024)
    with pytest.raises(iv.DictionaryError, match=r"up to the 16 features, and these are \[8, 4, 16\]"):
        iv.Matryoshka(prefixes=(8, 4)).sizes(16)
    with pytest.raises(iv.DictionaryError, match=r"a share of them below 1, not 1\.5"):
        iv.Matryoshka(prefixes=(1.5,))


@pytest.mark.parametrize("architecture", [iv.Matryoshka(4, prefixes=SIZES), iv.GroupMax(1), iv.MatchingPursuit(4)])
def test_decoder_rows_keep_their_length(architecture: Architecture) -> None:
    weights = Weights(*(torch.randn(*s) for s in ((FEATURES, WIDTH), (FEATURES,), (FEATURES, WIDTH), (WIDTH,))))
    architecture.constrain(weights)
    torch.testing.assert_close(weights.decoder.norm(dim=1), torch.ones(FEATURES))
