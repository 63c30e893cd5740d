"""Random dictionaries of every architecture that this repository publishes formulas for, and those formulas in float64."""

import torch
from torch import Tensor

import innerview as iv

N_FEATURES, WIDTH = 48, 32
ARCHITECTURES = {
    "relu": iv.ReLU(),
    "jump_relu": iv.JumpReLU(),
    "batch_top_k": iv.BatchTopK(k=6),
    "top_k": iv.TopK(k=6),
    "gated": iv.Gated(),
}
NORMALISATIONS = {
    "none": iv.Normalisation(),
    "constant": iv.Normalisation("constant", 0.37),
    "constant, not undone": iv.Normalisation("constant", 1.7, is_undone=False),
    "layer_norm": iv.Normalisation("layer_norm"),
    "unit_norm": iv.Normalisation("unit_norm", epsilon=1e-6),
}


def dictionary(
    architecture: str = "relu", normalisation: str = "none", *, subtracts: bool = False, skip: bool = False, seed: int = 0,
    site: str = "blocks.1.resid", site_out: str = "", n: int = N_FEATURES, d_in: int = WIDTH, d_out: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> iv.Dictionary:  # fmt: skip
    """A random dictionary whose features are active at about a third of random tokens."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, size: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * size

    out = d_out or d_in
    extras: dict[str, Tensor] = {}
    if architecture in ("jump_relu", "batch_top_k"):
        extras["threshold"] = random(n).abs() * 0.5 - (0.1 if architecture == "jump_relu" else 0.0)
    if architecture == "gated":
        extras = {
            "gate_bias": random(n, size=0.5),
            "log_magnitude": random(n, size=0.3),
            "magnitude_bias": random(n, size=0.5),
        }
    bias = random(n, size=0.2) - 0.3
    weights = iv.Weights(
        random(n, d_in, size=d_in**-0.5), bias, random(n, out, size=out**-0.5), random(out, size=0.3),
        random(out, d_in, size=0.1) if skip else None, extras,
    )  # fmt: skip
    manifest = iv.Manifest(subtracts, NORMALISATIONS[normalisation], site=site, site_out=site_out)
    return iv.Dictionary(weights.to(dtype=dtype), ARCHITECTURES[architecture], manifest)


def shift_and_scale(given: iv.Normalisation, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is subtracted and divided by, from the papers' and the packages' formulas; one token at a time."""
    zero, one = torch.zeros(1, dtype=x.dtype), torch.ones(1, dtype=x.dtype)
    if given.kind == "constant":
        return zero, one / given.factor
    if given.kind == "layer_norm":
        mean = x.sum() / len(x)
        return mean, ((x - mean).pow(2).sum() / (len(x) - 1)).sqrt() + given.epsilon
    if given.kind == "unit_norm":
        return zero, (x.pow(2).sum().sqrt() + given.epsilon) / len(x) ** 0.5
    return zero, one


def codes_of(own: iv.Dictionary, x: Tensor) -> Tensor:
    """Dense codes of tokens [rows, width] in float64, a token and a feature at a time."""
    weights, made = own.weights, torch.zeros(len(x), own.n_features, dtype=torch.float64)
    name = type(own.architecture).__name__
    for row, token in enumerate(x.double()):
        shift, scale = shift_and_scale(own.manifest.normalisation, token)
        ready = (token - shift) / scale
        ready = ready - weights.decoder_bias.double() if own.manifest.subtracts_decoder_bias else ready
        pre = [float(weights.encoder[i].double() @ ready + weights.encoder_bias[i].double()) for i in range(len(made[0]))]  # fmt: skip
        best = sorted(range(len(pre)), key=lambda i: (-pre[i], i))[: getattr(own.architecture, "k", 0) or 0]
        for i, value in enumerate(pre):
            extras = {key: float(tensor[i]) for key, tensor in weights.extras.items()}
            made[row, i] = {
                "ReLU": lambda v=value: max(v, 0.0),
                "JumpReLU": lambda v=value, e=extras: v if v > e["threshold"] and v > 0 else 0.0,
                "BatchTopK": lambda v=value, e=extras: v if v > e["threshold"] and v > 0 else 0.0,
                "TopK": lambda v=value, i=i, b=best: max(v, 0.0) if i in b else 0.0,
                "Gated": lambda v=value, e=extras: _gated(v, e),
            }[name]()
    return made


def _gated(product: float, own: dict[str, float]) -> float:
    if product + own["gate_bias"] <= 0:
        return 0.0
    magnitude = torch.tensor(own["log_magnitude"], dtype=torch.float64).exp() * product + own["magnitude_bias"]
    return max(float(magnitude), 0.0)


def decoded(own: iv.Dictionary, codes: Tensor, x: Tensor) -> Tensor:
    """What dense codes of tokens [rows, width] stand for, in float64."""
    weights, normalisation, made = own.weights, own.manifest.normalisation, []
    for row, token in zip(codes.double(), x.double(), strict=True):
        shift, scale = shift_and_scale(normalisation, token)
        out = row @ weights.decoder.double() + weights.decoder_bias.double()
        if weights.skip is not None:
            out = out + weights.skip.double() @ ((token - shift) / scale)
        made.append(out * scale + shift if normalisation.is_undone else out)
    return torch.stack(made)


def changed(own: iv.Dictionary, x: Tensor, target: Tensor, new: dict[int, float], verb: str = "clamp") -> Tensor:
    """Encode, edit, decode and add the error, in float64: what an edit of features must equal, of tokens [rows, width].

    Args:
        own: The dictionary.
        x: What it reads.
        target: What it is to reconstruct: `x` itself, or a transcoder's other site.
        new: Value, or factor, of each feature that is changed.
        verb: `clamp`, or `scale`.
    """
    codes = codes_of(own, x)
    after = codes.clone()
    for feature, number in new.items():
        after[:, feature] = number if verb == "clamp" else number * codes[:, feature]
    return decoded(own, after, x) + (target.double() - decoded(own, codes, x))
