"""A small network with a tokenizer of its own, and widgets whose messages are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import innerview as iv

# Printable characters, a space and a line end, as byte-level vocabularies write them.
LETTERS = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def tokenizer() -> Any:
    """Every character a token, behind three special ones."""
    vocab = {word: i for i, word in enumerate(["<s>", "</s>", "<pad>", *LETTERS])}
    core = Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="session")
def model() -> iv.Model:
    """Two layers, weights large enough that its words differ."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LETTERS) + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.4, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    network = LlamaForCausalLM(config).eval()
    network.generation_config.eos_token_id = None
    return iv.open_model(network, tokenizer=tokenizer())


@pytest.fixture(scope="session")
def direction(model: iv.Model) -> iv.Direction:
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(32, generator=generator)
    return iv.Direction.from_vector(vector, "blocks.0.resid", name="good mood", scale=4.0, residual_norm=8.0)


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


@pytest.fixture
def listen() -> Callable[[Any], Comm]:
    """Keep what a widget sends from now on."""

    def listening(widget: Any) -> Comm:
        widget.comm = Comm()
        return widget.comm

    return listening


@pytest.fixture
def until() -> Callable[..., Any]:
    """What a function gives once it is something, or its last word after a while."""

    def found_by(found: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        end = time.monotonic() + timeout_s
        while not found() and time.monotonic() < end:
            time.sleep(0.01)
        return found()

    return found_by


@pytest.fixture
def ask(until: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a message over as the browser would; the answers to its id, waited for."""

    def asked(widget: Any, comm: Comm, message: dict[str, Any]) -> list[dict[str, Any]]:
        widget._handle_custom_msg(message, [])
        return until(lambda: [answer for answer in comm.answers if answer["id"] == message["id"]])

    return asked
