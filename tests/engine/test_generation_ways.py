"""Edits around the user's own ways to generate, against a loop by hand that computes everything again at each token."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import innerview as iv
from innerview.errors import EditError
from tests.engine.oracle import CHOICES, write_alone
from tests.engine.test_conditions import CONDITIONS, FOUND, PUSHED, by_hand, made
from tests.networks import direction, module, opened

# A row that repeats itself: prompt lookup finds candidates in it.
ROW = [5, 6, 7, 5, 6, 7, 5, 6, 9]
STEPS = 8
PLACES = {name: given for name, given in CHOICES.items() if name != "behind"} | {
    "behind the prompt": ({"positions": 11, "scope": "generated"}, lambda p, n: float(p == 11)),
    "an open window": ({"steps": slice(2, None)}, lambda p, n: float(p - n >= 2)),
    "a window": ({"steps": slice(1, 4)}, lambda p, n: float(1 <= p - n < 4)),
    "two tokens": ({"tokens": (5, 6)}, lambda p, n: float(p < n and ROW[p] in (5, 6)) if p < n else 0.0),
}


def small(family: str) -> torch.nn.Module:
    """A network that proposes tokens to another."""
    made = module(family, seed=3, layers=1)
    made.generation_config.eos_token_id = None
    return made


def ways(family: str) -> dict[str, dict[str, Any]]:
    """Options of transformers' own generate."""
    return {
        "lookup": {"prompt_lookup_num_tokens": 3},
        "assisted": {"assistant_model": small(family)},
        "chunks": {"prefill_chunk_size": 3},
        "static": {"cache_implementation": "static", "disable_compile": True},
    }


WAYS = ("lookup", "assisted", "chunks", "static")


def delta() -> Tensor:
    return direction().vector.double() * direction().scale


def written(model: iv.Model, where: iv.Where, **options: Any) -> list[int]:
    """What transformers' own generate writes inside a block."""
    ids = torch.tensor([ROW])
    with iv.editing(model, [iv.Add(direction(), where=where)]):
        out = model.module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=STEPS, do_sample=False, pad_token_id=0, **options
        )
    return out[0, len(ROW) :].tolist()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", [name for name in PLACES if name != "two tokens"])
def test_places_mean_the_same_however_tokens_are_proposed_and_fed(family: str, place: str, way: str) -> None:
    given, chosen = PLACES[place]
    model = opened(family)
    wanted = write_alone(model.module, ROW, 1, delta(), chosen, STEPS)
    assert written(model, iv.Where(**given), **ways(family)[way]) == wanted


@pytest.mark.parametrize("way", WAYS)
def test_token_sets_mean_the_same_however_tokens_are_proposed_and_fed(family: str, way: str) -> None:
    model = opened(family)
    where, found = iv.Where(tokens=range(0, 67, 2)), list(ROW)
    for _ in range(STEPS):
        ids = list(found)
        found += write_alone(model.module, ids, 1, delta(), lambda p, n, ids=ids: float(ids[p] % 2 == 0), 1)
    assert written(model, where, **ways(family)[way]) == found[len(ROW) :]


