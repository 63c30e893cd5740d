"""Text from a network, plain transformers: the checks stand on no hook of innerview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from innerview.models.adapters import adapter_of, check_base, merge

BATCH = 64


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network and its tokenizer, ready to generate."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def load(folder: Path) -> Loaded:
    """The model of a folder, in float32, offline; an adapter is merged into its base."""
    adapter = adapter_of(folder)
    home = adapter.base if adapter else folder
    network = AutoModelForCausalLM.from_pretrained(home, local_files_only=True, dtype=torch.float32)
    if adapter:
        check_base(adapter)
        merge(network, adapter)
    return Loaded(network.eval(), AutoTokenizer.from_pretrained(home, local_files_only=True))


def continuations(loaded: Loaded, prompts: Sequence[str], max_new_tokens: int, *, sample: bool = False) -> list[str]:
    """What the network writes after each prompt, special tokens left out; greedy unless `sample`.

    Args:
        prompts: Text as the tokenizer reads it, marks of the chat form included.
        max_new_tokens: Where to stop a text that does not end itself.
        sample: Draw at temperature 1 from torch's own generator.
    """
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH):
        rows = loaded.tokenizer(
            list(prompts[start : start + BATCH]), return_tensors="pt", padding=True, padding_side="left"
        )
        with torch.no_grad():
            ids = loaded.network.generate(
                input_ids=rows["input_ids"],
                attention_mask=rows["attention_mask"],
                max_new_tokens=max_new_tokens,
                do_sample=sample,
                pad_token_id=loaded.tokenizer.pad_token_id,
                **({"top_k": 0, "top_p": 1.0, "temperature": 1.0} if sample else {}),
            )
        texts += loaded.tokenizer.batch_decode(ids[:, rows["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts
