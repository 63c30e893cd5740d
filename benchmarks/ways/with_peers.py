"""Encoders and decoders as the peers run them: SAELens, sparsify and dictionary_learning, each where it can be imported."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = ("sae_lens", "sparsify", "dictionary_learning")


def load() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The peers that can be imported, and why the others cannot."""
    found: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def sae_lens_jump_relu(weight: Tensor, threshold: float) -> Callable[[Tensor], Tensor]:
    """SAELens' JumpReLU encode: dense codes."""
    import sae_lens

    made: Any = sae_lens.JumpReLUSAE(
        sae_lens.JumpReLUSAEConfig(d_in=weight.shape[1], d_sae=1, apply_b_dec_to_input=False)
    )
    made.W_enc = nn.Parameter(weight.T.contiguous())
    made.b_enc = nn.Parameter(torch.zeros(len(weight)))
    made.threshold = nn.Parameter(torch.full((len(weight),), threshold))
    return _without_gradients(made.eval().encode)


def sae_lens_top_k(weight: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """SAELens' TopK encode: dense codes."""
    import sae_lens

    config = sae_lens.TopKSAEConfig(d_in=weight.shape[1], d_sae=max(1, k), k=k, apply_b_dec_to_input=False)
    made: Any = sae_lens.TopKSAE(config)
    made.W_enc = nn.Parameter(weight.T.contiguous())
    made.b_enc = nn.Parameter(torch.zeros(len(weight)))
    return _without_gradients(made.eval().encode)


def sparsify_top_k(weight: Tensor, k: int) -> Callable[[Tensor], Any]:
    """sparsify's encode: the k largest values and their features."""
    from sparsify.fused_encoder import fused_encoder

    bias = torch.zeros(len(weight))
    return _without_gradients(lambda x: fused_encoder(x, weight, bias, k, "topk"))


def dictionary_learning_top_k(weight: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """dictionary_learning's TopK encode: dense codes."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made: Any = AutoEncoderTopK(weight.shape[1], max(2, k), k)
    made.encoder = nn.Linear(weight.shape[1], 1)
    made.encoder.weight, made.encoder.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(len(weight)))
    return _without_gradients(made.encode)


def sparsify_decode(decoder: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """sparsify's decode of the features and values of each token."""
    from sparsify.utils import decoder_impl

    return lambda features, values: decoder_impl(features, values, decoder.mT)


def _without_gradients(encode: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> Any:
        with torch.no_grad():
            return encode(x)

    return call
