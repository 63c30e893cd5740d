"""What is computed inside a module, edited: scores, patterns, routers; and the stream between attention and feed-forward."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.errors import EditError, SiteError
from tests.models.kin import network
from tests.networks import ids

X = ids(2, 6)
CHAINS = ("gpt2", "llama", "gemma2", "olmo2", "bloom", "opt", "granite", "falcon rw", "gpt_neox in a chain", "mixtral")


def logits(root: Any, **options: Any) -> Tensor:
    return root(input_ids=X, use_cache=False, **options).logits


def named(root: nn.Module) -> dict[str, bool]:
    """Modules whose forward is not their class's."""
    return {name: "forward" in m.__dict__ for name, m in root.named_modules() if "forward" in m.__dict__}


@pytest.mark.parametrize("name", CHAINS)
def test_a_change_between_attention_and_feed_forward_reaches_both_norm_and_skip(name: str) -> None:
    root: Any = network(name)
    model = iv.open_model(root)
    value = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
    put = iv.Replace(value, site="blocks.0.resid_mid")
    acts = iv.capture(
        model, X, ["blocks.0.resid_mid", "blocks.0.mlp.out", "blocks.0.resid", "blocks.0.attn.out"], edits=[put]
    )
    assert torch.equal(acts["blocks.0.resid_mid"], value)
    block = root.get_submodule(model.table["blocks.0.resid"].module)
    with torch.no_grad():
        wanted = by_hand(name, block, value)
    assert (acts["blocks.0.resid"] - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    # What the attention has added is not touched.
    assert torch.equal(acts["blocks.0.attn.out"], iv.capture(model, X, "blocks.0.attn.out")["blocks.0.attn.out"])


def by_hand(name: str, block: Any, mid: Tensor) -> Tensor:
    """The second half of a block, written out."""
    if name == "olmo2":
        return mid + block.post_feedforward_layernorm(block.mlp(mid))
    if name == "gemma2":
        return mid + block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(mid)))
    if name == "opt":
        return mid + block.fc2(block.activation_fn(block.fc1(block.final_layer_norm(mid))))
    if name == "gpt2":
        return mid + block.mlp(block.ln_2(mid))
    if name == "bloom":
        mlp = block.mlp
        return mid + mlp.dense_4h_to_h(mlp.gelu_impl(mlp.dense_h_to_4h(block.post_attention_layernorm(mid))))
    times = block.residual_multiplier if name == "granite" else 1.0
    return mid + times * block.mlp(block.post_attention_layernorm(mid))


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_gradients_flow_through_a_change_of_the_stream_between(name: str) -> None:
    root: Any = network(name)
    model = iv.open_model(root)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(2), requires_grad=True)
    squared = iv.Custom(lambda x, _: x.square() * weight, site="blocks.0.resid_mid")
    with iv.editing(model, [squared]):
        loss = logits(root).square().sum()
    first = root.get_input_embeddings().weight
    of_weight, of_first = torch.autograd.grad(loss, [weight, first])
    with torch.no_grad():
        step = torch.randn(first.shape, generator=torch.Generator().manual_seed(3)) * 1e-3
        totals = []
        for sign in (1, -1):
            first += sign * step
            with iv.editing(model, [squared]):
                totals.append(float(logits(root).double().square().sum()))
            first -= sign * step
    slope = float((of_first * step).sum())
    assert of_weight.abs().sum() > 0 and (totals[0] - totals[1]) / 2 == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "falcon 7b", "gpt_oss"])
