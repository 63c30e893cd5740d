"""Clamped, scaled and ablated features equal encode, edit, decode and add the error, in float64; everywhere an edit goes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.readers import Encoded
from innerview.edits.set_features import Readings
from innerview.errors import DictionaryError, EditError, RecipeError, WidgetError
from innerview.widgets.edit_form import form_of
from tests.dictionaries.made import ARCHITECTURES, NORMALISATIONS, WIDTH, changed, dictionary
from tests.networks import blocks, ids, module, opened, padded, ragged

SITE = "blocks.1.resid"
CASES = [(a, n, b) for a in ARCHITECTURES for n in NORMALISATIONS for b in (False, True)]
NEW = {3: 2.5, 17: 0.0, 40: -1.0}


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def hooked(model: iv.Model, layer: int, change: Any) -> Any:
    """A plain hook behind a block, on the network itself."""

    def hook(m: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        new = change(hidden)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return blocks(model.module)[layer].register_forward_hook(hook)


@pytest.mark.parametrize(("architecture", "normalisation", "subtracts"), CASES)
def test_set_features_equal_encode_edit_decode_and_add_the_error(
    architecture: str, normalisation: str, subtracts: bool
) -> None:
    own, x = dictionary(architecture, normalisation, subtracts=subtracts, seed=7), tokens(6)
    for given in ({3: 2.5}, NEW):
        edit = own.clamp(list(given), list(given.values()))
        torch.testing.assert_close(edit.apply(x).double(), changed(own, x, x, given), atol=1e-5, rtol=1e-5)
        expected = changed(own, x, x, dict.fromkeys(given, 0.0))
        torch.testing.assert_close(own.ablate(list(given)).apply(x).double(), expected, atol=1e-5, rtol=1e-5)
        expected = changed(own, x, x, given, "scale")
        found = own.scale(list(given), list(given.values())).apply(x)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    is_plain = architecture != "top_k" and normalisation not in ("layer_norm", "unit_norm")
    assert isinstance(edit.reader, Readings if is_plain else Encoded)


@pytest.mark.parametrize("architecture", ["jump_relu", "top_k", "gated"])
@pytest.mark.parametrize("where", [None, iv.Where(positions=(0, -1)), iv.Where(scope="prompt", tokens=(4, 5, 6))])
def test_padded_batches_are_edited_at_real_tokens_alone(architecture: str, where: iv.Where | None) -> None:
    model, own, rows = opened("llama"), dictionary(architecture, "constant", seed=1), ragged((3, 6, 5))
    edit = own.clamp([3, 17], [6.0, 1.0], where=where or iv.Where())
    plain, found = (iv.capture(model, rows, SITE, edits=e) for e in ((), [edit]))
    assert plain.mask is not None and plain.tokens is not None
    chosen = plain.mask.clone()
    if where is not None and where.positions is not None:
        ends = plain.mask.sum(dim=1) - 1
        chosen = torch.zeros_like(chosen)
        chosen[:, 0] = True
        chosen[torch.arange(3), ends] = True
    if where is not None and where.tokens is not None:
        chosen = plain.mask & torch.isin(plain.tokens, torch.tensor([4, 5, 6]))
    expected = plain[SITE].clone().double()
    if chosen.any():
        expected[chosen] = changed(own, plain[SITE][chosen], plain[SITE][chosen], {3: 6.0, 17: 1.0})
    torch.testing.assert_close(found[SITE].double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[SITE][~chosen], plain[SITE][~chosen])
    alone = iv.capture(model, rows[:1], SITE, edits=[edit])
    torch.testing.assert_close(found[SITE][:1, :3], alone[SITE], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("architecture", ["jump_relu", "top_k"])
@pytest.mark.parametrize("scope", ["all", "generated"])
def test_generation_with_a_cache_is_that_of_a_hook_that_computes_everything_again(
    family: str, architecture: str, scope: Any
) -> None:
    model, own = opened(family), dictionary(architecture, seed=2)
    rows = ragged((3, 5), seed=3)
    edit = own.clamp([3, 17], [30.0, 20.0], where=iv.Where(scope=scope))
    run = iv.generate(model, rows, edits=[edit], max_new_tokens=5)
    plain = iv.generate(model, rows, max_new_tokens=5)
    assert run.texts != plain.texts
    for row, given in enumerate(rows):
        length = len(given)

        def change(x: Tensor, length: int = length) -> Tensor:
            first = 0 if scope == "all" else length
            new = x.clone().double()
            if x.shape[1] > first:
                new[0, first:] = changed(own, x[0, first:], x[0, first:], {3: 30.0, 17: 20.0})
            return new.to(x.dtype)

        written, handle = list(given), hooked(model, 1, change)
        try:
            for _ in range(5):
                with torch.no_grad():
                    logits = model.module(torch.tensor([written]), use_cache=False).logits
                written.append(int(logits[0, -1].argmax()))
        finally:
            handle.remove()
        assert run.tokens_so_far[row][-5:] == written[length:]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["jump_relu", "top_k"])
def test_half_precision_activations_keep_their_format(architecture: str, dtype: torch.dtype) -> None:
    own, x = dictionary(architecture, "constant"), tokens(5).to(dtype)
    found = own.clamp([3, 17], [2.0, 1.0]).apply(x)
    expected = changed(own, x, x, {3: 2.0, 17: 1.0})
    # Half a unit in the last place, and float32's own error before it is rounded.
    step = torch.finfo(dtype).eps * expected.abs().clamp(min=1e-2)
    assert found.dtype == dtype and bool(((found.double() - expected).abs() <= 0.51 * step + 1e-5).all())
    model = opened("llama", torch.bfloat16)
    edited = iv.capture(model, ["w1 w2 w3"], SITE, edits=[own.clamp(3, 2.0)])[SITE]
    assert edited.dtype == torch.bfloat16 and bool(torch.isfinite(edited).all())


@pytest.mark.parametrize("architecture", ["relu", "top_k", "gated"])
def test_gradients_flow_through_set_features(architecture: str) -> None:
    own = dictionary(architecture, "layer_norm" if architecture == "relu" else "none", dtype=torch.float64)
    x = tokens(1, 2).double().requires_grad_()
    edit = own.clamp([3, 17], [2.0, 1.0])
    assert torch.autograd.gradcheck(lambda y: edit.apply(y), (x,), eps=1e-7, atol=1e-5)


def test_a_schedule_shares_the_change_out() -> None:
    model, own = opened("llama"), dictionary()
    plain = iv.capture(model, ids(1, 4), SITE)[SITE]
    edit = own.clamp(3, 5.0)
    half = edit.apply(plain, torch.full((1, 4), 0.5))
    torch.testing.assert_close(half, (plain + edit.apply(plain)) / 2, atol=1e-5, rtol=1e-5)


def test_edits_of_features_compose_in_their_order() -> None:
    model, own, x = opened("llama"), dictionary(), ids(2, 5)
    plain = iv.capture(model, x, SITE)[SITE].flatten(0, 1)
    once = changed(own, plain, plain, {3: 4.0})
    twice = changed(own, once.float(), once.float(), {17: 2.0}, "scale")
    found = iv.capture(model, x, SITE, edits=[own.clamp(3, 4.0), own.scale(17, 2.0)])[SITE].flatten(0, 1)
    torch.testing.assert_close(found.double(), twice, atol=1e-4, rtol=1e-5)


# Strength, sweeps, recipes, code.


def test_another_strength_is_the_value_or_the_factor() -> None:
    own, x = dictionary(), tokens(3)
    assert torch.equal(own.clamp(3, 1.0).with_coefficient(4.0).apply(x), own.clamp(3, 4.0).apply(x))
    assert torch.equal(own.scale([3, 4], 1.0).with_coefficient(0.5).apply(x), own.scale([3, 4], 0.5).apply(x))
    with pytest.raises(EditError, match=r"ablate feature 3 at .* has no strength .* use dictionary.clamp"):
        own.ablate(3).with_coefficient(1.0)
    assert own.clamp([3, 4], [1.0, 2.0]).label == f"clamp feature 3, feature 4 to 1 … 2 at {SITE}"


@pytest.mark.parametrize("site_out", ["", "blocks.2.mlp.out"])
def test_a_sweep_over_values_is_the_same_as_one_by_one(site_out: str) -> None:
    model, own = opened("llama"), dictionary(site_out=site_out)
    metric = iv.logit_difference(7, 9)
    prompts = ["w1 w2 w3", "w5 w6"]
    found = iv.sweep(model, prompts, own.clamp(3, 0.0), [0.0, 3.0], metric=metric, batch_size=4, progress=False)
    for i, value in enumerate((0.0, 3.0)):
        for j, prompt in enumerate(prompts):
            with iv.editing(model, [own.clamp(3, value)]), torch.no_grad():
                logits = model.module(**model.tokenizer(prompt, return_tensors="pt")).logits[0, -1]
            frame = found.frame()
            told = frame[(frame["strength"] == value) & (frame["prompt"] == j)]["metric"].item()
            assert told == pytest.approx(float(logits[7] - logits[9]), abs=1e-4), i


@pytest.mark.parametrize("architecture", ["relu", "jump_relu", "batch_top_k", "gated"])
def test_plain_edits_come_back_from_disk_and_from_code_to_the_bit(architecture: str, tmp_path: Path) -> None:
    own, x = dictionary(architecture, "constant", subtracts=True), tokens(2, 4)
    edits = (
        own.clamp([3, 17], [2.0, -1.0], where=iv.Where(positions=(0,), scope="prompt")),
        own.scale(5, 0.5),
        own.at(site_out="blocks.2.resid").ablate([1, 2]),
    )
    iv.Recipe(edits, "a network").save(tmp_path / "r")
    again = iv.Recipe.load(tmp_path / "r").edits
    coded = [eval(edit.to_code(), {"iv": iv}) for edit in edits]
    for edit, *others in zip(edits, again, coded, strict=True):
        for other in others:
            assert isinstance(other, iv.SetFeatures) and other.where == edit.where and other.label == edit.label
            assert edit.is_same(other) and other.site == edit.site
            if edit.site == SITE:
                assert torch.equal(other.apply(x), edit.apply(x))
    assert not edits[0].is_same(own.clamp([3, 17], [2.0, -1.5], where=edits[0].where))


@pytest.mark.parametrize(("architecture", "normalisation"), [("top_k", "none"), ("relu", "layer_norm")])
def test_edits_that_need_their_dictionary_say_so_instead_of_being_saved(
    architecture: str, normalisation: str, tmp_path: Path
) -> None:
    own = dictionary(architecture, normalisation)
    edit = own.clamp([3, 4], 1.0)
    why = "its features compete" if architecture == "top_k" else "each token is normalised"
    with pytest.raises(RecipeError, match=rf"its reader: feature 3, feature 4 .* because {why}; save the dictionary"):
        iv.Recipe((edit,), "a network").save(tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert edit.to_code() == "dictionary.clamp((3, 4), (1.0, 1.0))"
    assert eval(own.ablate(3).to_code(), {"iv": iv, "dictionary": own}).is_same(own.ablate(3))
    assert not edit.is_same(dictionary(architecture, normalisation, seed=9).clamp([3, 4], 1.0))


def test_what_recipes_and_steer_cannot_do_with_features_is_said(tmp_path: Path) -> None:
    own = dictionary()
    with pytest.raises(WidgetError, match=r"not SetFeatures; .* iv.Add\(dictionary.direction\(i\)\) can be shown"):
        form_of(own.clamp(3, 1.0), [])
    with pytest.raises(RecipeError, match="SetFeatures is no affine map"):
        iv.Recipe((own.clamp(3, 1.0),)).to_model(opened("llama"))
    for reader in ({"readings": [], "factor": 1.0}, {"factor": 1.0}, {"readings": "x", "factor": 1.0}):
        with pytest.raises(EditError, match="features are read by"):
            Readings.from_dict(reader)


# Conditions.


def test_a_features_activation_is_a_condition() -> None:
    model, own, x = opened("llama"), dictionary("jump_relu", seed=4), ids(3, 6)
    plain = iv.capture(model, x, SITE)[SITE]
    active = own.encode(plain).dense()
    feature = int((active > 0).float().mean(dim=(0, 1)).sub(0.5).abs().argmin())
    limit = float(active[..., feature].flatten().sort().values[-6:-4].mean())
    edit = iv.Scale(0.0, site=SITE, where=iv.Where(condition=own.reading(feature) > limit))
    found = iv.capture(model, x, SITE, edits=[edit])[SITE]
    is_gone = (found == 0).all(dim=-1)
    assert torch.equal(is_gone, active[..., feature] > limit) and 0 < is_gone.sum() < is_gone.numel()
    clamped = own.clamp(3, 9.0, where=iv.Where(condition=own.reading(feature) > limit))
    found = iv.capture(model, x, SITE, edits=[clamped])[SITE]
    assert torch.equal((found != plain).any(dim=-1), is_gone)


# Transcoders: read at one site, written at another.


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("architecture", ["relu", "top_k", "gated"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoders_features_are_read_before_and_written_behind(family: str, architecture: str, skip: bool) -> None:
    model, rows = opened(family), ragged((3, 6))
    own = dictionary(architecture, "constant", skip=skip, site="blocks.1.mlp.in", site_out="blocks.1.mlp.out")
    assert own.is_transcoder
    plain = iv.capture(model, rows, ["blocks.1.mlp.in", "blocks.1.mlp.out", SITE])
    edit = own.clamp([3, 17], [6.0, 1.0])
    found = iv.capture(model, rows, ["blocks.1.mlp.out", SITE], edits=[edit])
    real = plain.mask
    expected = changed(own, plain["blocks.1.mlp.in"][real], plain["blocks.1.mlp.out"][real], {3: 6.0, 17: 1.0})
    torch.testing.assert_close(found["blocks.1.mlp.out"][real].double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found["blocks.1.mlp.out"][~real], plain["blocks.1.mlp.out"][~real])
    delta = found["blocks.1.mlp.out"] - plain["blocks.1.mlp.out"]
    torch.testing.assert_close(found[SITE], plain[SITE] + delta, atol=1e-5, rtol=1e-5)


def test_a_transcoder_reads_what_other_edits_left_at_its_input_and_works_in_generation() -> None:
    model = opened("llama")
    own = dictionary(site="blocks.1.mlp.in", site_out="blocks.1.mlp.out")
    x = ids(1, 4)
    doubled = iv.Scale(2.0, site="blocks.1.mlp.in")
    plain = iv.capture(model, x, ["blocks.1.mlp.in", "blocks.1.mlp.out"], edits=[doubled])
    found = iv.capture(model, x, "blocks.1.mlp.out", edits=[own.scale(3, 4.0), doubled])["blocks.1.mlp.out"]
    expected = changed(own, plain["blocks.1.mlp.in"][0], plain["blocks.1.mlp.out"][0], {3: 4.0}, "scale")
    torch.testing.assert_close(found[0].double(), expected, atol=1e-5, rtol=1e-5)
    edit = own.clamp(3, 60.0)
    run = iv.generate(model, x, edits=[edit], max_new_tokens=4)
    written = x[0].tolist()
    for _ in range(4):
        with iv.editing(model, [edit]), torch.no_grad():
            written.append(int(model.module(torch.tensor([written]), use_cache=False).logits[0, -1].argmax()))
    assert run.text and run.tokens_so_far[0][-4:] == written[-4:]


def test_features_that_are_read_too_late_or_at_the_wrong_width_are_refused() -> None:
    model, x = opened("llama"), ids(1, 3)
    late = dictionary(site="blocks.2.resid", site_out="blocks.1.mlp.out").clamp(3, 1.0)
    with pytest.raises(EditError, match=r"reads 'blocks.2.resid', which comes behind 'blocks.1.mlp.out', where it"):
        iv.capture(model, x, SITE, edits=[late])
    unknown = dictionary(site="module:model.layers.2.mlp", site_out="blocks.1.mlp.out").clamp(3, 1.0)
    with pytest.raises(EditError, match=r"reads 'module:model.layers.2.mlp', which had not fired in this forward"):
        iv.capture(model, x, SITE, edits=[unknown])
    narrow = dictionary(site="blocks.1.mlp.in", site_out="blocks.1.mlp.out", d_in=31, d_out=WIDTH).clamp(3, 1.0)
    with pytest.raises(EditError, match=r"31 wide does not fit 'blocks.1.mlp.in'"):
        iv.capture(model, x, SITE, edits=[narrow])
    with pytest.raises(EditError, match=r"which a bare activation does not tell; use iv.generate"):
        dictionary(site="blocks.1.mlp.in", site_out="blocks.1.mlp.out").clamp(3, 1.0).apply(tokens(2))
    with pytest.raises(DictionaryError, match="site of this dictionary is unknown"):
        dictionary(site="unknown").clamp(3, 1.0)


def test_a_transcoder_of_any_network_needs_no_tokens() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))
    model = iv.open_model(plain)
    own = dictionary("top_k", site="module:0", site_out="module:2")
    x = tokens(2, 5)
    hidden, out = plain[0](x).detach(), plain(x).detach()
    with iv.editing(model, [own.clamp(3, 2.0)]):
        found = plain(x)
    expected = changed(own, hidden.flatten(0, 1), out.flatten(0, 1), {3: 2.0})
    torch.testing.assert_close(found.flatten(0, 1).double(), expected, atol=1e-5, rtol=1e-5)


def test_the_users_own_forwards_and_attachments_take_features_too() -> None:
    made = module("gpt2")
    model, own = iv.open_model(made), dictionary(site="blocks.0.mlp.in", site_out="blocks.0.mlp.out")
    given, mask = padded(ragged((3, 5)), left=True)
    with torch.no_grad():
        plain = made(given, attention_mask=mask).logits
        edited = iv.capture(model, {"input_ids": given, "attention_mask": mask}, "logits", edits=[own.clamp(3, 5.0)])
        iv.attach(model, [own.clamp(3, 5.0)], name="three")
        found = made(given, attention_mask=mask).logits
        iv.detach(model)
        assert torch.equal(made(given, attention_mask=mask).logits, plain)
    torch.testing.assert_close(found[mask.bool()], edited["logits"][mask.bool()], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[mask.bool()], plain[mask.bool()], atol=1e-3)
