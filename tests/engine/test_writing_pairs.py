"""Encoder–decoders write under edits: against transformers' own generate with hooks made by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)  # fmt: skip

import innerview as iv
from innerview.errors import CaptureError, EditError, GenerationError
from tests.networks import hook_ids

ENCODER, DECODER = "encoder.blocks.0.resid", "decoder.blocks.0.resid"
FAMILIES = ("t5", "bart", "marian")
CACHES = ("dynamic", "static", "none")
ROWS, STEPS, VOCAB = [[4, 5, 6, 7, 8], [9, 10], [11, 12, 13]], 5, 50


def module(family: str) -> Any:
    torch.manual_seed(0)
    if family == "t5":
        config: Any = T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        config.decoder_start_token_id = 0
        made: Any = T5ForConditionalGeneration(config)
    else:
        kind, network = {"bart": (BartConfig, BartForConditionalGeneration), "marian": (MarianConfig, MarianMTModel)}[
            family
        ]
        config = kind(
            vocab_size=VOCAB, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, init_std=0.6,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
        )  # fmt: skip
        made = network(config)
    # Heads of small random networks repeat one word; another head takes other words at each step.
    head = torch.randn(made.lm_head.weight.shape, generator=torch.Generator().manual_seed(5))
    made.lm_head.weight = torch.nn.Parameter(head)
    made.generation_config.eos_token_id = None
    return made.eval()


def opened(family: str) -> iv.Model:
    return iv.open_model(module(family))


def layer(root: Any, side: str) -> Any:
    part = getattr(root, f"get_{side}")()
    return part.block[0] if hasattr(part, "block") else part.layers[0]


def batch(rows: list[list[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def edit_of(site: str, where: iv.Where, coefficient: float = 3.0) -> tuple[iv.Add, Tensor]:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    d = iv.Direction.from_vector(vector, site, name="d", scale=2.0, residual_norm=2.0)
    return iv.Add(d, coefficient, where=where), (d.vector.double() * d.scale * coefficient).float()


def by_hand(root: Any, side: str, change: Any, cache: str, **options: Any) -> list[list[int]]:
    """What transformers writes with `change(columns, mask)` times a vector added behind the first layer of a side.

    Args:
        root: The network.
        side: `encoder` or `decoder`.
        change: Of the columns that pass, what is added, shape [rows or 1, columns, d_model].
        cache: How it remembers.
        options: Of `generate`.
    """
    ids, mask = batch(ROWS)
    seen = 0

    def add(_: Any, args: Any, output: Any) -> Any:
        nonlocal seen
        x = output[0] if isinstance(output, tuple) else output
        first = seen if side == "decoder" and cache != "none" else 0
        seen += x.shape[1]
        new = x + change(torch.arange(first, first + x.shape[1]), mask)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    ways = {"static": {"cache_implementation": "static", "disable_compile": True}, "none": {"use_cache": False}}
    handle = layer(root, side).register_forward_hook(add)
    try:
        made = root.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, **ways.get(cache, {}), **options
        )
    finally:
        handle.remove()
    return made[:, 1:].tolist()


DECODERS = {
    "everywhere": (iv.Where(), lambda column: column >= 0),
    "start": (iv.Where(scope="prompt"), lambda column: column == 0),
    "generated": (iv.Where(scope="generated"), lambda column: column >= 1),
    "second": (iv.Where(positions=(1,)), lambda column: column == 1),
    "steps": (iv.Where(steps=(1, 3)), lambda column: (column == 2) | (column == 4)),
}


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_unedited_run_is_transformers_own_greedy_text(family: str, cache: str) -> None:
    model = opened(family)
    run = iv.generate(model, ROWS, max_new_tokens=STEPS, cache=cache)
    run.wait()
    assert run.tokens_so_far == by_hand(model.module, "decoder", lambda columns, mask: 0.0, cache)
    assert run.prompt_tokens == ROWS


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("choice", DECODERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_in_the_decoder_counts_the_decoders_own_tokens(family: str, choice: str, cache: str) -> None:
    model, (where, chosen) = opened(family), DECODERS[choice]
    edit, vector = edit_of(DECODER, where, 8.0)
    before = hook_ids(model.module)
    run = iv.generate(model, ROWS, edits=[edit], max_new_tokens=STEPS, cache=cache)
    run.wait()
    wanted = by_hand(model.module, "decoder", lambda c, mask: chosen(c).float()[None, :, None] * vector, cache)
    plain = by_hand(model.module, "decoder", lambda c, mask: 0.0, cache)
    assert run.tokens_so_far == wanted != plain
    assert hook_ids(model.module) == before


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_in_the_encoder_counts_its_tokens_and_no_padding(family: str, is_last: bool, cache: str) -> None:
    model = opened(family)
    edit, vector = edit_of(ENCODER, iv.Where(positions=(-1,)) if is_last else iv.Where(), 6.0)
    run = iv.generate(model, ROWS, edits=[edit], max_new_tokens=STEPS, cache=cache)
    run.wait()

    def change(columns: Tensor, mask: Tensor) -> Tensor:
        last = mask * (columns == mask.sum(dim=1, keepdim=True) - 1)
        return (last if is_last else mask).float()[..., None] * vector

    assert run.tokens_so_far == by_hand(model.module, "encoder", change, cache)
    assert run.tokens_so_far != by_hand(model.module, "encoder", lambda c, mask: 0.0, cache)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_batch_are_written_as_each_alone(family: str) -> None:
    model = opened(family)
    edits = [edit_of(ENCODER, iv.Where(positions=(-1,)))[0], edit_of(DECODER, iv.Where(steps=(1, 3)))[0]]
    run = iv.generate(model, ROWS, edits=edits, max_new_tokens=STEPS)
    run.wait()
    alone = [iv.generate(model, [row], edits=edits, max_new_tokens=STEPS) for row in ROWS]
    assert run.tokens_so_far == [tokens for one in alone if one.wait() for tokens in one.tokens_so_far]


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_and_the_networks_own_forced_tokens_are_transformers_own(family: str) -> None:
    model = opened(family)
    root: Any = model.module
    root.generation_config.forced_bos_token_id = 7
    root.generation_config.bad_words_ids = [[9]]
    edit, vector = edit_of(DECODER, iv.Where(), 1.0)
    run = iv.generate(model, ROWS, edits=[edit], max_new_tokens=STEPS, num_beams=3)
    run.wait()
    assert run.tokens_so_far == by_hand(root, "decoder", lambda c, mask: vector, "dynamic", num_beams=3)
    assert all(row[0] == 7 and 9 not in row for row in run.tokens_so_far)


def test_what_follows_the_end_is_no_part_of_the_text() -> None:
    model = opened("bart")
    root: Any = model.module
    plain = iv.generate(model, ROWS, max_new_tokens=STEPS)
    plain.wait()
    end = plain.tokens_so_far[1][2]
    root.generation_config.eos_token_id = end
    run = iv.generate(model, ROWS, max_new_tokens=STEPS, edits=[edit_of(DECODER, iv.Where(), 0.0)[0]])
    run.wait()
    assert run.tokens_so_far == [row[: row.index(end) + 1] if end in row else row for row in plain.tokens_so_far]


@pytest.mark.parametrize("family", FAMILIES)
def test_readings_and_activations_of_the_decoder_are_those_of_a_plain_forward(family: str) -> None:
    model = opened(family)
    d = edit_of(DECODER, iv.Where())[0].direction
    run = iv.generate(model, ROWS, max_new_tokens=STEPS, readings=[d], capture=[DECODER])
    run.wait()
    ids, mask = batch(ROWS)
    start = model.module.config.decoder_start_token_id  # type: ignore[union-attr]
    fed = torch.tensor([[start, *row[:-1]] for row in run.tokens_so_far])
    whole = iv.capture(model, {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": fed}, DECODER)[DECODER]
    acts = run.activations
    assert acts.tokens is not None and torch.equal(acts.tokens, fed)
    torch.testing.assert_close(acts[DECODER], whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(run.projections["d"]), d.reading().of(whole), atol=1e-4, rtol=1e-4)
    with pytest.raises(CaptureError, match="encoder's tokens"):
        iv.generate(model, ROWS, capture=[ENCODER])


@pytest.mark.parametrize("cache", ["dynamic", "none"])
def test_an_update_changes_the_decoder_from_the_next_token_on_and_not_what_was_read(cache: str) -> None:
    model, late = opened("bart"), edit_of(DECODER, iv.Where())[0]
    read = edit_of(ENCODER, iv.Where(), 1.0)[0]
    refused = []

    def listen(run: iv.Generation) -> None:
        if len(run.tokens_so_far[0]) == 2:
            try:
                run.update([late, edit_of(ENCODER, iv.Where(), 2.0)[0]])
            except EditError as error:
                refused.append(str(error))
            run.update([read, late])

    run = iv.generate(model, ROWS, edits=[read], max_new_tokens=STEPS, cache=cache, on_token=listen)
    run.wait()
    same = iv.generate(
        model,
        ROWS,
        edits=[read, edit_of(DECODER, iv.Where(steps=range(1, STEPS)))[0]],
        max_new_tokens=STEPS,
        cache=cache,
    )
    same.wait()
    assert run.tokens_so_far == same.tokens_so_far
    assert refused and "the encoder has read its text" in refused[0]


def test_what_a_side_does_not_have_is_refused() -> None:
    model = opened("bart")
    with pytest.raises(EditError, match="position 2 is past the end: the shortest row has 2 tokens"):
        iv.generate(model, ROWS, edits=[edit_of(ENCODER, iv.Where(positions=(2,)))[0]])
    with pytest.raises(EditError, match="position 5 is past the end: the shortest row has 1 tokens and 4 to come"):
        iv.generate(model, ROWS, edits=[edit_of(DECODER, iv.Where(positions=(5,)))[0]], max_new_tokens=STEPS)
    with pytest.raises(GenerationError, match="decoder's context of 64; ask for at most 63"):
        iv.generate(model, ROWS, max_new_tokens=64)
    root: Any = model.module
    root.config.decoder_start_token_id = root.generation_config.decoder_start_token_id = None
    with pytest.raises(GenerationError, match="does not say what its decoder starts from"):
        iv.generate(model, ROWS)
