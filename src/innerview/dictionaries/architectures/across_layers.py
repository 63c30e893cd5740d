"""How cross-layer transcoders train: the features of each layer's input write into the outputs of that layer and of all later ones."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.tanh_jump_relu import TanhJumpReLU
from innerview.dictionaries.architectures.training import squared_error
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class AcrossLayers(Architecture):
    """The features of all layers, one layer behind another; inputs and outputs of the layers side by side.

    The encoder holds a row a feature of its own layer's width, and the decoder a row a feature for all layers' outputs, those of
    earlier layers 0.

    Attributes:
        inner: Numbers of the losses.
        n_layers: Layers.
    Reference: transformer-circuits.pub/2025/attribution-graphs
    """

    inner: TanhJumpReLU
    n_layers: int
    subtracts_decoder_bias: ClassVar[bool] = False

    def check(self, weights: Weights) -> None:
        for name, number in (("features", weights.n_features), ("numbers of the output", weights.d_out)):
            if number % self.n_layers:
                raise DictionaryError(f"{number} {name} do not divide into {self.n_layers} layers")

    def optimization(self, n_features: int) -> Optimization:
        return self.inner.optimization(n_features)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        return self.inner.initial_extras(n_features, d_in)

    def initial(self, weights: Weights) -> Weights:
        """Rows of the encoder of one layer's width, and nothing written into earlier layers."""
        width = weights.d_in // self.n_layers
        encoder = torch.nn.functional.normalize(weights.encoder[:, :width], dim=-1)
        return replace(weights, encoder=encoder, decoder=weights.decoder * self.writes(weights))

    def writes(self, weights: Weights) -> Float[Tensor, "n_features d_out"]:
        """1 where a feature writes: its own layer's output, and those of later ones."""
        later = torch.ones(self.n_layers, self.n_layers, device=weights.decoder.device).triu()
        features, width = weights.n_features // self.n_layers, weights.d_out // self.n_layers
        return later.repeat_interleave(features, 0).repeat_interleave(width, 1)

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        n, width_out = weights.n_features // self.n_layers, weights.d_out // self.n_layers
        inputs = x.unflatten(-1, (self.n_layers, -1)).movedim(-2, 0)
        by_layer = (self.n_layers, 1, n)
        encoder = weights.encoder.unflatten(0, (self.n_layers, n))
        pre = inputs @ encoder.mT + weights.encoder_bias.view(by_layer)
        log_threshold = weights.extras["log_threshold"].view(by_layer)
        codes = self.inner.jumped(pre, log_threshold, x.shape[-1])
        parts = [weights.decoder[i * n : (i + 1) * n, i * width_out :] for i in range(self.n_layers)]
        decoded = weights.decoder_bias.expand_as(target)
        for layer, part in enumerate(parts):
            made = torch.nn.functional.pad(codes[layer] @ part, (layer * width_out, 0))
            decoded = decoded + made
        lengths = torch.cat([part.norm(dim=-1) for part in parts]).view(by_layer)
        costs = {"reconstruction": squared_error(decoded, target)}
        costs |= self.inner.penalties(pre, codes, log_threshold, lengths, weights.d_out, step)
        found = codes.detach().movedim(0, -2).flatten(-2)
        return Losses(sum(costs.values(), start=x.new_zeros(())), costs, found, decoded.detach())

    def finished(self, weights: Weights, seen: int) -> tuple[Architecture, Weights]:
        """A JumpReLU transcoder from the layers' inputs side by side to their outputs side by side; it has zeros where nothing goes."""
        blocks = weights.encoder.unflatten(0, (self.n_layers, -1)).unbind(0)
        whole = replace(weights, encoder=torch.block_diag(*blocks), decoder=weights.decoder * self.writes(weights))
        return self.inner.finished(whole, seen)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "inner": self.inner.to_dict()}
