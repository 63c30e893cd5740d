"""Capture against plain torch hooks: the same numbers to the last bit, and an unchanged network."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.errors import CaptureError, EditError, SiteError, TextError
from tests.engine.oracle import added, hooked
from tests.networks import CONTAINERS, attention, blocks, direction, ids, inside, opened, padded, ragged, toy


def heard(root: nn.Module, parts: dict[str, tuple[nn.Module, str]], **given: Any) -> dict[str, Tensor]:
    """What plain hooks see at modules: their output (or its first item), or their first input."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, (part, side) in parts.items():
        if side == "input":

            def look(m: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
                seen[name] = (args[0] if args else kwargs["hidden_states"]).clone()

            handles.append(part.register_forward_pre_hook(look, with_kwargs=True))
        else:

            def keep(m: nn.Module, args: tuple, out: Any, name: str = name) -> None:
                seen[name] = (out[0] if isinstance(out, tuple) else out).clone()

            handles.append(part.register_forward_hook(keep))
    with torch.no_grad():
        seen["logits of the call"] = root(**given).logits
    [h.remove() for h in handles]
    return seen


def parts_of(root: nn.Module, layer: int) -> dict[str, tuple[nn.Module, str]]:
    """Modules behind the sites of a block, written out for each family by hand."""
    block = blocks(root)[layer]
    at = f"blocks.{layer}."
    found = {
        at + "resid_in": (block, "input"),
        at + "resid": (block, "output"),
        at + "attn.out": (attention(block), "output"),
    }
    found[at + "mlp.out"] = (block.mlp, "output")
    if hasattr(block, "attn"):
        found |= {
            at + "attn.in": (block.ln_1, "output"), at + "mlp.in": (block.ln_2, "output"), at + "resid_mid": (block.ln_2, "input"),
            at + "attn.heads": (block.attn.c_proj, "input"), at + "mlp.pre": (block.mlp.c_fc, "output"),
            at + "mlp.hidden": (block.mlp.c_proj, "input"),
        }  # fmt: skip
        return found | {"embed": (root.transformer.wte, "output"), "final_norm": (root.transformer.ln_f, "output")}
    found |= {
        at + "attn.in": (block.input_layernorm, "output"), at + "mlp.in": (block.post_attention_layernorm, "output"),
        at + "resid_mid": (block.post_attention_layernorm, "input"), at + "attn.heads": (block.self_attn.o_proj, "input"),
        at + "attn.q": (block.self_attn.q_proj, "output"), at + "attn.k": (block.self_attn.k_proj, "output"),
        at + "attn.v": (block.self_attn.v_proj, "output"), at + "mlp.gate": (block.mlp.gate_proj, "output"),
        at + "mlp.pre": (block.mlp.up_proj, "output"), at + "mlp.hidden": (block.mlp.down_proj, "input"),
    }  # fmt: skip
    return found | {"embed": (root.model.embed_tokens, "output"), "final_norm": (root.model.norm, "output")}


@pytest.mark.parametrize("batch", [1, 3])
def test_every_site_equals_a_plain_hook_to_the_last_bit(typed: iv.Model, batch: int) -> None:
    x, root = ids(batch, 6), typed.module
    parts = parts_of(root, 1) | {"logits": (root.lm_head, "output")}
    mask = torch.ones_like(x)
    position_ids = torch.arange(6).expand(batch, 6)
    wanted = heard(root, parts, input_ids=x, attention_mask=mask, position_ids=position_ids, use_cache=False)
    acts = iv.capture(typed, x, list(parts))
    for name in parts:
        assert torch.equal(acts[name].flatten(2), wanted[name].flatten(2)), name
        site = typed.site(name)
        assert tuple(acts[name].shape[2:]) == site.sizes, name
    assert torch.equal(acts["logits"], wanted["logits of the call"])


def test_a_capture_equals_an_uncaptured_run_of_the_users_own(typed: iv.Model) -> None:
    x = ids(2, 6)
    with torch.no_grad():
        plain = typed.module(x).logits
    acts = iv.capture(typed, {"input_ids": x}, "logits")
    with torch.no_grad():
        assert torch.equal(typed.module(x).logits, plain)
    assert torch.equal(acts["logits"], plain)


def test_fused_queries_keys_and_values_are_taken_apart() -> None:
    model, x = opened("gpt2"), ids(2, 5)
    block = blocks(model.module)[0]
    whole = heard(model.module, {"qkv": (block.attn.c_attn, "output")}, input_ids=x)["qkv"]
    acts = iv.capture(model, x, ["blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v"])
    joined = torch.cat([acts[f"blocks.0.attn.{n}"].flatten(2) for n in "qkv"], dim=-1)
    assert torch.equal(joined, whole) and acts["blocks.0.attn.k"].shape == (2, 5, 4, 8)


def test_llama_has_fewer_key_heads_than_query_heads() -> None:
    model = opened("llama")
    acts = iv.capture(
        model, ids(1, 4), ["blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v", "blocks.0.attn.heads"]
    )
    assert [tuple(v.shape[2:]) for v in acts.values()] == [(4, 8), (2, 8), (2, 8), (4, 8)]


def test_the_residual_stream_adds_up(typed: iv.Model) -> None:
    acts = iv.capture(
        typed, ids(2, 6), [f"blocks.*.{s}" for s in ("resid_in", "resid_mid", "resid", "attn.out", "mlp.out")]
    )
    for layer in range(3):
        at = {s: acts[f"blocks.{layer}.{s}"] for s in ("resid_in", "resid_mid", "resid", "attn.out", "mlp.out")}
        assert torch.equal(at["resid_mid"], at["resid_in"] + at["attn.out"])
        assert torch.equal(at["resid"], at["resid_mid"] + at["mlp.out"])
        if layer:
            assert torch.equal(at["resid_in"], acts[f"blocks.{layer - 1}.resid"])


# Attention patterns.


def test_patterns_come_from_an_eager_forward_and_the_kernel_is_as_before(typed: iv.Model) -> None:
    x, root = ids(2, 6), typed.module
    assert root.config._attn_implementation == "sdpa"
    acts = iv.capture(typed, x, ["blocks.*.attn.pattern", "blocks.1.resid"])
    assert root.config._attn_implementation == "sdpa"
    root.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = root(input_ids=x, attention_mask=torch.ones_like(x), output_attentions=True).attentions
    root.set_attn_implementation("sdpa")
    for layer in range(3):
        found = acts[f"blocks.{layer}.attn.pattern"]
        assert torch.equal(found, wanted[layer]) and found.shape == (2, 4, 6, 6)
        assert torch.allclose(found.float().sum(-1), torch.ones(2, 4, 6), atol=2e-2)
    plain = iv.capture(typed, x, "blocks.1.resid")
    assert torch.equal(acts["blocks.1.resid"], plain["blocks.1.resid"])


def test_patterns_are_far_from_uniform(model: iv.Model) -> None:
    pattern = iv.capture(model, ids(4, 8), "blocks.*.attn.pattern").stack("blocks.*.attn.pattern")
    assert pattern[..., -1, :].amax(-1).mean() > 0.5


def test_patterns_give_no_weight_to_padding_or_the_future(model: iv.Model) -> None:
    pattern = iv.capture(model, ragged((3, 6)), "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    assert (pattern.triu(1) == 0).all()
    assert (pattern[0, :, :3, 3:] == 0).all()


def test_a_network_opened_eager_stays_eager(family: str) -> None:
    model = opened(family)
    model.module.set_attn_implementation("eager")
    assert iv.capture(model, ids(1, 4), "blocks.0.attn.pattern")["blocks.0.attn.pattern"].shape == (1, 4, 4, 4)
    assert model.module.config._attn_implementation == "eager"


def test_patterns_of_a_run_that_writes_meanwhile_disturb_nothing(model: iv.Model) -> None:
    row = ragged((5, 3))
    alone = iv.generate(model, row, max_new_tokens=20)
    alone.wait()
    wanted = iv.capture(model, ids(1, 6), "blocks.0.attn.pattern")["blocks.0.attn.pattern"]
    for cache in ("dynamic", "static"):
        run = iv.generate(model, row, max_new_tokens=20, cache=cache)
        while not run.done:
            assert torch.equal(iv.capture(model, ids(1, 6), "blocks.0.attn.pattern")["blocks.0.attn.pattern"], wanted)
        run.wait()
        assert run.tokens_so_far == alone.tokens_so_far


def test_patterns_are_refused_where_no_kernel_can_be_switched() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    model = iv.open_model(Layer())
    with pytest.raises(SiteError, match=r"no site 'blocks.0.attn.pattern'"):
        iv.capture(model, torch.zeros(1, 2, 3), "blocks.0.attn.pattern")


# Padding, edits, gradients.


@pytest.mark.parametrize("lengths", [(3, 7, 5), (1, 8)])
def test_a_batch_equals_its_singles(model: iv.Model, lengths: tuple[int, ...]) -> None:
    rows = ragged(lengths)
    acts = iv.capture(model, rows, ["blocks.*.resid", "logits"])
    assert acts.mask.sum(1).tolist() == list(lengths) and acts.mask[0, 0]
    for i, row in enumerate(rows):
        single = iv.capture(model, [row], ["blocks.*.resid", "logits"])
        for site in acts:
            assert torch.allclose(acts[site][i, : len(row)], single[site][0], atol=1e-4), site


@pytest.mark.parametrize("left", [True, False], ids=["left pads", "right pads"])
def test_ready_inputs_are_padded_as_they_like(model: iv.Model, left: bool) -> None:
    rows = ragged((3, 6))
    x, mask = padded(rows, left=left)
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    given = {"input_ids": x, "attention_mask": mask, "position_ids": position_ids}
    edits = [iv.Add(direction("blocks.0.resid"), where=iv.Where(positions=(1, -1)))]
    acts = iv.capture(model, given, "blocks.2.resid", edits=edits)
    wanted = iv.capture(model, rows, "blocks.2.resid", edits=edits)
    assert torch.equal(acts.mask, mask.bool())
    for i in range(2):
        assert torch.allclose(
            acts["blocks.2.resid"][i][mask[i].bool()], wanted["blocks.2.resid"][i][wanted.mask[i]], atol=1e-4
        )


def test_a_capture_sees_the_edits_at_its_own_site(typed: iv.Model) -> None:
    x, d = ids(2, 5), direction()
    plain = iv.capture(typed, x, "blocks.1.resid")["blocks.1.resid"]
    edited = iv.capture(typed, x, "blocks.1.resid", edits=[iv.Add(d, 2.0)])["blocks.1.resid"]
    assert torch.equal(edited, plain + (d.vector.double() * d.scale * 2.0).to(plain.dtype))


def test_a_capture_takes_what_is_attached_and_open_unless_hermetic(model: iv.Model) -> None:
    x, a, b, c = ids(1, 5), *(iv.Add(direction(seed=s)) for s in range(3))
    plain = iv.capture(model, x, "logits")["logits"]
    wanted = iv.capture(model, x, "logits", edits=[a, b, c])["logits"]
    iv.attach(model, [a], name="a")
    with iv.editing(model, [b]):
        assert torch.equal(iv.capture(model, x, "logits", edits=[c])["logits"], wanted)
        assert torch.equal(iv.capture(model, x, "logits", hermetic=True)["logits"], plain)
    iv.detach(model)


@pytest.mark.parametrize("choice", [{"positions": 1}, {"positions": -1}, {"scope": "prompt"}])
def test_where_holds_in_a_capture(model: iv.Model, choice: dict) -> None:
    rows, d = ragged((3, 6)), direction()
    plain = iv.capture(model, rows, "blocks.1.resid")
    edited = iv.capture(model, rows, "blocks.1.resid", edits=[iv.Add(d, where=iv.Where(**choice))])
    strength = torch.zeros(2, 6)
    for r, n in enumerate((3, 6)):
        for p in range(n):
            strength[r, p] = {"positions": p == 1, "scope": True}.get(next(iter(choice)), True)
            if choice.get("positions") == -1:
                strength[r, p] = p == n - 1
    wanted = added(plain["blocks.1.resid"], d.vector.double() * d.scale, strength)
    assert torch.equal(edited["blocks.1.resid"], wanted)


def test_a_captured_value_is_not_the_networks_own_memory() -> None:
    root = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    model, x = iv.open_model(root), torch.randn(2, 3, 4)
    acts = iv.capture(model, x, ["module:0", "module:1", "module:0@input"])
    with torch.no_grad():
        assert torch.equal(acts["module:0"], root[0](x)) and (acts["module:0"] < 0).any()
    with torch.inference_mode():
        again = iv.capture(model, torch.randn(2, 3, 4), ["module:0", "module:1"])
    assert (again["module:0"] < 0).any() and (again["module:1"] >= 0).all()


def test_gradients_flow_from_a_capture_when_asked(model: iv.Model) -> None:
    embeds = torch.randn(1, 4, 32, requires_grad=True)
    acts = iv.capture(
        model, {"inputs_embeds": embeds}, "blocks.1.resid", grad=True, edits=[iv.Add(direction("blocks.0.resid"))]
    )
    acts["blocks.1.resid"].sum().backward()
    assert embeds.grad is not None and embeds.grad.abs().sum() > 0
    assert not iv.capture(model, {"inputs_embeds": embeds}, "blocks.1.resid")["blocks.1.resid"].requires_grad


def test_the_forward_stops_behind_the_last_site(model: iv.Model) -> None:
    ran: list[int] = []
    handles = [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks(model.module))]
    iv.capture(model, ids(1, 3), ["blocks.0.attn.out", "embed"])
    assert ran == []
    iv.capture(model, ids(1, 3), "blocks.1.resid_in")
    assert ran == [0]
    [h.remove() for h in handles]


def test_reading_stops_no_gradient_mode_of_the_caller(model: iv.Model) -> None:
    assert torch.is_grad_enabled()
    iv.capture(model, ids(1, 3), "blocks.0.resid")
    assert torch.is_grad_enabled()
    value = iv.capture(model, ids(1, 3), "blocks.0.resid")["blocks.0.resid"]
    assert not value.is_inference() and torch.nn.functional.linear(value, nn.Parameter(torch.ones(2, 32))).requires_grad


# Inputs of every kind.


@pytest.mark.parametrize("kind", CONTAINERS)
def test_any_module_is_captured_by_its_paths(kind: str) -> None:
    root, x = toy(kind), torch.randn(3, 4, 8)
    model = iv.open_model(root)
    acts = iv.capture(model, x, ["module:first", "module:second.linear", "first.linear@input"])
    with torch.no_grad():
        assert torch.equal(acts["module:first"], inside(root.first(x)))
        assert torch.equal(acts["module:second.linear"], root.second.linear(inside(root.first(x))))
        assert torch.equal(acts["first.linear@input"], x)
    assert acts.tokens is None and list(acts.frame().columns) == ["site", "shape", "norm"]


def test_texts_chats_and_ids_are_read(model: iv.Model) -> None:
    text = iv.capture(model, "w5 w6 w7", "blocks.0.resid")
    listed = iv.capture(model, ["w5 w6 w7", "w8"], "blocks.0.resid")
    chat = iv.capture(model, [{"role": "user", "content": "w5"}], "blocks.0.resid")
    assert text.tokens.tolist() == [[8, 9, 10]] and text.words == [["w5", "w6", "w7"]]
    assert listed.tokens.tolist() == [[8, 9, 10], [11, 0, 0]] and listed.words == [["w5", "w6", "w7"], ["w8"]]
    assert chat.words == [["w0", "w5", "w1"]]
    assert torch.equal(text["blocks.0.hook_resid_post"], text["blocks.0.resid"])


def test_bad_inputs_are_refused_with_a_way_out(model: iv.Model) -> None:
    cases: list[tuple[Any, type, str]] = [
        ("", TextError, r"the text is empty: ''; give at least one word"),
        ("   ", TextError, r"the text is empty: '   '; give at least one word"),
        ([], TextError, r"no prompt in an empty list; give at least one"),
        (["w1", [3, 4]], TextError, r"prompts of mixed types: ids, text; give all of one type"),
        (["w1", [{"role": "user", "content": "w1"}]], TextError, r"prompts of mixed types: chat, text"),
        ([[5, 99]], TextError, r"no token 99: GPT2LMHeadModel|no token 99: LlamaForCausalLM"),
        ([[5, -1]], TextError, r"no token -1"),
        (ids(1, 73), TextError, r"the text is longer than the context: 73 tokens, where .* takes 72; shorten it"),
        (3.5, TextError, r"a prompt is a text, a chat or ids, not 3.5 of type float"),
        (None, TextError, r"not None of type NoneType"),
        (
            torch.zeros(2, 2, 2, dtype=torch.long),
            TextError,
            r"shape \[batch, pos\], not torch.int64 of shape \[2, 2, 2\]",
        ),
    ]
    for given, kind, message in cases:
        with pytest.raises(kind, match=message):
            iv.capture(model, given, "blocks.0.resid")


def test_bad_sites_are_refused_with_the_nearest(model: iv.Model) -> None:
    for site, message in (
        (
            "blocks.0.rezid",
            r"no site 'blocks.0.rezid' in (gpt2|llama); nearest is 'blocks.0.resid'; model.sites\(\) lists them",
        ),
        ("blocks.3.resid", r"no layer 3 for site 'blocks.3.resid': .* has 3, blocks.0 to blocks.2"),
        ("blocks.-1.resid", r"no layer -1"),
        ("module:nope", r"no site 'module:nope'"),
        (7, r"a site is a string such as 'blocks.3.resid', not 7 of type int"),
    ):
        with pytest.raises(SiteError, match=message):
            iv.capture(model, ids(1, 3), [site])
    with pytest.raises(CaptureError, match=r"no site was asked for; name at least one"):
        iv.capture(model, ids(1, 3), [])


def test_a_site_that_never_fires_is_refused(model: iv.Model) -> None:
    container = "transformer.h" if model.family.name == "gpt2" else "model.layers"
    with pytest.raises(CaptureError, match=rf"site 'module:{container}' never fired.*see model.sites\(\)"):
        iv.capture(model, ids(1, 3), ["blocks.0.resid", f"module:{container}"])


def test_a_module_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.end = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.part(self.part(x)))

    with pytest.raises(CaptureError, match=r"site 'module:part' fired more than once in one forward"):
        iv.capture(iv.open_model(Twice()), torch.zeros(1, 3), ["module:part", "module:end"])


