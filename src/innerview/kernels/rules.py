"""What an encoder is to a kernel: its tensors, and the rule by which pre-activations become codes."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Above:
    """`ReLU(pre)` where `pre > threshold`, strictly: JumpReLU, BatchTopK with its threshold, and ReLU, which has none.

    Attributes:
        threshold: Shape [n_features]; one below 0 lets no negative number through. None is 0 everywhere.
    """

    threshold: Float[Tensor, "n_features"] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Largest:
    """The `k` largest pre-activations of each token, behind a ReLU; of equals the lowest feature wins.

    Attributes:
        k: Features that are kept; as many as there are, or more, keep all.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise DictionaryError(f"k is a whole number from 1, not {self.k!r}")


@dataclass(frozen=True, eq=False)
class Behind:
    """`ReLU(scale · pre + shift)` where `pre + gate > 0`: Gated, whose two products share their direction.

    Attributes:
        gate: Bias of the gate, shape [n_features].
        scale: Factor of the magnitude, above 0, shape [n_features].
        shift: Bias of the magnitude, shape [n_features].
    """

    gate: Float[Tensor, "n_features"] = field(repr=False)
    scale: Float[Tensor, "n_features"] = field(repr=False)
    shift: Float[Tensor, "n_features"] = field(repr=False)


Rule = Above | Largest | Behind


@dataclass(frozen=True, eq=False)
class Encoder:
    """A linear map and a rule.

    Attributes:
        weight: A row a feature, shape [n_features, d].
        bias: Shape [n_features].
        rule: How `x @ weight.T + bias` becomes codes.
    """

    weight: Float[Tensor, "n_features d"] = field(repr=False)
    bias: Float[Tensor, "n_features"] = field(repr=False)
    rule: Rule

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or not self.weight.is_floating_point():
            raise DictionaryError(
                f"an encoder's weight holds real numbers, shape [n_features, d], not {self.weight.dtype} {list(self.weight.shape)}"
            )
        by_feature = {name: one for name, one in vars(self.rule).items() if isinstance(one, Tensor)}
        for name, one in {"bias": self.bias, **by_feature}.items():
            if one.shape != self.weight.shape[:1]:
                raise DictionaryError(
                    f"the {name} has shape {list(one.shape)}, and [{self.n_features}] is needed: one a feature"
                )

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.weight.shape[0]

    @property
    def d(self) -> int:
        """Width of what is read."""
        return self.weight.shape[1]

    @property
    def wide(self) -> torch.dtype:
        """The format in which products are summed and compared: float64 for float64, float32 for all others."""
        return torch.float64 if self.weight.dtype == torch.float64 else torch.float32


@dataclass(frozen=True, eq=False)
class Sparse:
    """The codes that are not 0, ordered by token, then by feature.

    Attributes:
        tokens: Row of `x`, int64, shape [n].
        features: Feature, int64, shape [n].
        values: Its value, in the format of the encoder's weight, above 0, shape [n].
    """

    tokens: Int[Tensor, "n"] = field(repr=False)
    features: Int[Tensor, "n"] = field(repr=False)
    values: Float[Tensor, "n"] = field(repr=False)

    def __len__(self) -> int:
        return self.values.numel()

    @classmethod
    def joined(cls, parts: "list[Sparse]", starts: list[int]) -> "Sparse":
        """Blocks of rows behind one another; the rows of each are counted from its start."""
        tokens = [part.tokens + start for part, start in zip(parts, starts, strict=True)]
        return cls(
            torch.cat(tokens), torch.cat([one.features for one in parts]), torch.cat([one.values for one in parts])
        )
