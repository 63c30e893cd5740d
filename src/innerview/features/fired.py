"""A few features at every token of a corpus, kept sparse."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.codes import checked_feature
from innerview.dictionaries.dictionary import Dictionary
from innerview.features.corpus import Corpus, checked_site, given_to, takes_pads
from innerview.models.model import Model
from innerview.progress import progress as bar

GROUP_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Fired:
    """Where features were active, in the order of features, then of places.

    Attributes:
        features: Their numbers, rising.
        starts: Where each one's entries start, and where the last end, shape [features + 1].
        places: The token, counted through the corpus, shape [n].
        values: How active, shape [n].
        n_tokens: Tokens of the corpus.
    """

    features: tuple[int, ...]
    starts: Int[Tensor, "features_and_1"] = field(repr=False)
    places: Int[Tensor, "n"] = field(repr=False)
    values: Float[Tensor, "n"] = field(repr=False)
    n_tokens: int

    @classmethod
    def of(
        cls, model: Model, dictionary: Dictionary, corpus: Corpus, features: Sequence[int], *, progress: bool | None = None
    ) -> "Fired":  # fmt: skip
        """Read a corpus once, and keep what some features did.

        Args:
            model: The network.
            dictionary: Whose features.
            corpus: The rows; tokens that do not count are left out.
            features: Numbers of features.
            progress: Show how far it is; after two seconds when None.
        Raises:
            DictionaryError: There is no such feature.
        """
        checked_site(model, dictionary)
        chosen = tuple(sorted({checked_feature(one, dictionary.n_features) for one in features}))
        number = torch.full((dictionary.n_features,), -1)
        number[list(chosen)] = torch.arange(len(chosen))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        shown = {"delay_s": 0.0 if progress else 2.0, "is_shown": progress is not False}
        with bar(corpus.n_rows, "reading", "row", **shown) as step, torch.no_grad():
            for group in corpus.groups(GROUP_TOKENS, is_even=not takes_pads(model)):
                parts.append(_group(model, dictionary, corpus, group, number))
                step(len(group))
        which, places, values = (torch.cat([part[nth] for part in parts]) for nth in range(3))
        order = torch.argsort(which * len(corpus.ids) + places)
        counts = torch.bincount(which, minlength=len(chosen))
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(chosen, starts, places[order], values[order], len(corpus.ids))

    def of_feature(self, feature: int) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
        """Places and values of one feature."""
        nth = self.features.index(feature)
        span = slice(int(self.starts[nth]), int(self.starts[nth + 1]))
        return self.places[span], self.values[span]

    def dense(self, features: Sequence[int]) -> Float[Tensor, "tokens features"]:
        """Some features at every token."""
        made = torch.zeros(self.n_tokens, len(features))
        for column, feature in enumerate(features):
            places, values = self.of_feature(feature)
            made[places, column] = values
        return made


def _group(
    model: Model, dictionary: Dictionary, corpus: Corpus, group: list[int], number: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Feature's place among the chosen, token's place and value of each code of some rows."""
    rows = [corpus.row(one) for one in group]
    codes = dictionary.encode(
        capture(model, given_to(model, rows), dictionary.site, hermetic=True, batch_size=len(rows), progress=False)
    ).to("cpu")
    tokens, which = codes.tokens, number[codes.features]
    place = corpus.starts[group][tokens // codes.shape[1]] + tokens % codes.shape[1]
    kept = (which >= 0) & corpus.is_read[place] & (codes.values > 0)
    return which[kept], place[kept], codes.values[kept].float()
