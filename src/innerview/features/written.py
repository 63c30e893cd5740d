"""What every feature writes, gathered once: words promoted and suppressed, and nearest features."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int

from innerview.dictionaries.dictionary import Dictionary
from innerview.features.words import Readout
from innerview.progress import progress as bar

# Products that are held at once: 64 MiB of float32.
BLOCK = 1 << 24
# Beyond, every feature beside every other takes too long; one at a time is still answered on demand.
MOST_NEAREST = 1 << 16


@dataclass(frozen=True, eq=False)
class Written:
    """Words and neighbours of every feature; tensors without columns where they were not gathered.

    Attributes:
        promoted_ids: Tokens that each feature raises most, −1 where its row is zero or not finite, int32, shape [n_features, k].
        promoted: What it adds to their logits, float32, likewise.
        suppressed_ids: Tokens that it lowers most, likewise.
        suppressed: What it adds to their logits.
        nearest_ids: Features whose rows lie nearest, −1 behind the last.
        nearest: Their cosines.
    """

    promoted_ids: Int[torch.Tensor, "n_features k"] = field(repr=False)
    promoted: Float[torch.Tensor, "n_features k"] = field(repr=False)
    suppressed_ids: Int[torch.Tensor, "n_features k"] = field(repr=False)
    suppressed: Float[torch.Tensor, "n_features k"] = field(repr=False)
    nearest_ids: Int[torch.Tensor, "n_features k"] = field(repr=False)
    nearest: Float[torch.Tensor, "n_features k"] = field(repr=False)

    @classmethod
    @torch.no_grad()
    def of(cls, dictionary: Dictionary, readout: Readout | str, k: int, *, progress: bool | None = None) -> "Written":
        """Gather them, block by block.

        Args:
            dictionary: The dictionary.
            readout: How it reaches the logits; a text where it does not.
            k: Words, and neighbours, of each feature.
            progress: Show how far it is; after two seconds when None.
        """
        decoder, n = dictionary.weights.decoder.detach().float(), dictionary.n_features
        unit = (decoder / decoder.norm(dim=1, keepdim=True).clamp(min=1e-30)).nan_to_num(0.0, 0.0, 0.0)
        vocab = readout.matrix.shape[1] if isinstance(readout, Readout) else 1
        size = max(1, BLOCK // max(vocab, n))
        parts: list[tuple[torch.Tensor, ...]] = []
        with bar(n, "words", "feature", delay_s=0.0 if progress else 2.0, is_shown=progress is not False) as step:
            for start in range(0, n, size):
                rows = slice(start, min(n, start + size))
                parts.append((*_words(readout, decoder[rows], k), *_near(unit, rows, k)))
                step(len(parts[-1][0]))
        return cls(*(torch.cat(list(column)).cpu() for column in zip(*parts, strict=True)))


def _words(readout: Readout | str, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    if isinstance(readout, str):
        blank = rows.new_zeros(len(rows), 0)
        return blank.int(), blank, blank.int(), blank
    logits = readout.logits(rows)
    best = logits.topk(min(k, logits.shape[1]), dim=1)
    worst = logits.topk(min(k, logits.shape[1]), dim=1, largest=False)
    writes = rows.any(dim=1, keepdim=True) & torch.isfinite(rows).all(dim=1, keepdim=True)
    ids = [torch.where(writes, one.indices, -1).int() for one in (best, worst)]
    values = [torch.where(writes, one.values, 0.0) for one in (best, worst)]
    return ids[0], values[0], ids[1], values[1]


def _near(unit: torch.Tensor, rows: slice, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    block = unit[rows]
    if len(unit) > MOST_NEAREST or len(unit) < 2:
        blank = block.new_zeros(len(block), 0)
        return blank.int(), blank
    cosines = block @ unit.T
    own = torch.arange(len(block), device=block.device)
    cosines[own, own + rows.start] = -torch.inf
    cosines[:, unit.square().sum(dim=1) == 0] = -torch.inf
    best = cosines.topk(min(k, len(unit) - 1), dim=1)
    is_there = (best.values > -torch.inf) & (block.square().sum(dim=1, keepdim=True) > 0)
    return torch.where(is_there, best.indices, -1).int(), torch.where(is_there, best.values, 0.0)
