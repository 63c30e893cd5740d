"""What a dictionary says of itself beside its weights: where it reads, how its input is prepared, where it came from."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DictionaryError

UNKNOWN = "unknown"
Bos = Literal["prepended", "absent", "excluded", "unknown"]
BOS = ("prepended", "absent", "excluded", "unknown")
NORMALISATIONS = ("none", "constant", "layer_norm", "unit_norm")


@dataclass(frozen=True)
class Normalisation:
    """How the input is prepared before anything else, and whether what is decoded goes back.

    Attributes:
        kind: `none`; `constant`, times one number; `layer_norm`, each token minus its mean, over its standard deviation;
            `unit_norm`, each token at length √d.
        factor: What a `constant` one multiplies by.
        is_undone: Whether what is decoded is taken back to the activations' own units.
        epsilon: Added to the standard deviation, or to the length.
        centers: Whether `layer_norm` subtracts the mean.
    """

    kind: Literal["none", "constant", "layer_norm", "unit_norm"] = "none"
    factor: float = 1.0
    is_undone: bool = True
    epsilon: float = 1e-5
    centers: bool = True

    def __post_init__(self) -> None:
        if self.kind not in NORMALISATIONS:
            raise DictionaryError(f"no normalisation {self.kind!r}; it is one of {', '.join(NORMALISATIONS)}")
        if not 0 < self.factor < torch.inf:
            raise DictionaryError(f"the factor of a normalisation is a finite number above 0, not {self.factor!r}")
        if not 0 <= self.epsilon < torch.inf:
            raise DictionaryError(f"the epsilon of a normalisation is a finite number from 0, not {self.epsilon!r}")

    @property
    def is_per_token(self) -> bool:
        """Whether each token has a scale of its own."""
        return self.kind in ("layer_norm", "unit_norm")

    def shift_and_scale(self, x: Float[Tensor, "*rows d_in"]) -> tuple[Tensor | float, Tensor | float]:
        """What is subtracted from each token, and what it is divided by then, each shape [*rows, 1] or a number."""
        if self.kind == "none":
            return 0.0, 1.0
        if self.kind == "constant":
            return 0.0, 1.0 / self.factor
        if self.kind == "unit_norm":
            return 0.0, (x.norm(dim=-1, keepdim=True) + self.epsilon) / x.shape[-1] ** 0.5
        mean = x.mean(dim=-1, keepdim=True) if self.centers else 0.0
        return mean, (x - mean).std(dim=-1, keepdim=True) + self.epsilon

    def apply(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_in"]:
        """The input as the encoder takes it."""
        if self.kind == "none":
            return x
        shift, scale = self.shift_and_scale(x)
        return (x - shift) / scale

    def undo(self, decoded: Tensor, x: Tensor) -> Tensor:
        """What was decoded, in the units of `x`, the activations that it was encoded from."""
        if self.kind == "none" or not self.is_undone:
            return decoded
        shift, scale = self.shift_and_scale(x)
        return decoded * scale + shift

    def output_scale(self, x: Tensor) -> Tensor | float:
        """What one unit of a decoded vector is worth at each token, shape [*rows, 1] or a number."""
        return self.shift_and_scale(x)[1] if self.is_undone else 1.0


@dataclass(frozen=True)
class Manifest:
    """What a dictionary says of itself. What changes codes has no default; the rest may be unknown, and is demanded when used.

    Attributes:
        subtracts_decoder_bias: Whether the decoder's bias is taken from the input first.
        normalisation: How the input is prepared before.
        site: Site that it reads; several for a crosscoder.
        site_out: Site that it writes, for transcoders; empty where it is the one that it reads.
        model: Name of the network.
        bos: Whether texts began with a BOS token, had none, or had it left out of training.
        source: Where the files came from, and in which format.
        commit: Version of the source.
        dtype: Number format of the weights on disk.
        statistics: What was measured of it: figures by name.
    """

    subtracts_decoder_bias: bool
    normalisation: Normalisation
    site: str | tuple[str, ...] = UNKNOWN
    site_out: str | tuple[str, ...] = ""
    model: str = UNKNOWN
    bos: Bos = "unknown"
    source: str = UNKNOWN
    commit: str = UNKNOWN
    dtype: str = "float32"
    statistics: dict[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.subtracts_decoder_bias, bool):
            raise DictionaryError(f"subtracts_decoder_bias is True or False, not {self.subtracts_decoder_bias!r}")
        if not isinstance(self.normalisation, Normalisation):
            raise DictionaryError(f"normalisation is a Normalisation, not {self.normalisation!r}")
        if self.bos not in BOS:
            raise DictionaryError(f"bos is one of {', '.join(BOS)}, not {self.bos!r}")

    def with_fields(self, **fields: Any) -> "Manifest":
        """The same with other fields.

        Raises:
            DictionaryError: A manifest has no such field.
        """
        names = [one.name for one in dataclasses.fields(self)]
        unknown = sorted(set(fields) - set(names))
        if unknown:
            raise DictionaryError(f"a manifest has no {unknown[0]!r}; its fields are {', '.join(names)}")
        return dataclasses.replace(self, **fields)

    def known(self, name: str) -> Any:
        """A field, where it is known.

        Raises:
            DictionaryError: It is not; the way to say it stands in the message.
        """
        value = getattr(self, name)
        if value == UNKNOWN:
            raise DictionaryError(
                f"the {name} of this dictionary is unknown (from {self.source}); say it with dictionary.at({name}=...)"
            )
        return value


def float32(tensor: Tensor) -> Tensor:
    """Weights in float32 on the CPU: bfloat16 stores a threshold of 1.1 as 1.1016, and sums lose digits."""
    return tensor.detach().to(torch.float32)
