"""The tensors of a dictionary, in one layout for every format: feature-major."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a dictionary.

    Attributes:
        encoder: A row a feature, shape [n_features, d_in].
        encoder_bias: Shape [n_features].
        decoder: A row a feature, shape [n_features, d_out].
        decoder_bias: Shape [d_out].
        skip: Added to the output of a transcoder, `x @ skip.T`, shape [d_out, d_in]; None without one.
        extras: Further tensors of the architecture by name, such as `threshold`, shape [n_features].
    """

    encoder: Float[Tensor, "n_features d_in"] = field(repr=False)
    encoder_bias: Float[Tensor, "n_features"] = field(repr=False)
    decoder: Float[Tensor, "n_features d_out"] = field(repr=False)
    decoder_bias: Float[Tensor, "d_out"] = field(repr=False)
    skip: Float[Tensor, "d_out d_in"] | None = field(default=None, repr=False)
    extras: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        n, d_in = self._axes("encoder", 2)
        also, d_out = self._axes("decoder", 2)
        if n != also:
            raise DictionaryError(
                f"the encoder has {n} features and the decoder {also}; these are not of one dictionary"
            )
        wanted = {"encoder_bias": (n,), "decoder_bias": (d_out,), "skip": (d_out, d_in)}
        for name, shape in wanted.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise DictionaryError(f"{name} has shape {list(tensor.shape)}, and {list(shape)} is needed")

    def _axes(self, name: str, ndim: int) -> tuple[int, ...]:
        tensor = getattr(self, name)
        if not isinstance(tensor, Tensor) or tensor.ndim != ndim or not tensor.is_floating_point():
            told = f"{tensor.dtype} of shape {list(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor)
            raise DictionaryError(f"the {name} is a tensor of real numbers with {ndim} axes, not {told}")
        return tuple(tensor.shape)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.encoder.shape[0]

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.encoder.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what is written."""
        return self.decoder.shape[1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Weights":
        """The same on another device, or in another number format."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        skip = None if self.skip is None else moved(self.skip)
        extras = {name: moved(tensor) for name, tensor in self.extras.items()}
        return Weights(
            moved(self.encoder), moved(self.encoder_bias), moved(self.decoder), moved(self.decoder_bias), skip, extras
        )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        named = {name: getattr(self, name) for name in ("encoder", "encoder_bias", "decoder", "decoder_bias")}
        return named | ({} if self.skip is None else {"skip": self.skip}) | self.extras
