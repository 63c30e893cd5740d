"""What a training of dictionaries is told: each dictionary, and how all of them run through the tokens."""

from dataclasses import dataclass
from typing import Literal

import torch

from innerview.dictionaries.architectures import Architecture, Optimization
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.training.subspace import ActiveSubspace
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class DictionarySpec:
    """One dictionary to train.

    Attributes:
        site: Site that it reads.
        architecture: How it encodes, with the numbers of its losses.
        n_features: Its features; eight times the site's width when None.
        site_out: Site that it writes, for a transcoder; empty where it is the one that it reads.
        has_skip: Whether a transcoder has a linear map beside the features.
        seed: Of its first weights.
        optimization: Adam and its schedule; as published for the architecture when None.
        init: Where its first weights lie, such as `iv.ActiveSubspace()`; anywhere when None.
    """

    site: str
    architecture: Architecture
    n_features: int | None = None
    site_out: str = ""
    has_skip: bool = False
    seed: int = 0
    optimization: Optimization | None = None
    init: ActiveSubspace | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, Architecture):
            raise DictionaryError(f"an architecture is one such as iv.TopK(32), not {self.architecture!r}")
        if self.n_features is not None:
            whole("n_features", self.n_features)
        whole("seed", self.seed, least=0)
        if self.has_skip and not self.is_transcoder:
            raise DictionaryError("has_skip=True is for transcoders, and this one writes the site that it reads")

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes another site than it reads."""
        return self.site_out not in ("", self.site)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it needs."""
        return (self.site, self.site_out) if self.is_transcoder else (self.site,)


@dataclass(frozen=True)
class TrainingSettings:
    """How dictionaries run through the tokens.

    Attributes:
        n_tokens: Tokens to train on, over as many passes as that takes; one pass when None.
        batch_tokens: Tokens of one step, of all processes together.
        seed: Of the order of the tokens.
        buffer_tokens: Tokens that are held and shuffled at once, where they come in an order; 64 batches when None.
        normalisation: `constant`: inputs are scaled to mean squared length 1, as measured on the first tokens; or `none`.
        keeps_bos: Whether BOS tokens are trained on.
        context: Tokens of one row of text, longer ones are cut into several; the network's own limit, 1024 at most, when None.
        dead_after: Tokens without activity after which a feature counts as dead; ten million, or a twentieth of the training, when None.
        autocast: Whether products are taken in bfloat16, on a GPU.
        device: Where training runs; a GPU where there is one when None.
        save_every_s: Seconds between saved states, where there is a folder.
        report_every: Steps between two points of the curves.
    """

    n_tokens: int | None = None
    batch_tokens: int = 4096
    seed: int = 0
    buffer_tokens: int | None = None
    normalisation: Literal["constant", "none"] = "constant"
    keeps_bos: bool = False
    context: int | None = None
    dead_after: int | None = None
    autocast: bool = False
    device: str | None = None
    save_every_s: float = 300.0
    report_every: int = 25

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "report_every"):
            whole(name, getattr(self, name))
        for name in ("n_tokens", "buffer_tokens", "context", "dead_after"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        whole("seed", self.seed, least=0)
        real("save_every_s", self.save_every_s)
        if self.normalisation not in ("constant", "none"):
            raise DictionaryError(f"training normalises by 'constant' or 'none', not {self.normalisation!r}")

    @property
    def buffer(self) -> int:
        """Tokens that are shuffled at once: whole batches."""
        wanted = self.buffer_tokens or 64 * self.batch_tokens
        return max(1, wanted // self.batch_tokens) * self.batch_tokens

    def where(self) -> torch.device:
        """Where training runs."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def dead_tokens(self, n_tokens: int) -> int:
        """Tokens after which a feature counts as dead, in a training of `n_tokens`."""
        return self.dead_after or max(self.batch_tokens, min(10_000_000, n_tokens // 20))
