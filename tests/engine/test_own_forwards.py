"""Forwards of the user's own where they are hardest to follow: inside generate, under checkpointing, as copies, beside other work."""

import copy
import io
import threading

import pytest
import torch
from torch import nn

import innerview as iv
from innerview.errors import EditError, GenerationError
from tests.networks import WIDTH, opened

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]
WAYS = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "none": {"use_cache": False},
    "chunks of 2": {"prefill_chunk_size": 2},
    "chunks of 4": {"prefill_chunk_size": 4},
    "beams": {"num_beams": 2},
}
WHERES = {
    "all": iv.Where(),
    "generated": iv.Where(scope="generated"),
    "prompt": iv.Where(scope="prompt"),
    "prompt end": iv.Where(positions=-1),
    "first": iv.Where(positions=0),
    "steps": iv.Where(steps=(0, 2)),
}


def direction(site: str = "blocks.1.resid") -> iv.Direction:
    torch.manual_seed(3)
    return iv.Direction.from_vector(torch.randn(WIDTH), site=site, scale=8.0)


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[0, 0, *PROMPTS[0]], PROMPTS[1]])
    return ids, (ids != 0).long()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", WHERES)
def test_the_users_own_generate_is_edited_as_a_run_is(model: iv.Model, way: str, where: str) -> None:
    edits = [iv.Add(direction(), 1.0, where=WHERES[where])]
    ids, mask = padded()
    run = iv.generate(model, PROMPTS, edits=edits, max_new_tokens=5, num_beams=2 if way == "beams" else 1)
    run.wait()
    with iv.editing(model, edits):
        written = model.module.generate(
            ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0, **WAYS[way]
        )
    assert written[:, ids.shape[1] :].tolist() == run.tokens_so_far


@pytest.mark.parametrize("where", WHERES)
def test_a_mask_of_ones_that_generate_drops_is_no_loss(model: iv.Model, where: str) -> None:
    edits = [iv.Add(direction(), 1.0, where=WHERES[where])]
    ids = torch.tensor([[5, 6, 7, 8]])
    run = iv.generate(model, ids, edits=edits, max_new_tokens=5)
    run.wait()
    with iv.editing(model, edits):
        written = model.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert written[:, 4:].tolist() == run.tokens_so_far


def test_checkpointed_gradients_are_refused(model: iv.Model) -> None:
    model.module.train()
    model.module.gradient_checkpointing_enable()
    ids = torch.tensor([PROMPTS[1]])
    with (
        iv.editing(model, [iv.Add(direction())]),
        pytest.raises(EditError, match=r"checkpoints gradients.*gradient_checkpointing_disable"),
    ):
        model.module(ids, use_cache=False)
    with pytest.raises(EditError, match="checkpoints gradients"):
        iv.capture(model, ids, "blocks.2.resid", edits=[iv.Add(direction())], grad=True)
    with torch.no_grad(), iv.editing(model, [iv.Add(direction())]):
        assert model.module(ids, use_cache=False).logits.isfinite().all()


def test_a_copy_of_an_edited_network_is_a_plain_network(model: iv.Model) -> None:
    ids = torch.tensor([PROMPTS[1]])
    plain = model.module(ids).logits
    handle = iv.attach(model, [iv.Add(direction()), iv.Add(direction("blocks.2.resid_in"))])
    copied = copy.deepcopy(model.module)
    buffer = io.BytesIO()
    torch.save(model.module, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert not torch.equal(model.module(ids).logits, plain)
    assert torch.equal(copied(ids).logits, plain)
    assert torch.equal(loaded(ids).logits, plain)
    handle.detach()
    assert torch.equal(model.module(ids).logits, plain)


def test_patterns_leave_the_users_own_forwards_alone(model: iv.Model) -> None:
    ids = torch.tensor([PROMPTS[1]])
    expected, is_over, wrong = model.module(ids).logits, threading.Event(), []

    def forwards() -> None:
        while not is_over.is_set():
            wrong.append(not torch.equal(model.module(ids).logits, expected))

    thread = threading.Thread(target=forwards)
    thread.start()
    for _ in range(20):
        iv.capture(model, ids, "blocks.1.attn.pattern")
    is_over.set()
    thread.join()
    assert wrong and not any(wrong)


def test_patterns_under_edits_are_those_of_the_edited_network(model: iv.Model) -> None:
    edits = [iv.Add(direction("blocks.0.resid"))]
    with iv.editing(model, edits):
        acts = iv.capture(model, PROMPTS, ["blocks.1.attn.pattern", "blocks.1.attn.v", "blocks.1.attn.heads"])
    pattern, value = acts["blocks.1.attn.pattern"], acts["blocks.1.attn.v"]
    value = value.repeat_interleave(pattern.shape[1] // value.shape[2], dim=2)
    mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, value)
    real = acts.mask
    assert real is not None
    torch.testing.assert_close(mixed[real], acts["blocks.1.attn.heads"][real], atol=1e-5, rtol=1e-4)


def test_a_run_belongs_to_itself_under_a_second_root(model: iv.Model) -> None:
    inner = iv.open_model(model.module.base_model)
    site = "blocks.1.resid"
    plain = iv.capture(inner, PROMPTS, site)[site]
    handle = iv.attach(model, [iv.Add(direction())])
    assert torch.equal(iv.capture(inner, PROMPTS, site, hermetic=True)[site], plain)
    handle.detach()


def test_a_run_takes_no_other_threads_blocks(model: iv.Model) -> None:
    is_open, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with iv.editing(model, [iv.Add(direction())]):
            is_open.set()
            is_over.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    is_open.wait(20)
    run = iv.generate(model, PROMPTS, max_new_tokens=2)
    assert run.edits == ()
    is_over.set()
    thread.join()


def test_a_capture_fills_the_callers_cache_to_the_last_layer(model: iv.Model) -> None:
    ids = torch.tensor([PROMPTS[1]])
    cache = model.module(ids, use_cache=True).past_key_values
    following = {"input_ids": torch.tensor([[13]]), "past_key_values": cache, "use_cache": True}
    whole = iv.capture(model, torch.tensor([[*PROMPTS[1], 13]]), "blocks.0.resid")["blocks.0.resid"][:, -1:]
    found = iv.capture(model, following, "blocks.0.resid")["blocks.0.resid"]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
    assert {cache.get_seq_length(layer) for layer in range(model.n_layers or 0)} == {6}
    with pytest.raises(EditError, match="goes on from a cache"):
        iv.capture(model, following, "blocks.0.resid", edits=[iv.Add(direction(), where=iv.Where(positions=0))])


def test_a_replaced_value_outlives_a_layer_that_works_in_place() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    model = iv.open_model(network)
    edit = iv.Replace(-torch.ones(4), site="module:0")
    for _ in range(2):
        with iv.editing(model, [edit]):
            assert torch.equal(network(torch.randn(2, 4)), torch.zeros(2, 4))
    assert torch.equal(edit.value, -torch.ones(4))


def test_an_edit_first_used_under_inference_mode_trains_later(model: iv.Model) -> None:
    model.module.double()
    edit, ids = iv.ProjectOut(direction()), torch.tensor([PROMPTS[1]])
    with iv.editing(model, [edit]):
        with torch.inference_mode():
            model.module(ids)
        model.module(ids).logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.module.parameters())


