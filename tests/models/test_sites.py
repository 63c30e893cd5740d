"""The sites of every family of the table, against what transformers itself returns and against the equations of a block."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN

import innerview as iv
from innerview.errors import EditError
from tests.models.kin import CONFIGS, EXPERTS, PARALLEL, WIDTH, network
from tests.networks import ids

NAMES = list(CONFIGS)
X = ids(2, 7)
LAYERS = range(2)


def own(root: Any, **options: Any) -> Any:
    """What transformers itself returns."""
    with torch.no_grad():
        return root(input_ids=X, attention_mask=torch.ones_like(X), use_cache=False, **options)


def near(found: Tensor, wanted: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether two tensors differ by no more than a share of the largest number."""
    return found.shape == wanted.shape and bool(
        (found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1)
    )


def everything(model: iv.Model, edits: Any = ()) -> dict[str, Tensor]:
    """All sites in two forwards."""
    acts = iv.capture(model, X, list(model.table), edits=edits)
    return {name: acts[name] for name in acts}


@pytest.mark.parametrize("name", NAMES)
def test_watching_is_bitwise_what_transformers_returns(name: str) -> None:
    root = network(name)
    model = iv.open_model(root)
    wanted = own(root, output_hidden_states=True)
    acts = iv.capture(model, X, ["blocks.*.resid_in", "blocks.*.resid", "logits"])
    for layer in LAYERS:
        assert torch.equal(acts[f"blocks.{layer}.resid_in"], wanted.hidden_states[layer])
    assert torch.equal(acts["blocks.0.resid"], wanted.hidden_states[1])
    assert torch.equal(acts["logits"], wanted.logits)
    assert torch.equal(own(root).logits, wanted.logits)


@pytest.mark.parametrize("name", NAMES)
def test_patterns_are_bitwise_those_of_transformers_and_the_softmax_of_the_scores(name: str) -> None:
    eager = network(name, kernel="eager")
    wanted = own(eager, output_attentions=True).attentions
    acts = iv.capture(iv.open_model(network(name)), X, ["blocks.*.attn.pattern", "blocks.*.attn.scores"])
    for layer in LAYERS:
        pattern, scores = acts[f"blocks.{layer}.attn.pattern"], acts[f"blocks.{layer}.attn.scores"]
        assert torch.equal(pattern, wanted[layer])
        assert scores.shape == pattern.shape
        made = torch.softmax(scores, dim=-1)
        # A sink takes its share before the keys do.
        made = made * pattern.sum(-1, keepdim=True) if name == "gpt_oss" else made
        assert near(pattern, made, 1e-5)


def equations(name: str, model: iv.Model, acts: dict[str, Tensor], edited: str = "") -> None:
    """What the sites of a block have to do with one another; an edited one no longer follows from what comes before it."""
    config: Any = model.module.config
    for layer in LAYERS:
        at = {
            key.removeprefix(f"blocks.{layer}."): value
            for key, value in acts.items()
            if key.startswith(f"blocks.{layer}.")
        }
        free = edited.removeprefix(f"blocks.{layer}.")
        groups = at["attn.heads"].shape[2] // at["attn.v"].shape[2]
        mixed = torch.einsum("bhqk,bkhd->bqhd", at["attn.pattern"], at["attn.v"].repeat_interleave(groups, dim=2))
        if free != "attn.heads":
            assert near(at["attn.heads"], mixed, 1e-5), f"{edited}: heads are values mixed by the pattern"
        before, after = norms_behind(name, model, layer)
        if free != "resid":
            middle = at["resid_mid"] if "resid_mid" in at else at["resid_in"] + at["attn.out"]
            assert near(at["resid"], after(middle + at["mlp.out"])), f"{edited}: what is added to the stream"
        if "resid_mid" in at and free != "resid_mid":
            assert near(at["resid_mid"], before(at["resid_in"] + at["attn.out"])), f"{edited}: the stream between"
        if "mlp.hidden" in at and free != "mlp.hidden":
            assert near(at["mlp.hidden"], neurons(config, at), 1e-5), (
                f"{edited}: neurons are what passes the activation function"
            )
        if f"blocks.{layer + 1}.resid_in" in acts:
            assert torch.equal(acts[f"blocks.{layer + 1}.resid_in"], at["resid"])


def norms_behind(name: str, model: iv.Model, layer: int) -> tuple[Any, Any]:
    """What stands behind the two sums of a block: nothing, or the norms of the families that put them there."""
    block: Any = model.module.get_submodule(model.table[f"blocks.{layer}.resid"].module)
    if name in ("bert", "roberta"):
        return block.attention.output.LayerNorm, block.output.LayerNorm
    if name == "opt with norms behind":
        return block.self_attn_layer_norm, block.final_layer_norm
    return (lambda x: x), (lambda x: x)


def neurons(config: Any, at: dict[str, Tensor]) -> Tensor:
    """The neurons from what comes before them."""
    names = ("hidden_activation", "hidden_act", "activation_function", "activation")
    act = ACT2FN[next((getattr(config, n) for n in names if isinstance(getattr(config, n, None), str)), "gelu_new")]
    if config.model_type == "bloom":
        act = ACT2FN["gelu_new"]
    return act(at["mlp.gate"]) * at["mlp.pre"] if "mlp.gate" in at else act(at["mlp.pre"])


