"""Gradients at sites, against central differences in float64 through hooks made by hand, and against autograd of the whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import CaptureError
from tests.engine.oracle import hooked
from tests.networks import attention, blocks, direction, ids, opened, ragged

# Llama's norms compute in float32 whatever the weights are, so smaller steps drown there.
EPS = {"gpt2": 1e-6, "llama": 1e-2}
LIMIT = {"gpt2": 1e-6, "llama": 3e-3}


def logit_gap(logits: Tensor) -> Tensor:
    """A number a row: one logit against another at the last token."""
    return logits[:, -1, 5] - logits[:, -1, 9]


def loss(logits: Tensor, x: Tensor) -> Tensor:
    """Each row's mean next-token cross-entropy, summed over rows."""
    each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), x[:, 1:], reduction="none")
    return each.mean(1).sum()


def central(number: Callable[[Callable[[Tensor], Tensor]], float], at: tuple[int, ...], eps: float) -> float:
    """The derivative of a number by one entry of an activation, by central differences."""

    def moved(by: float) -> Callable[[Tensor], Tensor]:
        def change(h: Tensor) -> Tensor:
            h = h.clone()
            h[at] += by
            return h

        return change

    return (number(moved(eps)) - number(moved(-eps))) / (2 * eps)


@pytest.mark.parametrize("objective", ["loss", "gap"])
def test_gradients_equal_central_differences_in_float64(family: str, objective: str) -> None:
    model, x = opened(family, torch.float64), ids(2, 5)
    root = model.module

    def value(logits: Tensor) -> Tensor:
        return loss(logits, x) if objective == "loss" else logit_gap(logits).sum()

    acts = iv.capture(
        model, x, ["blocks.0.resid", "blocks.1.attn.out", "blocks.1.mlp.out"],
        gradients_of="loss" if objective == "loss" else logit_gap,
    )  # fmt: skip
    assert acts.gradients is not None
    parts = {
        "blocks.0.resid": blocks(root)[0], "blocks.1.attn.out": attention(blocks(root)[1]), "blocks.1.mlp.out": blocks(root)[1].mlp,
    }  # fmt: skip
    for site, part in parts.items():

        def number(change: Callable[[Tensor], Tensor], part: Any = part) -> float:
            with hooked(part, change), torch.no_grad():
                return float(value(root(x, use_cache=False).logits))

        for at in ((0, 0, 3), (0, 4, 1), (1, 2, 30), (1, 4, 17)):
            found = float(acts.gradients[site][at])
            assert abs(found - central(number, at, EPS[family])) < LIMIT[family] * (1 + abs(found)), (site, at)
    assert all(gradient.abs().sum() > 0 for gradient in acts.gradients.values())


def test_values_beside_gradients_are_those_of_a_plain_capture(model: iv.Model) -> None:
    x, sites = ids(2, 5), ["blocks.*.resid", "blocks.1.attn.heads", "blocks.1.attn.q", "blocks.1.resid_mid", "embed"]
    plain = iv.capture(model, x, sites)
    acts = iv.capture(model, x, sites, gradients_of="loss")
    assert acts.gradients is not None and list(acts.gradients) == list(acts)
    for site in acts:
        assert torch.allclose(acts[site], plain[site], atol=1e-5) and acts.gradients[site].shape == acts[site].shape
        assert not acts[site].requires_grad and not acts.gradients[site].requires_grad


def test_gradients_equal_autograd_through_the_stream(model: iv.Model) -> None:
    x, root = ids(2, 5), model.module
    seen: dict[str, Tensor] = {}

    def look(_: Any, args: tuple, out: Any) -> None:
        seen["h"] = out[0] if isinstance(out, tuple) else out
        seen["h"].retain_grad()

    handle = blocks(root)[1].register_forward_hook(look)
    logit_gap(root(x, use_cache=False).logits).sum().backward()
    handle.remove()
    wanted, _ = seen["h"].grad, root.zero_grad()
    acts = iv.capture(model, x, ["blocks.1.resid", "blocks.2.resid_in", "blocks.2.resid_mid"], gradients_of=logit_gap)
    assert wanted is not None and acts.gradients is not None
    assert torch.allclose(acts.gradients["blocks.1.resid"], wanted, atol=1e-5)
    assert torch.allclose(acts.gradients["blocks.2.resid_in"], wanted, atol=1e-5)
    assert all(p.grad is None for p in root.parameters())


def test_the_stream_between_attention_and_mlp_has_the_gradient_of_what_is_added_to_it(model: iv.Model) -> None:
    x, sites = ids(2, 5), ["blocks.1.attn.out", "blocks.1.resid_mid", "blocks.0.resid", "blocks.1.resid_in"]
    found = iv.capture(model, x, sites, gradients_of=logit_gap).gradients
    assert found is not None
    assert torch.allclose(found["blocks.1.resid_mid"], found["blocks.1.attn.out"], atol=1e-5)
    assert torch.allclose(found["blocks.0.resid"], found["blocks.1.resid_in"], atol=1e-5)
    with pytest.raises(
        CaptureError, match=r"no gradient at 'blocks.1.norm1.scale': .* ask at 'blocks.1.attn.in' instead"
    ):
        iv.capture(model, x, "blocks.1.norm1.scale", gradients_of=logit_gap)