@pytest.mark.parametrize("way", ["lookup", "assisted"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_hold_for_proposed_tokens(family: str, name: str, way: str) -> None:
    model = opened(family)
    condition, rule = made(model, name)
    ids = torch.tensor([ROW])
    own = {"attention_mask": torch.ones_like(ids), "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    with by_hand(model.module, FOUND, rule, [0], [len(ROW)]):
        wanted = model.module.generate(ids, use_cache=False, **own)
    with iv.editing(model, [iv.Add(PUSHED, where=iv.Where(condition=condition))]):
        found = model.module.generate(ids, **own, **ways(family)[way])
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("place", ["everywhere", "prompt end", "generated", "steps"])
def test_a_pipeline_is_edited_row_by_row(family: str, place: str) -> None:
    model = opened(family)
    given, chosen = PLACES[place]
    pipe = transformers.pipeline("text-generation", model=model.module, tokenizer=model.tokenizer)
    with iv.editing(model, [iv.Add(direction(), where=iv.Where(**given))]):
        made = pipe(["w5 w6 w7", "w8 w9"], max_new_tokens=5, do_sample=False, return_tensors=True, batch_size=2)
    rows = [row[0]["generated_token_ids"] for row in made]
    for prompt, found in zip(([8, 9, 10], [11, 12]), rows, strict=True):
        assert found[-5:] == write_alone(model.module, prompt, 1, delta(), chosen, 5)


@pytest.mark.parametrize("place", ["everywhere", "first", "prompt end", "generated"])
def test_prompts_given_as_embeddings_have_places_too(family: str, place: str) -> None:
    model = opened(family)
    given, chosen = PLACES[place]
    x = model.module.get_input_embeddings()(torch.tensor([ROW])).detach()
    with iv.editing(model, [iv.Add(direction(), where=iv.Where(**given))]):
        found = model.module.generate(
            inputs_embeds=x, attention_mask=torch.ones(x.shape[:2]), max_new_tokens=5, do_sample=False, pad_token_id=0
        )
    assert found[0].tolist() == write_alone(model.module, ROW, 1, delta(), chosen, 5)
    with (
        iv.editing(model, [iv.Add(direction(), where=iv.Where(tokens=[5]))]),
        pytest.raises(EditError, match="inputs_embeds"),
    ):
        model.module.generate(inputs_embeds=x, max_new_tokens=2)


@pytest.mark.parametrize("place", ["generated", "steps", "an open window"])
def test_a_generate_of_the_users_own_making_is_edited(family: str, place: str) -> None:
    model = opened(family)
    given, chosen = PLACES[place]

    def one_by_one(model: Any, input_ids: Tensor, **_: Any) -> Tensor:
        for _ in range(5):
            logits = model(input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False).logits
            input_ids = torch.cat([input_ids, logits[:, -1:].argmax(-1)], dim=1)
        return input_ids

    found = written(model, iv.Where(**given), custom_generate=one_by_one)
    assert found == write_alone(model.module, ROW, 1, delta(), chosen, 5)


@pytest.mark.parametrize("place", ["generated", "prompt end", "steps"])
def test_a_cache_that_was_filled_before_is_gone_on_from(family: str, place: str) -> None:
    model = opened(family)
    given, chosen = PLACES[place]
    ids = torch.tensor([ROW])
    with torch.no_grad():
        cache = model.module(ids[:, :4], use_cache=True).past_key_values
    wanted = write_alone(model.module, ROW, 1, delta(), chosen, STEPS)
    assert written(model, iv.Where(**given), past_key_values=cache) == wanted
    with torch.no_grad():
        cache = model.module(ids[:, :4], use_cache=True).past_key_values
    with pytest.raises(EditError, match=r"wanted over the (whole )?prompt"):
        written(model, iv.Where(condition=FOUND.reading().over_prompt() > 0), past_key_values=cache)


def test_rows_that_are_packed_one_behind_the_other_are_refused(model: iv.Model) -> None:
    packed = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]]), "position_ids": torch.tensor([[0, 1, 2, 0, 1]])}
    for where in (iv.Where(positions=0), iv.Where(scope="generated"), iv.Where(schedule=iv.Ramp(3))):
        with (
            iv.editing(model, [iv.Add(direction(), where=where)]),
            pytest.raises(EditError, match="where its tokens stand is unknown"),
        ):
            model.module(**packed)


@pytest.mark.parametrize("way", ["dynamic", "static", "none", "lookup"])
@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        (iv.Ramp(4), lambda t: min(1.0, (max(t, 0) + 1) / 4)),
        (iv.Decay(1.5), lambda t: 0.5 ** (max(t, 0) / 1.5)),
        (iv.Pulse(2, 1), lambda t: float(max(t, 0) % 3 < 2)),
        (0.5, lambda t: 0.5),
        (lambda step: 1.0 - 0.3 * step, lambda t: 1.0 - 0.3 * max(t, 0)),
    ],
    ids=["ramp", "decay", "pulse", "constant", "function"],
)
def test_a_schedule_gives_each_step_its_share(family: str, schedule: Any, share: Any, way: str) -> None:
    model = opened(family)
    found = list(ROW)
    for _ in range(STEPS):
        row = list(found)
        strengths = torch.tensor([share(p - len(ROW)) for p in range(len(row))])[None, :, None]

        def change(module: Any, args: Any, out: Any, strengths: Tensor = strengths) -> Any:
            x = out[0] if isinstance(out, tuple) else out
            new = x + delta().float() * strengths
            return (new, *out[1:]) if isinstance(out, tuple) else new

        layers = model.module.transformer.h if family == "gpt2" else model.module.model.layers
        handle = layers[1].register_forward_hook(change)
        with torch.no_grad():
            found.append(int(model.module(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
        handle.remove()
    own: dict[str, Any] = {"dynamic": {}, "none": {"use_cache": False}} | ways(family)
    assert written(model, iv.Where(schedule=schedule), **own[way]) == found[len(ROW) :]