def test_a_value_for_the_prompt_is_not_asked_of_generated_tokens(model: iv.Model) -> None:
    ids = torch.tensor([PROMPTS[1]])
    value = iv.capture(model, ids, "blocks.1.resid")["blocks.1.resid"]
    edits = [iv.Replace(value, site="blocks.1.resid", where=iv.Where(scope="prompt"))]
    assert iv.generate(model, ids, edits=edits, max_new_tokens=4).text == iv.generate(model, ids, max_new_tokens=4).text


def test_an_edit_at_the_logits_reaches_a_padded_batch(model: iv.Model) -> None:
    value = torch.zeros(model.vocab or 0)
    value[40] = 1.0
    run = iv.generate(model, PROMPTS, edits=[iv.Replace(value, site="logits")], max_new_tokens=3)
    run.wait()
    assert run.tokens_so_far == [[40, 40, 40], [40, 40, 40]]


@pytest.mark.parametrize(("name", "value"), [("suppress_tokens", [7]), ("stop_strings", ["w5"]), ("max_time", 5.0)])
def test_a_generation_config_that_binds_is_refused(model: iv.Model, name: str, value: object) -> None:
    setattr(model.module.generation_config, name, value)
    with pytest.raises(GenerationError, match=rf"sets {name}=.*generation_config\.{name} = None"):
        iv.generate(model, PROMPTS, max_new_tokens=2)


def test_a_generation_config_changes_no_token(model: iv.Model) -> None:
    plain = iv.generate(model, PROMPTS, max_new_tokens=8).texts
    own = model.module.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.return_dict_in_generate = 5.0, 2, True
    assert iv.generate(model, PROMPTS, max_new_tokens=8).texts == plain


def test_a_module_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.f(self.f(x))

    with pytest.raises(iv.CaptureError, match="more than once"):
        iv.capture(iv.open_model(Twice()), torch.ones(1, 3), "f")


def test_a_pattern_is_no_activation_of_tokens(model: iv.Model) -> None:
    rows = [[5, 6, 7, 8]]
    with pytest.raises(iv.DirectionError, match="not one activation a token"):
        iv.contrast(model, rows, [[9, 10, 11, 12]], site="blocks.1.attn.pattern")
    frame = iv.capture(model, rows, ["blocks.1.attn.pattern", "blocks.1.resid"]).frame()
    assert frame["site"].value_counts().to_dict() == {"blocks.1.resid": 4, "blocks.1.attn.pattern": 1}


def test_module_paths_take_wildcards_and_an_unknown_network_lists_its_modules() -> None:
    model = iv.open_model(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU())))
    assert list(model.sites().index) == ["module:", "module:0", "module:1", "module:1.0", "module:1.1"]
    acts = iv.capture(model, torch.ones(1, 2), ["module:1.*", "module:"])
    assert acts.sites == ["module:1.0", "module:1.1", "module:"]
    assert torch.equal(acts["module:"], acts["module:1.1"])


def test_a_lens_stays_what_it_was_when_its_attachment_goes(family: str) -> None:
    model = opened(family)
    handle = iv.attach(model, [iv.Add(direction("final_norm"))])
    lens = iv.logit_lens(model, "w4 w5 w6")
    handle.detach()
    assert torch.equal(lens.logits(-1).argmax(-1), lens.top_ids[-1, :, 0])
    assert not torch.equal(iv.logit_lens(model, "w4 w5 w6").logits(-1), lens.logits(-1))
    with iv.editing(model, [iv.Add(direction())]):
        plain = iv.logit_lens(model, "w4 w5 w6", hermetic=True)
    assert torch.equal(plain.top_ids, iv.logit_lens(model, "w4 w5 w6").top_ids)
