"""What every architecture says: how pre-activations become codes, how it is trained, and what that adds to the loss."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import cos, pi
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.entries import Active
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError
from innerview.readings import Gate

# Rows of the decoder have length 1: at higher rates most features die within the first steps.
HIGHEST_RATE = 1e-2
# Steps of a long training, for which published rates are meant.
LONG = 200_000


@dataclass(frozen=True)
class Gating:
    """How one feature is read by itself: what `Reading` takes beside the vector and the bias.

    The code is 0 where `vector · x + bias` is not above `threshold`, or the gate not above 0.
    """

    bias: float
    threshold: float | None
    gate: Gate | None = None
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Step:
    """Where training stands when a loss is taken.

    Attributes:
        step: Number of this step, from 0.
        n_steps: Steps of the whole training.
        last_active: Tokens since each feature was last active, int64, shape [n_features].
        seen: Tokens seen before this step.
        dead_after: Tokens without activity after which a feature counts as dead.
        gathered: Gives the tensors of all processes, behind one another along the first axis; its own without others.
    """

    step: int
    n_steps: int
    last_active: Tensor = field(repr=False)
    seen: int
    dead_after: int
    gathered: Callable[[Tensor], Tensor] = field(default=lambda own: own, repr=False)

    @property
    def share(self) -> float:
        """Share of the training that is done, from 0 to 1."""
        return self.step / max(1, self.n_steps)

    @property
    def dead(self) -> Tensor:
        """True where a feature is dead, shape [n_features]."""
        return self.last_active >= self.dead_after

    def ramp(self, share: float) -> float:
        """A number that climbs from 0 to 1 over the first `share` of the training."""
        return 1.0 if share <= 0 else min(1.0, self.share / share)


@dataclass(frozen=True, eq=False)
class Losses:
    """What one batch costs.

    Attributes:
        total: What is minimised, a number with gradients.
        parts: Its parts by name, as they enter the sum.
        codes: Codes of the batch without gradients: dense, shape [rows, n_features], or by their entries.
        decoded: What they stand for, in normalised units, shape [rows, d_out], without gradients.
    """

    total: Tensor
    parts: dict[str, Tensor]
    codes: Float[Tensor, "rows n_features"] | Active = field(repr=False)
    decoded: Float[Tensor, "rows d_out"] = field(repr=False)


@dataclass(frozen=True)
class Optimization:
    """Adam and its schedule.

    Attributes:
        learning_rate: Highest learning rate.
        betas: Adam's decay of the two moments.
        epsilon: Adam's addition to the denominator.
        warmup: Share of the steps in which the rate climbs.
        decay: Share of the steps, the last ones, in which it falls to 0.
        shape: How it climbs and falls: `linear` or `cosine`.
        clip: Largest norm of all gradients together; None does not clip. Below most gradients, as it is for inputs of mean squared
            length 1, all steps count alike; else Adam's second moment holds the first, large ones against the later ones.
        steps: Steps that the rate is meant for. A training of fewer takes a rate √(steps / its own) times as high, `HIGHEST_RATE`
            at most; None takes the rate as it is.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    warmup: float = 0.0
    decay: float = 0.2
    shape: Literal["linear", "cosine"] = "linear"
    clip: float | None = 0.05
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "cosine"):
            raise DictionaryError(f"a learning rate changes by 'linear' or 'cosine', not {self.shape!r}")
        if not self.learning_rate > 0:
            raise DictionaryError(f"a learning rate is above 0, not {self.learning_rate!r}")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise DictionaryError(f"{name} is a share of the steps from 0 to 1, not {getattr(self, name)!r}")

    def fitted(self, n_steps: int) -> "Optimization":
        """The same for a training of `n_steps`."""
        if self.steps is None or n_steps >= self.steps:
            return self
        highest = max(self.learning_rate, HIGHEST_RATE)
        return replace(self, learning_rate=min(highest, self.learning_rate * (self.steps / n_steps) ** 0.5))

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        climbing, falling = self.warmup * n_steps, self.decay * n_steps
        up = (step + 1) / climbing if climbing > 0 else 1.0
        down = (n_steps - step) / falling if falling > 0 else 1.0
        height = min(1.0, up, down)
        return self.learning_rate * (0.5 - 0.5 * cos(pi * height) if self.shape == "cosine" else height)


