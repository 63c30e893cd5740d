"""A small network with a tokenizer of its own, whose words may be any; and what keeps the messages of a widget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import innerview as iv
from innerview.widgets import wire
from tests.widgets.made import World

# Printable characters, a space and a line end, as byte-level vocabularies write them.
LETTERS = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def tokenizer(words: Sequence[str] = ()) -> Any:
    """Every character a token, behind three special ones; whole words behind them."""
    vocab = {word: i for i, word in enumerate(["<s>", "</s>", "<pad>", *LETTERS])}
    core = Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = CHAT
    if words:
        whole: list[Any] = [AddedToken(word, normalized=False, special=False) for word in words]
        made.add_tokens(whole)
    return made


def network(words: int = 0) -> Any:
    """Two layers, weights large enough that its words differ, for so many more words."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LETTERS) + 3 + words, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.4, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    made.generation_config.eos_token_id = None
    return made


def direction_of(name: str) -> iv.Direction:
    """A direction in that network."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    return iv.Direction.from_vector(vector, "blocks.0.resid", name=name, scale=4.0, residual_norm=8.0)


def world(folder: Path, texts: Sequence[str] = ("a", "one", "two", "", "b"), tokens: int = 12) -> World:
    """A world whose tokens are `texts` where a tokenizer can hold them, and whose names they are everywhere."""
    # No tokenizer holds half a character or nothing; a word stands in it once.
    words = [one for one in dict.fromkeys(texts) if len(one) > 1 and one == one.encode("utf-8", "replace").decode()]
    made = tokenizer(words)
    first = len(LETTERS) + 3
    ids = [0, *(first + nth % max(1, len(words)) if words else 5 + nth for nth in range(tokens - 1))]
    model = iv.open_model(network(len(words)), tokenizer=made)
    object.__setattr__(model, "name", texts[0] or "a model")
    # A direction refuses a name of half characters.
    named = wire.sendable(texts[1 % len(texts)]) or "a direction"
    return World(model, direction_of(named), folder, ids, list(texts))


class Comm:
    """What a widget sends, kept in order."""

    comm_id = "kept"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        self.sent.append({**data, "buffers": list(buffers or [])})

    def close(self, *_: Any, **__: Any) -> None:
        self.sent.append({"method": "close"})

    def on_msg(self, _: Any) -> None:
        """Messages are handed over by the tests."""

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [message["content"] for message in self.sent if message.get("method") == "custom"]
