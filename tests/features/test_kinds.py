"""Dictionaries of every architecture and normalisation, in place and from one site to another: what is told of a feature, by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from tests.features import made
from tests.networks import WIDTH, blocks

N = 40
FACTOR = 0.37
KINDS = ("relu", "jump", "topk", "batch_topk", "matryoshka", "matryoshka of shares", "gated")
NORMS = {
    "none": iv.Normalisation(), "constant": iv.Normalisation("constant", factor=FACTOR), "layer norm": iv.Normalisation("layer_norm"),
    "unit norm": iv.Normalisation("unit_norm"), "layer norm that stays": iv.Normalisation("layer_norm", is_undone=False),
}  # fmt: skip
CASES = [(kind, "none", True) for kind in KINDS]
CASES += [(kind, norm, side) for side, kind in ((True, "jump"), (False, "topk")) for norm in NORMS if norm != "none"]
PLACES = {"in place": ("blocks.1.resid", ""), "transcoder": ("blocks.1.mlp.in", "blocks.1.mlp.out")}


class ByHand:
    """A dictionary's weights, and its codes in float64 by plain arithmetic."""

    def __init__(self, kind: str, norm: str, subtracts: bool, place: str) -> None:
        g = torch.Generator().manual_seed(0)
        self.kind, self.norm, self.subtracts = kind, norm, subtracts
        self.encoder, self.decoder = torch.randn(N, WIDTH, generator=g) / 4, torch.randn(N, WIDTH, generator=g)
        self.encoder_bias, self.bias = torch.randn(N, generator=g) * 0.1, torch.randn(WIDTH, generator=g) * 0.3
        self.threshold = torch.rand(N, generator=g)
        self.gate = [torch.randn(N, generator=g) * 0.2 for _ in range(3)]
        site, site_out = PLACES[place]
        extras = {"threshold": self.threshold} if kind in ("jump", "batch_topk") or "matry" in kind else {}
        if kind == "gated":
            extras = dict(zip(("gate_bias", "log_magnitude", "magnitude_bias"), self.gate, strict=True))
        architecture = {
            "relu": iv.ReLU(), "jump": iv.JumpReLU(), "topk": iv.TopK(5), "batch_topk": iv.BatchTopK(5),
            "matryoshka": iv.Matryoshka(5, prefixes=(8, 16)), "matryoshka of shares": iv.Matryoshka(5), "gated": iv.Gated(),
        }[kind]  # fmt: skip
        skip = torch.randn(WIDTH, WIDTH, generator=g) * 0.1 if site_out else None
        bias = torch.zeros(N) if kind == "gated" else self.encoder_bias
        weights = iv.Weights(self.encoder, bias, self.decoder, self.bias, skip, extras)
        self.own = iv.Dictionary(
            weights, architecture, iv.Manifest(subtracts, NORMS[norm], site=site, site_out=site_out)
        )

    def codes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every feature at every token, and what one unit of a decoder's row is worth at each."""
        scale = np.ones((len(x), 1))
        if self.norm == "constant":
            x, scale = x * FACTOR, scale / FACTOR
        elif self.norm.startswith("layer norm"):
            x = x - x.mean(axis=1, keepdims=True)
            spread = x.std(axis=1, ddof=1, keepdims=True) + 1e-5
            x, scale = x / spread, scale if "stays" in self.norm else spread
        elif self.norm == "unit norm":
            scale = (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5) / WIDTH**0.5
            x = x / scale
        x = x - self.bias.double().numpy() if self.subtracts else x
        product = x @ self.encoder.double().numpy().T
        if self.kind == "gated":
            gate, log_size, bias = (one.double().numpy() for one in self.gate)
            return np.where(product + gate > 0, np.maximum(product * np.exp(log_size) + bias, 0), 0), scale
        pre = product + self.encoder_bias.double().numpy()
        if self.kind == "topk":
            return np.where(pre >= np.sort(pre, axis=1)[:, -5, None], np.maximum(pre, 0), 0), scale
        least = 0.0 if self.kind == "relu" else self.threshold.double().numpy()
        return np.where(pre > least, pre, 0), scale


def reads(model: iv.Model, place: str, row: list[int]) -> np.ndarray:
    """What the dictionary reads of a row, by a plain hook."""
    block, kept = blocks(model.module)[1], []
    if place == "in place":
        return made.hooked(model, row, block).double().numpy()
    handle = block.mlp.register_forward_pre_hook(lambda _m, given: kept.append(given[0][0]))
    with torch.no_grad():
        model.module(torch.tensor([row]))
    handle.remove()
    return kept[0].double().numpy()


def losses(model: iv.Model, place: str, row: list[int], less: np.ndarray | None) -> np.ndarray:
    """Each next token's loss, with something taken from what the dictionary writes."""
    block = blocks(model.module)[1]

    def hook(_m: nn.Module, _i: object, out: object) -> object:
        x: Tensor = out[0] if isinstance(out, tuple) else out  # type: ignore[assignment]
        new = x if less is None else x - torch.tensor(less).to(x)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = (block if place == "in place" else block.mlp).register_forward_hook(hook)
    with torch.no_grad():
        logits = model.module(torch.tensor([row])).logits[0, :-1]
    handle.remove()
    return nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none").double().numpy()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "norm", "subtracts"), CASES)
def test_what_is_told_of_a_feature_is_what_plain_arithmetic_gives(
    kind: str, norm: str, subtracts: bool, place: str
) -> None:
    model, rows = made.opened("gpt2"), made.corpus()[:12]
    hand = ByHand(kind, norm, subtracts, place)
    dash = iv.dashboard(hand.own, model, rows)
    whole = np.concatenate([hand.codes(reads(model, place, row))[0][1:] for row in rows])
    found = dash.statistics
    np.testing.assert_array_equal(found.spread.count.numpy(), (whole > 0).sum(axis=0))
    np.testing.assert_allclose(found.spread.total.numpy(), whole.sum(axis=0), rtol=1e-4, atol=1e-4)
    feature = int(found.spread.count.argsort(descending=True)[2])
    example = next(
        one
        for part in dash.effects(feature, 1).stretches
        for one in part.examples
        if one.effects is not None and len(one.ids) > 5
    )
    row = rows[example.text]
    codes, worth = hand.codes(reads(model, place, row))
    told = iv.feature_on_text(model, hand.own, feature, row)
    np.testing.assert_allclose(told.values[1:], codes[1:, feature], rtol=1e-3, atol=1e-4)
    less = worth * codes[:, feature, None] * hand.decoder[feature].double().numpy()
    less[0] = 0
    wanted = losses(model, place, row, less) - losses(model, place, row, None)
    wanted = np.append(wanted, np.nan)[example.start : example.start + len(example.ids)]
    np.testing.assert_allclose(example.effects, wanted, rtol=5e-3, atol=2e-3)
    assert np.nanmax(np.abs(wanted)) > 0.01