def test_frozen_weights_have_gradients_at_sites_too(model: iv.Model) -> None:
    x = ids(1, 5)
    wanted = iv.capture(model, x, ["blocks.0.resid", "blocks.1.resid_mid"], gradients_of=logit_gap).gradients
    model.module.requires_grad_(False)
    found = iv.capture(model, x, ["blocks.0.resid", "blocks.1.resid_mid"], gradients_of=logit_gap).gradients
    assert wanted is not None and found is not None
    for site in wanted:
        assert torch.allclose(found[site], wanted[site], atol=1e-5) and found[site].abs().sum() > 0
    assert not any(p.requires_grad for p in model.module.parameters())
    with torch.no_grad():
        inside = iv.capture(model, x, "blocks.0.resid", gradients_of=logit_gap).gradients
    assert inside is not None and torch.equal(inside["blocks.0.resid"], found["blocks.0.resid"])


def test_a_row_has_the_same_gradient_alone_and_among_others(model: iv.Model) -> None:
    rows = ragged((3, 6, 4))
    whole = iv.capture(model, rows, "blocks.1.resid", gradients_of="loss")
    parts = iv.capture(model, rows, "blocks.1.resid", gradients_of="loss", batch_size=1)
    assert whole.gradients is not None and parts.gradients is not None and whole.mask is not None
    assert torch.allclose(whole.gradients["blocks.1.resid"], parts.gradients["blocks.1.resid"], atol=1e-5)
    assert not whole.gradients["blocks.1.resid"][~whole.mask].any()


def test_gradients_are_taken_through_edits_and_at_chosen_tokens(model: iv.Model) -> None:
    x, edits = ids(2, 5), [iv.ProjectOut(direction("blocks.1.resid"))]
    v = direction().vector
    after = iv.capture(model, x, "blocks.1.resid", edits=edits, gradients_of=logit_gap).gradients
    before = iv.capture(model, x, "blocks.1.resid", edits=edits, gradients_of=logit_gap, before_edits=True).gradients
    assert after is not None and before is not None
    # What is projected out cannot matter before the edit; behind it, it does.
    assert (before["blocks.1.resid"] @ v).abs().max() < 1e-5 < (after["blocks.1.resid"] @ v).abs().max()
    last = iv.capture(model, x, "blocks.1.resid", edits=edits, gradients_of=logit_gap, positions=-1).gradients
    assert last is not None and torch.equal(last["blocks.1.resid"][:, 0], after["blocks.1.resid"][:, -1])


def test_logits_of_pads_are_refused_and_masks_are_handed_over(model: iv.Model) -> None:
    rows = ragged((3, 6))
    with pytest.raises(CaptureError, match=r"gradients_of= has read logits of pads; take \(logits, mask\)"):
        iv.capture(model, rows, "blocks.1.resid", gradients_of=logit_gap)

    def at_last(logits: Tensor, mask: Tensor) -> Tensor:
        return logits[torch.arange(len(logits)), mask.sum(1) - 1, 5]

    acts = iv.capture(model, rows, "blocks.1.resid", gradients_of=at_last)
    alone = iv.capture(model, [rows[0]], "blocks.1.resid", gradients_of=lambda logits: logits[:, -1, 5])
    assert acts.gradients is not None and alone.gradients is not None
    assert torch.allclose(acts.gradients["blocks.1.resid"][:1, :3], alone.gradients["blocks.1.resid"], atol=1e-5)


def test_what_gives_no_gradient_is_refused(model: iv.Model) -> None:
    cases: list[tuple[dict, str]] = [
        ({"gradients_of": 3}, r"gradients_of= is 'loss' or something to call with the logits, not 3"),
        ({"gradients_of": lambda logits: 1.0}, r"made from the logits \[1, 4, 67\]; it gave float"),
        ({"gradients_of": lambda logits: logits}, r"it gave shape \[1, 4, 67\]"),
        ({"gradients_of": "loss", "reduce": "mean"}, r"gradients_of= and reduce= exclude one another"),
        ({"gradients_of": "loss", "grad": True}, r"gradients_of= and grad=True exclude one another"),
    ]
    for options, message in cases:
        with pytest.raises(CaptureError, match=message):
            iv.capture(model, ids(1, 4), "blocks.1.resid", **options)
    with pytest.raises(CaptureError, match=r"row 0 has one token, so nothing in it is predicted; give at least two"):
        iv.capture(model, [[5]], "blocks.1.resid", gradients_of="loss")
    with (
        torch.inference_mode(),
        pytest.raises(CaptureError, match=r"inside torch.inference_mode\(\) there are no gradients"),
    ):
        iv.capture(model, ids(1, 4), "blocks.1.resid", gradients_of="loss")
    assert torch.is_grad_enabled()
