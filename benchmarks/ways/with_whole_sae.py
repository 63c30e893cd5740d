"""Steering a feature by its whole SAE: encode every feature, set the one, decode, and add back what the SAE leaves out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import innerview as iv
from benchmarks.networks import blocks
from benchmarks.ways.with_hooks import greedy

Change = Callable[[Tensor], Tensor]


def by_hand(sae: iv.Dictionary, feature: int, value: float) -> Change:
    """A JumpReLU SAE as one writes it in plain PyTorch."""
    w = sae.weights
    encoder, bias, decoder, decoder_bias = w.encoder.T.contiguous(), w.encoder_bias, w.decoder, w.decoder_bias
    threshold = w.extras["threshold"]

    def change(x: Tensor) -> Tensor:
        pre = x @ encoder + bias
        codes = torch.where(pre > threshold, pre, 0.0)
        error = x - (codes @ decoder + decoder_bias)
        codes[..., feature] = value
        return codes @ decoder + decoder_bias + error

    return change


def by_sae_lens(sae: iv.Dictionary, feature: int, value: float) -> Change:
    """SAELens' JumpReLU SAE.

    Raises:
        ImportError: SAELens is not installed.
    """
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig  # pyright: ignore[reportMissingImports]

    config = JumpReLUSAEConfig(d_in=sae.d_in, d_sae=sae.n_features, apply_b_dec_to_input=False)
    theirs: Any = JumpReLUSAE(config).eval()
    w = sae.weights
    with torch.no_grad():
        theirs.W_enc.copy_(w.encoder.T)
        theirs.b_enc.copy_(w.encoder_bias)
        theirs.W_dec.copy_(w.decoder)
        theirs.b_dec.copy_(w.decoder_bias)
        theirs.threshold.copy_(w.extras["threshold"])

    def change(x: Tensor) -> Tensor:
        codes = theirs.encode(x)
        error = x - theirs.decode(codes)
        codes[..., feature] = value
        return theirs.decode(codes) + error

    return change


def decode(module: Any, ids: Tensor, layer: int, change: Change, tokens: int) -> Callable[[], list[list[int]]]:
    """Greedy text, row by row, with what leaves block `layer` changed at every token, by one hook and transformers' `generate`."""
    block, options = blocks(module)[layer], greedy(ids, tokens)

    def hook(_: nn.Module, args: tuple, output: Any) -> Any:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    def call() -> list[list[int]]:
        handle = block.register_forward_hook(hook)
        try:
            return module.generate(ids, **options)[:, ids.shape[1] :].tolist()
        finally:
            handle.remove()

    return call
