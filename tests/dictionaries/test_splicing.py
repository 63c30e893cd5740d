"""Spliced in, a dictionary's reconstruction and error are nodes of the forward, and the forward is what it was."""

from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import DictionaryError, EditError
from tests.dictionaries.made import WIDTH, codes_of, decoded, dictionary
from tests.networks import blocks, hook_ids, ids, opened, padded, ragged

SITE = "blocks.1.resid"


def run(model: iv.Model, x: Tensor, **options: Any) -> Tensor:
    return model.module(x, **options).logits


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("architecture", "normalisation"), [("jump_relu", "none"), ("top_k", "layer_norm"), ("gated", "constant")])  # fmt: skip
@pytest.mark.parametrize("has_gradients", [False, True])
def test_with_its_error_the_forward_is_what_it_was(
    family: str, architecture: str, normalisation: str, has_gradients: bool
) -> None:
    model, own, x = opened(family), dictionary(architecture, normalisation), ids(2, 6)
    hooks = hook_ids(model.module)
    with torch.set_grad_enabled(has_gradients):
        plain = run(model, x)
        with iv.spliced(model, own) as splice:
            found = run(model, x)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert has_gradients or torch.equal(found, plain)
    assert hook_ids(model.module) == hooks and torch.equal(run(model, x), plain)
    acts = iv.capture(model, x, SITE)[SITE].flatten(0, 1)
    expected = codes_of(own, acts)
    torch.testing.assert_close(splice.codes.flatten(0, 1).double(), expected, atol=1e-5, rtol=1e-5)
    error = acts.double() - decoded(own, expected, acts)
    torch.testing.assert_close(splice.error.flatten(0, 1).double(), error, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("has_gradients", [False, True])
def test_without_its_error_the_network_sees_the_reconstruction_alone(has_gradients: bool) -> None:
    model, own, x = opened("llama"), dictionary("top_k"), ids(2, 6)

    def replaced(m: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        new = (
            decoded(own, codes_of(own, hidden.flatten(0, 1)), hidden.flatten(0, 1)).to(hidden.dtype).view(hidden.shape)
        )
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = blocks(model.module)[1].register_forward_hook(replaced)
    with torch.no_grad():
        expected = run(model, x)
    handle.remove()
    with torch.set_grad_enabled(has_gradients), iv.spliced(model, own, error=False) as splice:
        found = run(model, x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert splice.error is None


def test_gradients_are_those_of_codes_and_error_each_as_it_stands() -> None:
    model, own, x = opened("llama"), dictionary("jump_relu", "constant"), ids(2, 5)
    taken: list[Tensor] = []

    def watched(m: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        taken.append(hidden.detach().requires_grad_())
        return (taken[0], *output[1:]) if isinstance(output, tuple) else taken[0]

    handle = blocks(model.module)[1].register_forward_hook(watched)
    logits = run(model, x)
    handle.remove()
    (at_site,) = torch.autograd.grad(logits[:, -1, 5].sum(), taken)
    with iv.spliced(model, own) as splice:
        number = run(model, x)[:, -1, 5].sum()
        found = splice.gradients(number, retain_graph=True)
        again = splice.gradients(number, retain_graph=True)
        number.backward()
    assert torch.equal(found.codes, again.codes)
    torch.testing.assert_close(found.error, at_site, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.codes, at_site @ own.weights.decoder.T / 0.37, atol=1e-5, rtol=1e-4)
    # A backward of the user's own leaves the same.
    torch.testing.assert_close(splice.codes.grad, found.codes)
    torch.testing.assert_close(splice.error.grad, found.error)


def test_gradients_upstream_are_the_networks_own_unless_the_error_is_cut() -> None:
    model, own, x = opened("gpt2"), dictionary("relu"), ids(1, 4)
    weight = model.module.get_parameter("transformer.h.0.mlp.c_fc.weight")

    def gradient(**options: Any) -> Tensor:
        with iv.spliced(model, own, **options):
            return torch.autograd.grad(run(model, x)[0, -1, 3], weight)[0]

    (plain,) = torch.autograd.grad(run(model, x)[0, -1, 3], weight)
    torch.testing.assert_close(gradient(), plain, atol=1e-5, rtol=1e-3)
    assert not torch.allclose(gradient(through_error=False), plain, atol=1e-4)


def test_several_dictionaries_and_transcoders_are_spliced_in_at_once() -> None:
    model, x = opened("llama"), ids(2, 5)
    resid = dictionary("jump_relu", site="blocks.0.resid", seed=1)
    across = dictionary("relu", skip=True, site="blocks.1.mlp.in", site_out="blocks.1.mlp.out", seed=2)
    late = dictionary("top_k", "layer_norm", site="blocks.2.resid", seed=3)
    plain = run(model, x)
    with iv.spliced(model, [resid, across, late]) as splice:
        number = run(model, x)
        torch.testing.assert_close(number, plain, atol=1e-5, rtol=1e-5)
        found = splice.gradients(number[:, -1].logsumexp(dim=-1).sum())
    acts = iv.capture(model, x, ["blocks.1.mlp.in", "blocks.1.mlp.out"])
    codes = codes_of(across, acts["blocks.1.mlp.in"].flatten(0, 1))
    torch.testing.assert_close(splice.codes[1].flatten(0, 1).double(), codes, atol=1e-5, rtol=1e-5)
    missed = acts["blocks.1.mlp.out"].flatten(0, 1) - decoded(across, codes, acts["blocks.1.mlp.in"].flatten(0, 1))
    torch.testing.assert_close(splice.error[1].flatten(0, 1).double(), missed, atol=1e-5, rtol=1e-5)
    assert [one.codes.abs().sum() > 0 for one in found] == [True] * 3
    # Against one spliced in alone: what comes later changes nothing, and its gradient is the total one.
    with iv.spliced(model, resid) as alone:
        (only,) = [alone.gradients(run(model, x)[:, -1].logsumexp(dim=-1).sum())]
    torch.testing.assert_close(found[0].codes, only.codes, atol=1e-5, rtol=1e-3)


def test_pads_and_tokens_that_are_not_meant_have_no_nodes() -> None:
    model, own = opened("llama"), dictionary("relu")
    given, mask = padded(ragged((3, 5)), left=True)
    with iv.spliced(model, own) as splice:
        found = splice.gradients(run(model, given, attention_mask=mask)[:, -1, 4].sum())
    pads = mask == 0
    for tensor in (splice.codes, splice.error, found.codes, found.error):
        assert not tensor[pads].any() and tensor[~pads].any()
    with torch.no_grad(), iv.spliced(model, own, error=False, where=iv.Where(positions=(1, 2))) as splice:
        model.module(given, attention_mask=mask)
    assert not splice.codes[0, :3].any() and splice.codes[0, 3:].any() and not splice.codes[1, 0].any()


def test_generation_inside_the_block_passes_through_the_dictionary() -> None:
    model, own = opened("llama"), dictionary("jump_relu")
    plain = iv.generate(model, "w1 w2 w3", max_new_tokens=4).text
    with iv.spliced(model, own):
        assert iv.generate(model, "w1 w2 w3", max_new_tokens=4).text == plain
    with iv.spliced(model, own, error=False):
        assert iv.generate(model, "w1 w2 w3", max_new_tokens=4).text != plain


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_leaving_by_any_door_takes_everything_off(error: type[BaseException]) -> None:
    model, own, x = opened("gpt2"), dictionary(), ids(1, 4)
    hooks, plain = hook_ids(model.module), run(model, x)

    def leave() -> None:
        with iv.spliced(model, own, error=False):
            assert not torch.equal(run(model, x), plain)
            raise error

    with pytest.raises(error):
        leave()
    assert hook_ids(model.module) == hooks and torch.equal(run(model, x), plain)


def test_what_cannot_be_spliced_in_is_refused() -> None:
    model, own, x = opened("llama"), dictionary(), ids(1, 4)
    with (
        pytest.raises(DictionaryError, match=r"two dictionaries write 'blocks.1.resid'"),
        iv.spliced(model, [own, own]),
    ):
        pass
    for wrong in ([], "sae", [model]):
        with pytest.raises(DictionaryError, match="is a Dictionary or a list"), iv.spliced(model, wrong):  # type: ignore[arg-type]
            pass
    with pytest.raises(EditError, match="does not fit"), iv.spliced(model, dictionary(d_in=WIDTH - 1)):
        pass
    with pytest.raises(DictionaryError, match="drop it"), iv.spliced(model, own, where=iv.Where(schedule=iv.Ramp(3))):
        pass
    with iv.spliced(model, own) as splice:
        with pytest.raises(DictionaryError, match=r"no forward has passed 'blocks.1.resid' yet"):
            _ = splice.codes
        with torch.no_grad():
            number = run(model, x).sum()
        with pytest.raises(DictionaryError, match="does not hang on this forward"):
            splice.gradients(number)
