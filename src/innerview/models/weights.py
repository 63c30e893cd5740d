"""Weights, one call each: embedding, unembedding, the OV and QK circuits of heads, neurons' in and out vectors."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from innerview.errors import ModelError
from innerview.models.matrix import are_known_experts, bias_of, held, into_expert, matrix_of, out_of_expert
from innerview.models.model import Model
from innerview.models.site import Site


@dataclass(frozen=True, eq=False)
class Unembedding:
    """How logits are made of what leaves the final norm: `x @ matrix + bias`, times `scale`, under a tanh bounded by `cap`.

    Attributes:
        matrix: Shape [d_model, vocab].
        bias: Shape [vocab]; None without one.
        scale: What the network multiplies the product by.
        cap: Bound of the tanh on the logits; None for none.
        is_tied: Whether the matrix is the embedding's.
    """

    matrix: Float[Tensor, "d_model vocab"]
    bias: Float[Tensor, " vocab"] | None = None
    scale: float = 1.0
    cap: float | None = None
    is_tied: bool = False

    def logits(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """The logits of activations behind the final norm."""
        made = x @ self.matrix
        made = (made if self.bias is None else made + self.bias) * self.scale
        return made if self.cap is None else torch.tanh(made / self.cap) * self.cap


@dataclass(frozen=True, eq=False)
class Circuit:
    """A low-rank map of each head, `x @ left[head] @ right[head]`, kept as its factors.

    Attributes:
        left: Shape [head, d_model, d_head].
        right: Shape [head, d_head, d_model].
        bias: What a head adds whatever it reads (of the value's bias), shape [head, d_model]; None without one.
    """

    left: Float[Tensor, "head d_model d_head"]
    right: Float[Tensor, "head d_head d_model"]
    bias: Float[Tensor, "head d_model"] | None = None

    def matrix(self, head: int | None = None) -> Tensor:
        """The whole map of one head, shape [d_model, d_model], or of all, [head, d_model, d_model]."""
        return self.left @ self.right if head is None else self.left[head] @ self.right[head]


@dataclass(frozen=True, eq=False)
class Neurons:
    """What each neuron of a feed-forward reads and writes. Rows are neurons.

    Attributes:
        into: What it reads, shape [d_mlp, d_model]: `mlp.pre` is `mlp.in @ into.T + into_bias`.
        out: What it writes, shape [d_mlp, d_model]: `mlp.hidden @ out + out_bias` is what the feed-forward returns.
        gate: What its gate reads, shape [d_mlp, d_model]; None without gates.
        into_bias: Shape [d_mlp]; None without one, like the others.
        gate_bias: Shape [d_mlp].
        out_bias: Shape [d_model].
    """

    into: Float[Tensor, "d_mlp d_model"]
    out: Float[Tensor, "d_mlp d_model"]
    gate: Float[Tensor, "d_mlp d_model"] | None = None
    into_bias: Tensor | None = None
    gate_bias: Tensor | None = None
    out_bias: Tensor | None = None


def embedding(model: Model) -> Float[Tensor, "vocab d_model"]:
    """The embedding of tokens as it is stored, shape [vocab, d_model]; some networks scale what they look up.

    Raises:
        ModelError: The network has none.
    """
    found = _end(model, "get_input_embeddings", "embed")
    return held(found, "weight")


def unembedding(model: Model) -> Unembedding:
    """The matrix that makes logits, through tied weights, with what the network does to its product.

    Raises:
        ModelError: The network has no output head.
    """
    head = _end(model, "get_output_embeddings", "logits")
    site = model.table.get("logits")
    scale, cap = (1.0, None) if site is None else (site.times / site.over, site.cap)
    try:
        tied = held(_end(model, "get_input_embeddings", "embed"), "weight")
    except ModelError:
        tied = None
    weight = matrix_of(head)
    is_tied = tied is not None and tied.data_ptr() == weight.data_ptr()
    return Unembedding(weight, bias_of(head), scale, cap, is_tied)


def ov_circuit(model: Model, layer: int) -> Circuit:
    """What each head writes of what it reads: `attn.in @ left @ right + bias`, weighted by the pattern, sums to `attn.result`.

    Heads that share keys and values share `left`. Where a norm stands behind the attention, this is before it.

    Raises:
        ModelError: The network has no such heads in its table, or no such layer.
    Reference: https://transformer-circuits.pub/2021/framework
    """
    value, heads, result = (_site(model, layer, name) for name in ("attn.v", "attn.heads", "attn.result"))
    left, bias = _by_head(model, value)
    out = matrix_of(_module(model, heads)) * result.times
    right = out.unflatten(0, (heads.heads, -1))  # type: ignore[arg-type]
    each = right.shape[0] // left.shape[0]
    left = left.repeat_interleave(each, dim=0)
    if bias is None:
        return Circuit(left, right)
    return Circuit(left, right, torch.einsum("hd,hdm->hm", bias.repeat_interleave(each, dim=0), right))


def qk_circuit(model: Model, layer: int) -> Circuit:
    """What each head attends to: `attn.in @ left @ right @ attn.in.T`, before biases, rotation, norms of queries and keys, and scaling.

    Raises:
        ModelError: The network has no such heads in its table, or no such layer.
    Reference: https://transformer-circuits.pub/2021/framework
    """
    query, _ = _by_head(model, _site(model, layer, "attn.q"))
    key, _ = _by_head(model, _site(model, layer, "attn.k"))
    return Circuit(query, key.transpose(1, 2).repeat_interleave(query.shape[0] // key.shape[0], dim=0))


def neurons(model: Model, layer: int, *, expert: int | None = None) -> Neurons:
    """What each neuron of a block reads and writes.

    Args:
        model: The network.
        layer: The block.
        expert: Which expert of a mixture; None where the block has one feed-forward.
    Raises:
        ModelError: The block has no neurons in the table, or experts and `expert` was not given.
    """
    if f"blocks.{layer}.moe.router" in model.table:
        return _expert(model, layer, expert)
    if expert is not None:
        raise ModelError(f"block {layer} of {model.name} has one feed-forward and no experts; drop expert={expert}")
    pre, hidden, out = (_site(model, layer, name) for name in ("mlp.pre", "mlp.hidden", "mlp.out"))
    gate = model.table.get(f"blocks.{layer}.mlp.gate")
    into, into_bias = _columns(model, pre)
    gates, gate_bias = _columns(model, gate) if gate else (None, None)
    last = _module(model, hidden)
    bias = bias_of(last)
    # A norm behind the feed-forward has a scale of its own; a plain multiplier belongs to the vectors.
    return Neurons(
        into, matrix_of(last) * out.times, gates, into_bias, gate_bias, None if bias is None else bias * out.times
    )


def _expert(model: Model, layer: int, expert: int | None) -> Neurons:
    path = f"{model.table[f'blocks.{layer}.resid'].module}.mlp.experts"
    experts: Any = dict(model.module.named_modules()).get(path)
    if not are_known_experts(experts):
        raise ModelError(
            f"the experts of block {layer} of {model.name} are kept in a way that is not known; read module:{path} yourself"
        )
    if expert is None or not 0 <= expert < experts.num_experts:
        raise ModelError(
            f"block {layer} of {model.name} has {experts.num_experts} experts; give expert=0 to {experts.num_experts - 1}"
        )
    both, bias = into_expert(experts, expert)
    out, last = out_of_expert(experts, expert)
    cut = (
        (lambda whole: whole.chunk(2, -1))
        if experts.is_concatenated
        else (lambda whole: (whole[..., ::2], whole[..., 1::2]))
    )
    (gate, into), biases = cut(both), (None, None) if bias is None else cut(bias)
    return Neurons(into.T, out, gate.T, biases[1], biases[0], last)


def _end(model: Model, getter: str, name: str) -> nn.Module:
    inner: Any = getattr(model.module, "_orig_mod", model.module)
    found = getattr(inner, getter)() if hasattr(inner, getter) else None
    if found is None and name in model.table:
        found = _module(model, model.table[name])
    if found is None:
        raise ModelError(f"{model.name} has no {name!r}; open a language model, with its head for the unembedding")
    return found


def _site(model: Model, layer: int, name: str) -> Site:
    site = model.table.get(f"blocks.{layer}.{name}")
    if site is None and model.n_layers and not 0 <= layer < model.n_layers:
        raise ModelError(f"no layer {layer}: {model.name} has {model.n_layers}, 0 to {model.n_layers - 1}")
    if site is None:
        raise ModelError(
            f"{model.name} has no {name!r} in block {layer} to read weights of; model.sites() lists what it has"
        )
    return site


def _module(model: Model, site: Site) -> nn.Module:
    return model.module.get_submodule(site.module)


def _by_head(model: Model, site: Site) -> tuple[Tensor, Tensor | None]:
    """Weights of a projection by head, shape [head, d_model, d_head], and biases [head, d_head]."""
    module = _module(model, site)
    weight, bias = matrix_of(module), bias_of(module)
    if site.cut is not None:
        weight, bias = site.cut.read(weight), None if bias is None else site.cut.read(bias)
    shape = (site.heads or 1, -1)
    each = weight.unflatten(-1, shape).transpose(0, 1)
    return each, None if bias is None else bias.unflatten(-1, shape)


def _columns(model: Model, site: Site) -> tuple[Tensor, Tensor | None]:
    module = _module(model, site)
    weight, bias = matrix_of(module), bias_of(module)
    if site.cut is not None:
        weight, bias = site.cut.read(weight), None if bias is None else site.cut.read(bias)
    return weight.T, bias