def test_positions_past_the_end_of_a_capture_are_refused(model: iv.Model) -> None:
    with pytest.raises(EditError, match=r"position 3 is past the end: the shortest row has 3 tokens; use 0 to 2"):
        iv.capture(model, ragged((3, 5)), "logits", edits=[iv.Add(direction(), where=iv.Where(positions=3))])


def test_a_network_without_a_tokenizer_says_so(family: str) -> None:
    model = iv.open_model(opened(family).module)
    with pytest.raises(
        TextError, match=r"has no tokenizer to read 'w5'; give ids, or open_model\(..., tokenizer=...\)"
    ):
        iv.capture(model, "w5", "blocks.0.resid")
    assert iv.capture(model, [[5, 6]], "blocks.0.resid").words == [["5", "6"]]


def test_captures_of_several_threads_are_as_if_one_after_another(model: iv.Model) -> None:
    rows = [ids(1, n, seed=n) for n in range(2, 8)]
    wanted = [iv.capture(model, x, "logits", edits=[iv.Add(direction(seed=i))])["logits"] for i, x in enumerate(rows)]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        for _ in range(5):
            found[i] = iv.capture(model, rows[i], "logits", edits=[iv.Add(direction(seed=i))])["logits"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(rows))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(torch.equal(found[i], wanted[i]) for i in range(len(rows)))


def test_plain_hooks_and_captures_mix(model: iv.Model) -> None:
    x = ids(1, 4)
    with hooked(blocks(model.module)[0], lambda y: y * 2):
        doubled = iv.capture(model, x, "blocks.0.resid")["blocks.0.resid"]
    assert torch.equal(doubled, iv.capture(model, x, "blocks.0.resid")["blocks.0.resid"] * 2)
