"""What of a dictionary a kernel takes: its linear map, and the rule of its architecture, where kernels know it."""

from collections.abc import Callable
from typing import Any

from innerview.dictionaries.architectures import Architecture, Gated, ReLU, TopK
from innerview.dictionaries.architectures.thresholded import Thresholded
from innerview.dictionaries.weights import Weights
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Rule


def _behind(architecture: Any, weights: Weights) -> Rule:
    own = weights.extras
    return Behind(own["gate_bias"], own["log_magnitude"].exp(), own["magnitude_bias"])


# By what makes codes of pre-activations: an architecture that changes it is another one.
RULES: dict[Any, Callable[[Any, Weights], Rule]] = {
    ReLU.activate: lambda architecture, weights: Above(),
    Thresholded.activate: lambda architecture, weights: Above(weights.extras["threshold"]),
    TopK.activate: lambda architecture, weights: Largest(architecture.k),
    Gated.activate: _behind,
}


def encoder_of(architecture: Architecture, weights: Weights) -> Encoder | None:
    """The encoder of a dictionary as kernels take it; None where its codes are no rule on pre-activations that kernels know."""
    kind = type(architecture)
    if kind.encode is not Architecture.encode or kind.pre is not Architecture.pre or kind.activate not in RULES:
        return None
    return Encoder(weights.encoder, weights.encoder_bias, RULES[kind.activate](architecture, weights))
