"""A pass over a corpus: everything that is counted of a chunk's codes, from one forward and one encode."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.codes import Codes
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.best import Best, random_keys, value_keys
from innerview.features.corpus import Corpus, given_to
from innerview.features.neurons import Correlating
from innerview.features.profile import Profiling
from innerview.features.seen import Seen
from innerview.features.spread import Spread
from innerview.features.tallies import Tallies
from innerview.features.together import Together
from innerview.interrupts import Uninterrupted
from innerview.models.model import Model

BEFORE, BEHIND = 23, 8


@dataclass(eq=False)
class Pass:
    """What is counted while a corpus is read. What is held does not grow with the corpus.

    Attributes:
        spread: Counts, and how activations are spread.
        top: The strongest activation of each of a few rows.
        sample: A uniform draw of all activations.
        together: Features that are active at the same tokens; None where nobody asked.
        profiling: Tokens that features are active on; None where nobody asked.
        correlating: Neurons that go with features; None where nobody asked.
        done: Chunks that were read.
    """

    spread: Spread
    top: Best
    sample: Best
    together: Together | None = None
    profiling: Profiling | None = None
    correlating: Correlating | None = None
    done: int = 0

    @classmethod
    def empty(
        cls, n_features: int, device: torch.device, *, top: int, sample: int, together: bool, vocab: int | None, neurons: bool
    ) -> "Pass":  # fmt: skip
        """A pass that has read nothing.

        Args:
            n_features: Features of the dictionary.
            device: Where its codes lie.
            top: Strongest activations that are kept of each feature.
            sample: Activations that are drawn of each.
            together: Whether pairs are counted.
            vocab: A number above every id, to count tokens; None counts none.
            neurons: Whether neurons are correlated with.
        """
        return cls(
            Spread.empty(n_features, device), Best.empty(n_features, top, BEFORE, BEHIND, device),
            Best.empty(n_features, sample, BEFORE, BEHIND, device),
            Together.empty(n_features, device) if together else None,
            None if vocab is None else Profiling.empty(n_features, vocab, device),
            Correlating.empty(n_features, device) if neurons else None,
        )  # fmt: skip

    def read(
        self, model: Model, dictionary: Dictionary, corpus: Corpus, group: list[int], seed: int, neurons: str | None
    ) -> None:
        """Read some rows of a corpus.

        Args:
            model: The network.
            dictionary: The dictionary.
            corpus: The corpus.
            group: Numbers of its rows.
            seed: Of the draw.
            neurons: Site of the neurons to correlate with.
        Raises:
            FeatureError: There is NaN or infinity in the activations; the text is named.
        """
        rows = [corpus.row(number) for number in group]
        sites = [dictionary.site] if neurons is None else [dictionary.site, neurons]
        acts = capture(model, given_to(model, rows), sites, hermetic=True, batch_size=len(rows), progress=False)
        _check_finite(acts[dictionary.site], corpus, group, dictionary.site)
        self.take(dictionary.encode(acts), corpus, group, seed, None if neurons is None else acts[neurons])

    def take(
        self, codes: Codes, corpus: Corpus, group: list[int], seed: int, neurons: Float[Tensor, "batch pos d_mlp"] | None = None
    ) -> None:  # fmt: skip
        """Count the codes of some rows, in a batch that is padded on the right.

        Args:
            codes: Their codes, of shape [batch, pos].
            corpus: The corpus.
            group: Numbers of its rows.
            seed: Of the draw.
            neurons: Activations of the neurons to correlate with.
        """
        if len(codes.shape) != 2:
            raise FeatureError(
                f"codes of tokens {list(codes.shape)} have several at a position, as where a block carries several streams; give a dictionary of one"
            )
        device, width = codes.tokens.device, codes.shape[1]
        rows = torch.tensor(group)
        starts, lengths = corpus.starts[rows], corpus.starts[rows + 1] - corpus.starts[rows]
        # By flat place in the padded batch: the token's place in the corpus, and whether it counts.
        place = starts[:, None] + torch.arange(width)
        is_real = torch.arange(width) < lengths[:, None]
        counts = is_real & corpus.is_read[place.clamp(max=len(corpus.ids) - 1)]
        place, counts = place.to(device).view(-1), counts.to(device).view(-1)
        kept = counts[codes.tokens]
        tokens, features, values = codes.tokens[kept], codes.features[kept], codes.values[kept]
        if not bool(torch.isfinite(values).all()):
            wrong = int(features[~torch.isfinite(values)][0])
            raise FeatureError(
                f"feature {wrong} is NaN or infinite where the activations are not: the dictionary's own weights are, or overflow; load it in "
                "float32, or leave such features out"
            )
        numbers = rows.to(device)[tokens // width]
        seen = Seen.sorted(features, place[tokens], numbers, values, codes.n_features, int(counts.sum()))
        # Counted whole or not at all: what an interrupt leaves is gone on with.
        with Uninterrupted():
            self._count(seen, seed, place[counts], corpus)
            if self.correlating is not None and neurons is not None:
                self._correlate(seen, neurons, place, counts)
            self.done += 1

    def _count(self, seen: Seen, seed: int, read: Tensor, corpus: Corpus) -> None:
        self.spread.add(seen)
        self.top.offer(seen, value_keys(seen.values), seen.peaks())
        self.sample.offer(seen, random_keys(seen, seed))
        if self.together is not None:
            self.together.add(seen, read)
        if self.profiling is not None:
            ids = corpus.ids.to(read.device)
            self.profiling.add(seen, ids[seen.places].long(), ids[read].long())

    def _correlate(self, seen: Seen, neurons: Tensor, place: Tensor, counts: Tensor) -> None:
        assert self.correlating is not None
        flat = neurons.flatten(0, 1).flatten(1)[counts.to(neurons.device)].to(seen.values.device, torch.float32)
        here = place[counts]
        order = here.argsort()
        at = order[torch.searchsorted(here[order], seen.places)]
        self.correlating.add(seen, at, flat)

    # On disk, so that it goes on from there.

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is held, by name."""
        for tallies in self._tallies().values():
            tallies.merge()
        held: dict[str, Any] = {}
        for name, part in self._parts().items():
            held |= {f"{name}.{key}": value for key, value in vars(part).items() if isinstance(value, Tensor)}
        return {name: value.contiguous().cpu() for name, value in held.items()}

    def numbers(self) -> dict[str, int | None]:
        """The plain numbers beside them."""
        made: dict[str, int | None] = {
            "done": self.done,
            "spread.floor": self.spread.floor,
            "spread.n_tokens": self.spread.n_tokens,
        }
        if self.together is not None:
            made |= {"together.n_tokens": self.together.n_tokens, "together.rate": self.together.rate}
        if self.correlating is not None:
            made["correlating.n_tokens"] = self.correlating.n_tokens
        return made | {f"{name}.missed": one.missed for name, one in self._tallies().items()}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what was held; both as `tensors` and `numbers` gave them."""
        parts = self._parts()
        for name, value in tensors.items():
            part, _, key = name.rpartition(".")
            setattr(parts[part], key, value.to(self.spread.count.device))
        for name, value in numbers.items():
            part, _, key = name.rpartition(".")
            setattr(parts[part] if part else self, key, value)

    def _tallies(self) -> dict[str, Tallies]:
        made = {} if self.together is None else {"together.pairs": self.together.pairs}
        return made if self.profiling is None else {**made, "profiling.used": self.profiling.used}

    def _parts(self) -> dict[str, Any]:
        whole = {
            "spread": self.spread, "top": self.top, "sample": self.sample, "together": self.together,
            "profiling": self.profiling, "correlating": self.correlating, **self._tallies(),
        }  # fmt: skip
        return {name: part for name, part in whole.items() if part is not None}


def _check_finite(x: Float[Tensor, "batch pos *width"], corpus: Corpus, group: list[int], site: str) -> None:
    """Refuse activations that hold NaN or infinity at a token that is read.

    Raises:
        FeatureError: There are some; the text is named.
    """
    # A sum is finite where all of it is, unless it overflows: a closer look then.
    if bool(torch.isfinite(x.sum())):
        return
    for nth, row in enumerate(group):
        length = int(corpus.starts[row + 1] - corpus.starts[row])
        wrong = (~torch.isfinite(x[nth, :length].flatten(1))).any(dim=1).nonzero()
        if len(wrong):
            raise FeatureError(
                f"the activations of text {int(corpus.texts[row])}, counted from 0, hold NaN or infinity at {site}, first at token "
                f"{max(0, int(corpus.firsts[row])) + int(wrong[0])} of it; half-precision networks overflow: run the network in float32 or "
                "bfloat16, or leave the text out"
            )
