"""Recurrent networks keep a state that counts no tokens: edits are placed by innerview's own count."""

from typing import Any

import pytest
import torch
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

import innerview as iv
from tests.networks import VOCAB, direction, ragged, tokenizer

SHARED: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
NETWORKS: dict[str, Any] = {
    "mamba": lambda: MambaForCausalLM(MambaConfig(state_size=8, **SHARED)),
    "mamba2": lambda: Mamba2ForCausalLM(
        Mamba2Config(state_size=8, num_heads=4, head_dim=16, n_groups=1, chunk_size=8, **SHARED)
    ),
    "falcon_mamba": lambda: FalconMambaForCausalLM(FalconMambaConfig(state_size=8, **SHARED)),
    "rwkv": lambda: RwkvForCausalLM(RwkvConfig(context_length=64, attention_hidden_size=32, **SHARED)),
}


def opened(name: str) -> iv.Model:
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    module.generation_config.eos_token_id = None
    text = tokenizer()
    text.eos_token = None
    return iv.open_model(module, tokenizer=text)


D = direction("blocks.0.resid", size=8.0)
PLACES = {
    "generated": iv.Where(scope="generated"),
    "prompt": iv.Where(scope="prompt"),
    "position": iv.Where(positions=(0, 4)),
    "last": iv.Where(positions=(-1,)),
    "steps": iv.Where(steps=(1, 2)),
    "text": iv.Where(text="w3"),
    "over the prompt": iv.Where(scope="generated", condition=D.reading().over_prompt("mean") > -1e9),
    "schedule": iv.Where(scope="generated", schedule=iv.Pulse(1, 2)),
}


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_state_carries_on_what_computing_everything_again_writes(name: str, place: str) -> None:
    model = opened(name)
    # Only Mamba 2 is the same with pads in front, and RWKV in transformers mixes the rows of a batch when it goes on from a state.
    lengths = {"mamba2": (5, 3), "rwkv": (4,)}.get(name, (4, 4))
    rows = [[*row[:-1], 6] for row in ragged(lengths)]
    edits = [iv.Add(D, 3.0, where=PLACES[place])]
    runs = [
        iv.generate(model, rows, edits=edits, max_new_tokens=5, cache=cache, capture="blocks.0.resid")
        for cache in ("dynamic", "none")
    ]
    found, wanted = (run.activations["blocks.0.resid"] for run in runs)
    assert runs[0].tokens_so_far == runs[1].tokens_so_far
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("place", ["generated", "position", "text", "steps"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_users_own_generate_counts_alike(name: str, place: str) -> None:
    model, row = opened(name), [[5, 9, 11, 6]]
    edits = [iv.Add(D, 3.0, where=PLACES[place])]
    wanted = iv.generate(model, row, edits=edits, max_new_tokens=5, cache="none")
    wanted.wait()
    with iv.editing(model, edits):
        made = model.module.generate(torch.tensor(row), max_new_tokens=5, do_sample=False)  # type: ignore[operator]
    assert made[0, 4:].tolist() == wanted.tokens_so_far[0]


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_loop_of_the_users_own_goes_on_from_its_state(name: str) -> None:
    model, x = opened(name), torch.tensor([[5, 9, 11, 6, 20, 21]])
    edits = [iv.Add(D, 3.0, where=iv.Where(positions=(1, 4)))]
    with torch.no_grad():
        wanted = iv.capture(model, x, "logits", edits=edits)["logits"]
        with iv.editing(model, edits, prompt_tokens=4):
            parts = [model.module(x[:, :4], use_cache=True)]
            parts += [model.module(x[:, i : i + 1], cache_params=parts[0].cache_params, use_cache=True) for i in (4, 5)]
    torch.testing.assert_close(torch.cat([part.logits for part in parts], dim=1), wanted, atol=1e-4, rtol=1e-4)


def test_a_state_whose_beginning_was_not_seen_is_refused() -> None:
    model, x = opened("mamba"), torch.tensor([[5, 9, 11, 6]])
    with torch.no_grad():
        state = model.module(x, use_cache=True).cache_params
        edits = [iv.Add(D, where=iv.Where(positions=(0,)))]
        with iv.editing(model, edits), pytest.raises(iv.EditError, match="whose beginning was not seen"):
            model.module(x[:, :1], cache_params=state, use_cache=True)
    with pytest.raises(iv.EditError, match="goes on from a cache"):
        iv.capture(model, {"input_ids": x[:, :1], "cache_params": state}, "logits", edits=edits)
