"""How a run writes: its options, checked once."""

from dataclasses import dataclass
from typing import Any, Literal

from innerview.errors import GenerationError

CacheKind = Literal["dynamic", "static", "none"]
CACHES = ("dynamic", "static", "none")
ALL = "; None draws among all tokens"


@dataclass(frozen=True)
class Options:
    """Options of a generation; `generate` says what each means.

    Raises:
        GenerationError: One is out of range, or two exclude one another.
    """

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int
    num_beams: int
    num_return_sequences: int
    cache: CacheKind

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "num_return_sequences"):
            self._refuse(name, not _is_whole(getattr(self, name), 1), "a whole number from 1")
        self._refuse("seed", not _is_whole(self.seed, -(2**63)), "a whole number")
        self._refuse("temperature", not _is_number(self.temperature) or self.temperature < 0, "a finite number from 0")
        self._refuse("top_k", self.top_k is not None and not _is_whole(self.top_k, 1), "a whole number from 1", ALL)
        is_share = self.top_p is None or (_is_number(self.top_p) and 0 < self.top_p <= 1)
        self._refuse("top_p", not is_share, "above 0 and at most 1", ALL)
        self._refuse("cache", self.cache not in CACHES, f"one of {', '.join(CACHES)}")
        if self.num_beams > 1 and self.is_drawn:
            raise GenerationError(
                f"beams take the likeliest text and temperature={self.temperature} draws; choose one of the two"
            )
        if not self.is_drawn and self.num_return_sequences > self.num_beams:
            raise GenerationError(
                f"{self.num_return_sequences} sequences need temperature above 0, or as many beams (now {self.num_beams})"
            )

    @property
    def is_drawn(self) -> bool:
        """Whether tokens are drawn, not the likeliest taken."""
        return self.temperature > 0

    def _refuse(self, name: str, is_wrong: bool, wanted: str, way: str = "") -> None:
        if is_wrong:
            raise GenerationError(f"{name} is {wanted}, not {getattr(self, name)!r}{way}")


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