@dataclass(frozen=True)
class Architecture:
    """How a dictionary encodes. Numbers are fields; tensors of its own lie in `Weights.extras`, named by `extras`.

    Attributes:
        extras: Names of its own tensors in `Weights.extras`, each shape [n_features].
        is_elementwise: Whether a feature's code hangs on its own pre-activation alone.
        subtracts_decoder_bias: Whether training takes the decoder's bias off the input.
        starts_at_median: Whether the decoder's bias starts at the geometric median of the first batch, else at 0.
        initial_norm: Length of the decoder's rows when training starts.
        initial_encoder: Length of the encoder's rows then.
        measured: Those tensors of `initial_extras` that training measures, and no gradient moves.
    """

    extras: ClassVar[tuple[str, ...]] = ()
    is_elementwise: ClassVar[bool] = True
    subtracts_decoder_bias: ClassVar[bool] = True
    starts_at_median: ClassVar[bool] = False
    initial_norm: ClassVar[float] = 1.0
    initial_encoder: ClassVar[float] = 1.0
    measured: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The architecture's name, as in `iv.TopK`."""
        return type(self).__name__

    def check(self, weights: Weights) -> None:
        """Refuse weights that lack a tensor of this architecture, or have one that is not its own.

        Raises:
            DictionaryError: A tensor is missing, has another shape, or is not known.
        """
        for name in self.extras:
            if name not in weights.extras:
                raise DictionaryError(f"{self.name} needs the tensor {name!r}, which is missing")
            if tuple(weights.extras[name].shape) != (weights.n_features,):
                raise DictionaryError(
                    f"{name!r} has shape {list(weights.extras[name].shape)}, and [{weights.n_features}] is needed"
                )
        unknown = set(weights.extras) - set(self.extras)
        if unknown:
            raise DictionaryError(
                f"{self.name} has no tensor {sorted(unknown)[0]!r}; it has {', '.join(self.extras) or 'none'}"
            )

    def pre(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        """Pre-activations: `x @ encoder.T + encoder_bias`."""
        return torch.nn.functional.linear(x, weights.encoder, weights.encoder_bias)

    def activate(self, weights: Weights, pre: Float[Tensor, "*rows n_features"]) -> Float[Tensor, "*rows n_features"]:
        """Codes of pre-activations, dense."""
        raise TypeError(f"{self.name} is no architecture of its own; use iv.ReLU, iv.TopK or another")

    def encode(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        """Dense codes of prepared inputs (normalised, decoder bias taken off where the manifest says so)."""
        return self.activate(weights, self.pre(weights, x))

    def of_some(self, n_features: int) -> "Architecture":
        """The same for some of its features by themselves; only asked where features do not compete."""
        return self

    def gating(self, weights: Weights, feature: int) -> Gating:
        """How one feature is read by itself.

        Raises:
            DictionaryError: Features compete, so that none can.
        """
        raise DictionaryError(
            f"features of {self.name} compete, so feature {feature} cannot be read without the others"
        )

    # Training.

    def optimization(self, n_features: int) -> Optimization:
        """Adam and its schedule as published, for a long training."""
        return Optimization(3e-4, steps=LONG)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        """Tensors of its own that training starts with, by name, each shape [n_features]."""
        return {}

    def initial(self, weights: Weights) -> Weights:
        """What training starts with, of weights as they were drawn: they themselves, where an architecture has no say."""
        return weights

    def losses(
        self, weights: Weights, x: Float[Tensor, "rows d_in"], target: Float[Tensor, "rows d_out"], step: Step
    ) -> Losses:
        """What one batch costs, as published.

        Args:
            weights: Tensors that train, so that gradients flow through them.
            x: Inputs, normalised, the decoder's bias taken off where `subtracts_decoder_bias`.
            target: What is to be decoded, normalised, its bias in it.
            step: Where training stands.
        Raises:
            DictionaryError: It is read here, but not trained.
        """
        raise DictionaryError(
            f"{self.name} is read here, but not trained; train iv.TopK, iv.BatchTopK, iv.JumpReLU, iv.Gated or iv.ReLU"
        )

    def constrain_gradients(self, weights: Weights) -> None:
        """What is done to gradients, in place, before each step of the optimizer."""

    def constrain(self, weights: Weights) -> None:
        """What is done to weights, in place, after each step of the optimizer."""

    def finished(self, weights: Weights, seen: int) -> tuple["Architecture", Weights]:
        """The architecture and weights that are used and saved, of those that were trained on `seen` tokens."""
        return self, weights

    def to_dict(self) -> dict[str, Any]:
        """Its name and its numbers, as JSON takes them."""
        return {"name": self.name, **vars(self)}
