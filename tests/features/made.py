"""Small networks with dictionaries that somebody else's arithmetic checks: activations by a plain hook, codes by numpy."""

import numpy as np
import torch
from torch import Tensor, nn

import innerview as iv
from tests.networks import VOCAB, WIDTH, blocks, module, ragged, tokenizer

N, SITE = 48, "blocks.1.resid"
LENGTHS = (9, 14, 3, 20, 11, 2, 17, 14, 6, 23) * 4
PLAIN = iv.Normalisation()


def opened(family: str = "gpt2", *, bos: bool = False, seed: int = 0) -> iv.Model:
    """A random network whose norms have weights of their own, with a tokenizer."""
    root = module(family, seed=seed)
    torch.manual_seed(3)
    for one in root.modules():
        if "Norm" in type(one).__name__:
            one.weight.data = 1 + 0.5 * torch.randn_like(one.weight)
    text = tokenizer()
    text.eos_token = None
    return iv.open_model(root, tokenizer=text)


def dictionary(
    site: str = SITE, *, bos: str = "unknown", k: int | None = None, site_out: str = "", seed: int = 0
) -> iv.Dictionary:
    """Random features; JumpReLU with a threshold that leaves some silent, or TopK."""
    generator = torch.Generator().manual_seed(seed)
    encoder = torch.randn(N, WIDTH, generator=generator) / WIDTH**0.5
    decoder = torch.randn(N, WIDTH, generator=generator)
    extras = {} if k else {"threshold": torch.cat([torch.logspace(-0.3, 1.5, N - 1), torch.tensor([1e4])])}
    weights = iv.Weights(encoder, torch.zeros(N), decoder, torch.zeros(WIDTH), extras=extras)
    kind = iv.TopK(k) if k else iv.JumpReLU()
    return iv.Dictionary(weights, kind, iv.Manifest(False, PLAIN, site=site, site_out=site_out, model="small", bos=bos, source="made"))  # fmt: skip


def corpus(seed: int = 0) -> list[list[int]]:
    """Rows of ids, each with the BOS in front, no two alike."""
    generator = np.random.default_rng(seed)
    skewed = 3 + np.minimum(generator.zipf(1.4, size=sum(LENGTHS)) - 1, VOCAB - 4)
    rows, start = [], 0
    for nth, length in enumerate(LENGTHS):
        # The second token is the row's own number, so that no two are alike.
        rows.append([1, 3 + nth % (VOCAB - 3), 3 + nth // 7, *skewed[start : start + length].tolist()])
        start += length
    return rows


def hooked(model: iv.Model, row: list[int], pick: nn.Module) -> Tensor:
    """What leaves a module when transformers runs a row alone, shape [pos, width]."""
    kept = []
    handle = pick.register_forward_hook(lambda _m, _i, out: kept.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model.module(torch.tensor([row]))
    handle.remove()
    return kept[0].reshape(-1, kept[0].shape[-1])


def dense(model: iv.Model, own: iv.Dictionary, row: list[int]) -> np.ndarray:
    """Every feature at every token of a row, by hand, float64, shape [pos, N]."""
    x = hooked(model, row, blocks(model.module)[1]).double().numpy()
    pre = x @ own.weights.encoder.double().numpy().T
    if isinstance(own.architecture, iv.TopK):
        least = np.sort(pre, axis=1)[:, -own.architecture.k, None]
        return np.where(pre >= least, np.maximum(pre, 0), 0)
    return np.where(pre > own.weights.extras["threshold"].double().numpy(), pre, 0)


def all_dense(model: iv.Model, own: iv.Dictionary, rows: list[list[int]]) -> list[np.ndarray]:
    """The same of every row, its first token, the BOS, left out."""
    return [dense(model, own, row)[1:] for row in rows]


__all__ = ["all_dense", "corpus", "dense", "dictionary", "hooked", "opened", "ragged"]