def test_a_pattern_put_in_is_what_mixes_the_values(name: str) -> None:
    root = network(name, kernel="eager")
    model = iv.open_model(root)
    before = logits(root)
    even = torch.full((6, 6), 1 / 6).tril()
    sites = ["blocks.1.attn.pattern", "blocks.1.attn.heads", "blocks.1.attn.v"]
    acts = iv.capture(model, X, sites, edits=[iv.Replace(even.expand(2, 4, 6, 6), site="blocks.1.attn.pattern")])
    value = acts["blocks.1.attn.v"].repeat_interleave(4 // acts["blocks.1.attn.v"].shape[2], dim=2)
    wanted = torch.einsum("qk,bkhd->bqhd", even, value)
    assert torch.equal(acts["blocks.1.attn.pattern"], even.expand(2, 4, 6, 6))
    assert (acts["blocks.1.attn.heads"] - wanted).abs().max() < 1e-6 * max(1, float(wanted.abs().max()))
    assert torch.equal(logits(root), before) and not named(root)


def test_scores_put_in_are_what_the_softmax_takes_on_the_tokens_that_are_asked_for() -> None:
    model = iv.open_model(network("llama", kernel="eager"))
    flat = iv.Custom(
        lambda x, _: torch.where(x > -1e30, 0.0, x), site="blocks.0.attn.scores", where=iv.Where(positions=-1)
    )
    with iv.editing(model, [flat]):
        seen = iv.capture(model, X, ["blocks.0.attn.pattern", "blocks.0.attn.scores"])
    plain = iv.capture(model, X, "blocks.0.attn.pattern")["blocks.0.attn.pattern"]
    pattern = seen["blocks.0.attn.pattern"]
    assert torch.allclose(pattern[:, :, -1], torch.full((2, 4, 6), 1 / 6))
    assert torch.equal(pattern[:, :, :-1], plain[:, :, :-1])
    assert (seen["blocks.0.attn.scores"][:, :, -1] == 0).all()


def test_a_pattern_is_edited_while_a_text_is_written() -> None:
    root = network("llama", kernel="eager")
    root.generation_config.eos_token_id = None
    model = iv.open_model(root)

    def blind(where: iv.Where) -> iv.Custom:
        return iv.Custom(lambda x, _: torch.zeros_like(x), site="blocks.*.attn.pattern", where=where)

    run = iv.generate(model, X[:1], edits=[blind(iv.Where(scope="generated"))], max_new_tokens=4)
    run.wait()
    # Everything anew for each token, without a cache.
    ids, prompt = X[:1], X.shape[1]
    for _ in range(4):
        edits = [blind(iv.Where(positions=range(prompt, ids.shape[1])))] if ids.shape[1] > prompt else []
        found = iv.capture(model, ids, "logits", edits=edits)["logits"]
        ids = torch.cat([ids, found[:, -1:].argmax(-1)], dim=1)
    assert run.tokens_so_far[0] == ids[0, prompt:].tolist()


def test_a_kernel_that_computes_no_pattern_is_refused_for_edits_with_the_way_out() -> None:
    root = network("llama")
    model = iv.open_model(root)
    edit = iv.Replace(torch.zeros(2, 4, 6, 6), site="blocks.0.attn.pattern")
    with pytest.raises(
        EditError,
        match=r"kernel 'sdpa' computes no attn.pattern to edit; load .* attn_implementation='eager', or edit attn.q",
    ):
        iv.capture(model, X, "logits", edits=[edit])
    with pytest.raises(EditError, match=r"computes no attn.pattern to edit"), iv.editing(model, [edit]):
        logits(root)
    assert not named(root)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_a_routers_logits_put_in_choose_the_experts(name: str) -> None:
    model = iv.open_model(network(name))
    chosen = torch.tensor([0.0, 9.0, 0.5, -9.0])
    acts = iv.capture(
        model,
        X,
        ["blocks.0.mlp.in", "blocks.0.moe.router", "blocks.0.mlp.out"],
        edits=[iv.Replace(chosen, site="blocks.0.moe.router")],
    )
    assert torch.equal(acts["blocks.0.moe.router"], chosen.expand(2, 6, 4))
    mixture: Any = model.module.get_submodule(model.table["blocks.0.moe.router"].module.rpartition(".")[0])
    router = model.module.get_submodule(model.table["blocks.0.moe.router"].module)
    with torch.no_grad():
        # A router whose logits are these whatever it reads.
        router.weight.zero_()
        bias = getattr(router, "bias", None)
        if bias is None:
            weight = torch.zeros(4, 32)
            weight[:, 0] = chosen
            router.weight.copy_(weight)
            read = acts["blocks.0.mlp.in"]
            shares = torch.softmax(chosen, -1).topk(2)
            norm = (
                shares.values / shares.values.sum()
                if name == "mixtral" or model.module.config.norm_topk_prob
                else shares.values
            )
            flat = read.reshape(12, 32)
            wanted = mixture.experts(flat, shares.indices.expand(12, 2), norm.expand(12, 2)).reshape(2, 6, 32)
        else:
            bias.copy_(chosen)
            wanted = mixture(acts["blocks.0.mlp.in"])[0]
    assert torch.allclose(acts["blocks.0.mlp.out"], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_the_neurons_of_the_chosen_experts_write_what_the_mixture_adds(name: str) -> None:
    model = iv.open_model(network(name))
    parts = ("moe.router", "moe.chosen", "moe.hidden", "mlp.out")
    acts = iv.capture(model, X, [f"blocks.0.{part}" for part in parts])
    router, chosen, hidden, out = (acts[f"blocks.0.{part}"] for part in parts)
    assert chosen.shape == (2, 6, 2) and hidden.shape[:3] == (2, 6, 2)
    assert torch.equal(chosen.sort(-1).values, router.topk(2).indices.sort(-1).values)
    shares = router.softmax(-1).gather(-1, chosen)
    if name != "qwen3_moe" or model.module.config.norm_topk_prob:
        shares = shares / shares.sum(-1, keepdim=True)
    wanted = torch.zeros_like(out)
    for expert in range(4):
        found = iv.neurons(model, 0, expert=expert)
        share = shares * (chosen == expert)
        wanted += (share[..., None] * (hidden @ found.out + (0 if found.out_bias is None else found.out_bias))).sum(2)
    assert torch.allclose(out, wanted, atol=2e-6)
    with pytest.raises(EditError, match=r"edit 'blocks.0.mlp.out' instead"):
        iv.capture(model, X, "logits", edits=[iv.Replace(torch.zeros(1), site="blocks.0.moe.hidden")])


def test_logits_under_a_cap_are_edited_as_the_network_returns_them_and_never_beyond_it() -> None:
    root = network("gemma2")
    model = iv.open_model(root)
    before = logits(root)
    assert before.abs().max() < 3.0
    bump = torch.zeros(67)
    bump[5] = 0.25
    edit = iv.Custom(lambda x, _: (x + bump).clamp(-2.9, 2.9), site="logits")
    with torch.no_grad(), iv.editing(model, [edit]):
        after = logits(root)
    wanted = (before + bump).clamp(-2.9, 2.9)
    assert (after - wanted).abs().max() < 1e-5
    same = (before + bump).clamp(-2.9, 2.9) == before
    assert torch.equal(after[same], before[same])
    with pytest.raises(SiteError, match=r"caps 'logits' at 3, and the edit asks for 7; ask for less"):
        iv.capture(model, X, "logits", edits=[iv.Replace(torch.full((67,), 7.0), site="logits")])


def test_a_copy_and_a_pickle_of_a_watched_network_are_watched_by_nobody() -> None:
    root = network("llama", kernel="eager")
    model = iv.open_model(root)
    before = logits(root)
    iv.attach(model, [iv.Custom(lambda x, _: x * 0, site="blocks.0.attn.pattern")], name="blind")
    assert not torch.equal(logits(root), before)
    assert torch.equal(logits(copy.deepcopy(root)), before)
    assert torch.equal(logits(pickle.loads(pickle.dumps(root))), before)
    iv.detach(model, "blind")
    assert torch.equal(logits(root), before) and not named(root)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_a_watched_forward_by_any_door_leaves_nothing_behind(error: type[BaseException]) -> None:
    root = network("llama", kernel="eager")
    model = iv.open_model(root)
    before = logits(root)

    def fails(x: Tensor, _: Any) -> Tensor:
        raise error

    with pytest.raises(error):
        iv.capture(model, X, "logits", edits=[iv.Custom(fails, site="blocks.0.attn.pattern")])
    assert torch.equal(logits(root), before) and not named(root)
    assert torch.overrides._get_current_function_mode() is None