@pytest.mark.parametrize("name", NAMES)
def test_the_sites_of_a_block_obey_its_equations(name: str) -> None:
    # Falcon with ALiBi is another network under transformers' sdpa kernel than under its eager one.
    model = iv.open_model(network(name, kernel="eager" if name == "falcon rw" else None))
    acts = everything(model)
    assert set(acts) == set(model.table)
    with torch.no_grad():
        equations(name, model, acts)
    sizes = {n: s.sizes for n, s in model.table.items() if s.sizes}
    assert {n: tuple(acts[n].shape[2:]) for n in sizes} == sizes


@pytest.mark.parametrize("name", NAMES)
def test_a_site_that_a_network_lacks_is_absent(name: str) -> None:
    model = iv.open_model(network(name))
    has = {key.removeprefix("blocks.0.") for key in model.table}
    assert ("resid_mid" in has) == (name not in PARALLEL)
    assert ("moe.router" in has) == (name in EXPERTS) == ("mlp.hidden" not in has)
    both = {"resid_in", "resid", "norm1.scale", "attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.heads",
            "attn.result", "attn.out", "mlp.in", "mlp.out", "embed", "logits"}  # fmt: skip
    assert both <= has and ("final_norm" in has) == (name not in ("bert", "roberta", "opt with norms behind"))


@pytest.mark.parametrize("name", NAMES)
def test_each_heads_result_is_its_part_of_what_the_attention_adds(name: str) -> None:
    model = iv.open_model(network(name))
    for layer in LAYERS:
        site = model.table[f"blocks.{layer}.attn.result"]
        projection = model.module.get_submodule(site.module)
        acts = iv.capture(model, X, [site.name, f"module:{site.module}"])
        bias = getattr(projection, "bias", None)
        wanted = acts[f"module:{site.module}"] - (0 if bias is None else bias.detach())
        assert near(acts[site.name].sum(dim=2), wanted * site.times, 1e-6)
    with pytest.raises(EditError, match=r"would not reach all that reads it; edit 'blocks.0.attn.heads' instead"):
        iv.capture(model, X, "logits", edits=[iv.Replace(torch.zeros(WIDTH), site="blocks.0.attn.result")])


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_a_norm_is_what_it_divides_by(name: str) -> None:
    model = iv.open_model(network(name))
    for site in [s for n, s in model.table.items() if n.endswith(".scale")]:
        norm: Any = model.module.get_submodule(site.module)
        x = iv.capture(model, X, f"module:{site.module}@input")[f"module:{site.module}@input"]
        x = x.reshape(*X.shape, -1)
        # A norm is linear but for its scale: twice the input less its scale's effect is the plain map.
        with torch.no_grad():
            slope = norm(x + 0) - norm(torch.zeros_like(x))
            centred = x - x.mean(-1, keepdim=True) if "LayerNorm" in type(norm).__name__ else x
            weight = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
        assert near(iv.capture(model, X, site.name)[site.name] * slope, centred * weight, 1e-5)


# Edits.


@pytest.mark.parametrize("name", NAMES)
def test_a_number_added_at_any_site_is_there_and_the_network_goes_on_from_it(name: str) -> None:
    model = iv.open_model(network(name, kernel="eager"))
    before = everything(model)
    for site in [s.name for s in model.table.values() if s.is_editable and s.layer in (0, None)]:
        size = 0.05 if site == "logits" else 0.5
        step = size * torch.randn(before[site].shape[-1], generator=torch.Generator().manual_seed(3))
        after = everything(model, [iv.Custom(lambda x, _, step=step: x + step, site=site)])
        seen = before[site] > -1e30
        assert near(after[site][seen], (before[site] + step)[seen], 2e-6), site
        with torch.no_grad():
            equations(name, model, after, site)
        assert not torch.equal(after["logits"], before["logits"]), site
    assert torch.equal(own(model.module).logits, before["logits"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_projection_without_one_head_changes_just_the_heads_that_read_it(name: str, part: str) -> None:
    model = iv.open_model(network(name))
    site = f"blocks.0.attn.{part}"
    before = everything(model)
    zeroed = before[site].clone()
    zeroed[:, :, -1] = 0
    after = everything(model, [iv.Replace(zeroed, site=site)])
    groups = before["blocks.0.attn.q"].shape[2] // before[site].shape[2] if before[site].shape[2] > 1 else 1
    read = [head for head in range(4) if head // groups == before[site].shape[2] - 1]
    others = [head for head in range(4) if head not in read]
    seen = "blocks.0.attn.heads" if part == "v" else "blocks.0.attn.scores"
    axis = 2 if part == "v" else 1
    # OLMo 2 norms all heads of a projection together.
    if before[site].shape[2] > 1 and (name != "olmo2" or part == "v"):
        index = torch.tensor(others)
        assert torch.equal(after[seen].index_select(axis, index), before[seen].index_select(axis, index))
        changed = after[seen].index_select(axis, torch.tensor(read))
        if name in ("bloom", "falcon rw"):
            # Scores go down with the distance there.
            assert not torch.equal(changed, before[seen].index_select(axis, torch.tensor(read)))
        elif part == "v" or name != "gpt_oss":
            assert (changed[changed > -1e30] == 0).all()
        else:
            assert all(len(row[row > -1e30].unique()) == 1 for row in changed.flatten(0, 2))
