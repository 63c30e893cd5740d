"""Matching pursuit: each step takes the feature that fits best what is left, and takes it off."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Losses, Step
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class MatchingPursuit(Architecture):
    """Steps of matching pursuit on the residual, with the decoder's rows as atoms; the encoder is not used.

    The number of steps is free when it is used: `dataclasses.replace(dictionary, architecture=iv.MatchingPursuit(8))`.

    Attributes:
        steps: Features that are taken, at most; one that is taken again adds to its code.
        stops_below: A token is done when what is left of it is shorter than this; 0 for never.
        stops_at_repeat: Whether a token is done at the step that takes a feature it has already.
        projects: Whether a step takes the projection on the feature's row, right for rows of any length; False takes
            the bare product, which is the same for rows of length 1, and is how SAELens encodes.
        revival: Weight of the term that turns dead rows towards what is left: their mean product with it.
    Reference: arXiv:2506.03093
    """

    steps: int = 32
    stops_below: float = 0.0
    stops_at_repeat: bool = False
    projects: bool = True
    revival: float = 1e-2
    is_elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        real("stops_below", self.stops_below)
        real("revival", self.revival)

    def check(self, weights: Weights) -> None:
        super().check(weights)
        if weights.d_in != weights.d_out:
            raise DictionaryError(
                f"matching pursuit takes the decoder's rows off its input, and they are {weights.d_out} wide, the input {weights.d_in}"
            )

    def pre(self, weights: Weights, x: Tensor) -> Tensor:
        """What the first step chooses by: products with the decoder's rows, of length 1 where it projects."""
        return x @ self._atoms(weights.decoder).T

    def encode(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        flat = x.reshape(-1, x.shape[-1])
        return self.pursue(weights.decoder, flat)[0].view(*x.shape[:-1], weights.n_features)

    def pursue(
        self, decoder: Float[Tensor, "n_features d"], x: Float[Tensor, "rows d"]
    ) -> tuple[Float[Tensor, "rows n_features"], Float[Tensor, "rows d"]]:
        """Codes, and what is left; gradients flow through the values and the residual, not through the choice."""
        atoms = self._atoms(decoder)
        left = x
        going = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
        chosen, values = torch.zeros(len(x), 0, dtype=torch.int64, device=x.device), []
        for _ in range(self.steps):
            with torch.no_grad():
                best = (left @ atoms.T).argmax(dim=-1, keepdim=True)
            row = atoms[best[:, 0]]
            value = (left * row).sum(dim=-1, keepdim=True).relu() * going
            left = left - value * row
            if self.stops_at_repeat:
                # The step that repeats still counts; the next ones do not.
                going = going & ~(chosen == best).any(dim=-1, keepdim=True)
            chosen, values = torch.cat([chosen, best], dim=-1), [*values, value]
            if self.stops_below:
                going = going & (left.norm(dim=-1, keepdim=True) >= self.stops_below)
            # Once the best product is not above 0, no later one is.
            if not (going & (value > 0)).any():
                break
        codes = x.new_zeros(len(x), len(decoder)).scatter_add(-1, chosen, torch.cat(values, dim=-1))
        return (codes / self._lengths(decoder) if self.projects else codes), left

    # Training.

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        codes, left = self.pursue(weights.decoder, x)
        decoded = codes @ weights.decoder + weights.decoder_bias
        parts = {"reconstruction": (decoded - target).square().sum(-1).mean()}
        if self.revival and bool(step.dead.any()):
            parts["revival"] = -self.revival * (left.detach() @ self._atoms(weights.decoder[step.dead]).T).mean()
        return Losses(torch.stack(list(parts.values())).sum(), parts, codes.detach(), decoded.detach())

    @torch.no_grad()
    def constrain(self, weights: Weights) -> None:
        weights.decoder.div_(self._lengths(weights.decoder)[:, None])

    def finished(self, weights: Weights, seen: int) -> tuple[Architecture, Weights]:
        # The encoder is the decoder: what it starts with says nothing.
        encoder, bias = weights.decoder.clone(), torch.zeros_like(weights.encoder_bias)
        return self, dataclasses.replace(weights, encoder=encoder, encoder_bias=bias)

    def _atoms(self, decoder: Tensor) -> Tensor:
        return decoder / self._lengths(decoder)[:, None] if self.projects else decoder

    @staticmethod
    def _lengths(decoder: Tensor) -> Tensor:
        # A row of zeros has no direction, and is never taken: its products stay 0.
        return decoder.norm(dim=-1).clamp_min(torch.finfo(decoder.dtype).tiny)
