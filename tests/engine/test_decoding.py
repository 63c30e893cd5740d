"""Who writes the tokens: the loop of our own against transformers' `generate`, and what is left to that."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LogitsProcessor,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import innerview as iv
from innerview.models.options import Options
from innerview.models.sampling import GumbelSampler
from tests.networks import VOCAB, direction, opened, ragged

SMALL: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=VOCAB,
    head_dim=8, bos_token_id=1, eos_token_id=None, pad_token_id=0, initializer_range=0.4, max_position_embeddings=64,
)  # fmt: skip


def other(kind: str) -> iv.Model:
    """Networks with a window shorter than the text, with softcaps, with experts."""
    torch.manual_seed(0)
    if kind == "window":
        made: Any = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4))
    elif kind == "softcap":
        made = Gemma2ForCausalLM(Gemma2Config(**SMALL, sliding_window=4))
    else:
        made = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4))
    made.generation_config.eos_token_id = None
    return iv.open_model(made.eval())


def by_transformers(
    model: iv.Model, rows: list[list[int]], options: Options, eos: int | None = None
) -> list[list[int]]:
    """What transformers' own generate writes behind rows padded left, a row ending with its end of text."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    drawn: list[LogitsProcessor] = [GumbelSampler(options)] if options.is_drawn else []  # type: ignore[list-item]
    root: Any = model.module
    out: Tensor = root.generate(
        ids, attention_mask=mask, max_new_tokens=options.max_new_tokens, do_sample=False, pad_token_id=0, eos_token_id=eos,
        logits_processor=drawn,
    )  # fmt: skip
    found = out[:, width:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in found]


def greedy(n: int, **more: Any) -> Options:
    given: dict[str, Any] = dict(
        temperature=0.0, top_k=None, top_p=None, seed=0, num_beams=1, num_return_sequences=1, cache="dynamic"
    )
    return Options(max_new_tokens=n, **given | more)


@pytest.mark.parametrize("lengths", [(7,), (5, 5), (7, 3, 5)])
def test_the_own_loop_writes_what_generate_writes(typed: iv.Model, lengths: tuple[int, ...]) -> None:
    rows = ragged(lengths)
    run = iv.generate(typed, rows, max_new_tokens=9)
    run.wait()
    assert run.decoder == "own loop" and run.tokens_so_far == by_transformers(typed, rows, greedy(9))


@pytest.mark.parametrize("kind", ["window", "softcap", "experts"])
def test_it_does_so_in_networks_of_other_kinds(kind: str) -> None:
    model, rows = other(kind), ragged((9, 4))
    run = iv.generate(model, rows, max_new_tokens=9)
    run.wait()
    assert run.decoder == "own loop" and run.tokens_so_far == by_transformers(model, rows, greedy(9))


def test_draws_are_those_of_the_same_generator(model: iv.Model) -> None:
    rows = ragged((6, 4))
    for more in ({"temperature": 0.8}, {"temperature": 1.3, "top_k": 5}, {"temperature": 1.0, "top_p": 0.7}):
        run = iv.generate(model, rows, max_new_tokens=8, seed=3, **more)
        run.wait()
        assert run.tokens_so_far == by_transformers(model, rows, greedy(8, seed=3, **more)), more
    several = iv.generate(model, rows[0], max_new_tokens=8, seed=3, temperature=1.0, num_return_sequences=3)
    several.wait()
    assert several.tokens_so_far == by_transformers(model, [rows[0]] * 3, greedy(8, seed=3, temperature=1.0))


def test_rows_end_where_generate_ends_them(family: str) -> None:
    plain, rows = opened(family), ragged((6, 4, 5))
    free = by_transformers(plain, rows, greedy(10))
    # A word that one row writes early and that the others write late or never.
    eos = free[0][2]
    model = opened(family, eos=eos)
    run = iv.generate(model, rows, max_new_tokens=10)
    run.wait()
    assert run.tokens_so_far == by_transformers(model, rows, greedy(10), eos) and len(run.tokens_so_far[0]) <= 3
    alone = iv.generate(model, rows[0], max_new_tokens=10)
    alone.wait()
    assert alone.tokens_so_far == [run.tokens_so_far[0]]


def test_what_is_left_to_transformers_says_why(model: iv.Model) -> None:
    x = ragged((5,))
    edits = [iv.Add(direction(), 0.4)]
    wanted = iv.generate(model, x, edits=edits, max_new_tokens=6)
    wanted.wait()
    for options, why in (({"cache": "static"}, "cache='static'"), ({"cache": "none"}, "cache='none'")):
        run = iv.generate(model, x, edits=edits, max_new_tokens=6, **options)
        run.wait()
        assert run.decoder == f"transformers' generate: {why}" and run.tokens_so_far == wanted.tokens_so_far
    beams = iv.generate(model, x, max_new_tokens=6, num_beams=2)
    beams.wait()
    assert beams.decoder == "transformers' generate: 2 beams"


def test_a_state_space_network_and_one_with_a_generate_of_its_own_are_left_to_it() -> None:
    torch.manual_seed(0)
    config = MambaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        vocab_size=VOCAB,
        state_size=8,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    mamba: Any = MambaForCausalLM(config).eval()
    mamba.generation_config.eos_token_id = None
    run = iv.generate(iv.open_model(mamba), ragged((5,)), max_new_tokens=3)
    run.wait()
    assert run.decoder.startswith("transformers' generate: MambaForCausalLM ")

    model = opened("gpt2")
    root: Any = model.module
    generate, called = root.generate, []
    root.generate = lambda **given: called.append(given) or generate(**given)
    mine = iv.generate(model, ragged((5,)), max_new_tokens=3)
    mine.wait()
    assert mine.decoder == "transformers' generate: GPT2LMHeadModel has a generate of its own" and len(called) == 1
