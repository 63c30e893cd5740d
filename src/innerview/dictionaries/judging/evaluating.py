"""Judge a dictionary: what the network loses when it computes with the reconstruction, and what the features are like."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.concepts import ConceptScores, score_concepts
from innerview.dictionaries.judging.evaluation import DENSE, Evaluation
from innerview.dictionaries.judging.figures import Sums
from innerview.dictionaries.judging.losses import edited_losses, groups, losses
from innerview.dictionaries.judging.rows import readable_rows
from innerview.dictionaries.nodes import Node
from innerview.dictionaries.splicing import SplicedIn
from innerview.edits import Replace
from innerview.errors import DictionaryError
from innerview.models.model import Model
from innerview.progress import progress as bar
from innerview.where import Where
from innerview.where.spans import Reader


@dataclass(eq=False)
class Judged:
    """One judging under way: rows of ids, and what is known of each.

    Attributes:
        losses: By condition, summed cross-entropy of each row, NaN where it did not run, shape [rows].
    """

    dictionary: Dictionary
    model: Model
    rows: list[list[int]]
    skips_special: bool
    sums: Sums = field(init=False)
    losses: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = Sums(self.dictionary)
        blank = torch.full((len(self.rows),), float("nan"), dtype=torch.float64)
        self.losses = {name: blank.clone() for name in ("plain", "spliced", "mean", "zero")}

    @property
    def where(self) -> Where:
        """Tokens that are replaced."""
        return Where(special=False) if self.skips_special else Where()

    def look(self, group: list[int]) -> None:
        """Run some rows as they are: figures of the site, and what the network loses by itself."""
        own, listed = self.dictionary, [self.rows[nth] for nth in group]
        sites = dict.fromkeys((own.site, own.site_out, "logits"))
        acts = capture(self.model, listed, list(sites), hermetic=True, batch_size=len(listed), progress=False)
        self.losses["plain"][group] = losses(acts)
        assert acts.mask is not None and acts.tokens is not None
        kept = acts.mask
        if self.skips_special:
            special = torch.tensor(sorted(Reader.of(self.model.tokenizer).special_ids))
            kept = kept & ~torch.isin(acts.tokens, special.to(acts.tokens.device))
        read, wanted = (acts[site].flatten(2)[kept.to(acts[site].device)] for site in (own.site, own.site_out))
        if len(read):
            self.sums.add(read, wanted)

    def replace(self, group: list[int]) -> None:
        """Run some rows with the site replaced: by the reconstruction, by its mean, and by zero."""
        own, listed = self.dictionary, [self.rows[nth] for nth in group]
        site, mean = own.site_out, self.sums.mean.float()
        edits = {
            "spliced": SplicedIn(Node(own), error=False, site=site, where=self.where),
            "mean": Replace(mean, site=site, where=self.where),
            "zero": Replace(torch.zeros_like(mean), site=site, where=self.where),
        }
        for name, edit in edits.items():
            self.losses[name][group] = edited_losses(self.model, listed, [edit])

    def told(self, *, is_whole: bool) -> Evaluation:
        """What is known so far: rows that ran in every condition count."""
        predicted = torch.tensor([len(row) - 1 for row in self.rows], dtype=torch.float64)
        ran = torch.stack(list(self.losses.values())).isfinite().all(dim=0)
        n = float(predicted[ran].sum())
        ce = {name: float(found[ran].sum()) / n if n else float("nan") for name, found in self.losses.items()}
        sums, counts = self.sums, self.sums.counts
        tokens = max(1, sums.n_tokens)
        rises = (self.losses["spliced"] - self.losses["plain"])[ran] / predicted[ran].clamp(min=1)
        error = float(rises.std() / len(rises) ** 0.5) if len(rises) > 1 else float("nan")
        return Evaluation(
            repr(self.dictionary), self.model.name, self.dictionary.site, self.dictionary.n_features, ce["plain"], ce["spliced"],
            ce["mean"], ce["zero"], error, sums.l0 / tokens, sums.fvu, sums.cosines / tokens, int((counts == 0).sum()),
            int((counts > DENSE * sums.n_tokens).sum()), sums.n_tokens, int(n), counts, sums.largest, is_whole,
        )  # fmt: skip


def evaluate_dictionary(
    dictionary: Dictionary,
    model: Model,
    texts: Any,
    *,
    labelled: Mapping[str, Sequence[Any]] | None = None,
    against: tuple[Dictionary, Model] | None = None,
    skip_special: bool | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Evaluation:
    """How far a dictionary can be believed: cross-entropy with the reconstruction in place, sparsity, what is missed, dead and dense features.

    The texts run four times: as they are, with the reconstruction in place of the activation, with its mean, and with zero. An interrupt
    leaves what was measured by then, `is_whole=False`.

    Args:
        dictionary: The dictionary; a transcoder's output is put in the place of what it writes.
        model: The network.
        texts: Texts, or rows of ids, that neither was trained on; those longer than the network reads are cut.
        labelled: By concept, sentences with `.text`, `.value`, `.start` and `.end`, as `iv.pocket.sentences` gives: features are scored
            against the labels, and absorption is counted.
        against: A dictionary of a network with random weights, and that network: the same figures beside, as the control.
        skip_special: Whether special tokens are neither replaced nor counted; as the manifest's `bos` says when None.
        seed: Of the split of labelled sentences.
        progress: Show how far it is; after two seconds when None.
    Raises:
        DictionaryError: A text has nothing to predict, or the dictionary does not fit the network.
    Reference: arXiv:2404.16014, arXiv:2503.09532
    """
    if not isinstance(dictionary, Dictionary):
        raise DictionaryError(
            f"a {type(dictionary).__name__} cannot be put in the place of one site; give a Dictionary"
        )
    skips = dictionary.manifest.bos == "excluded" if skip_special is None else skip_special
    rows = readable_rows(model, texts)
    judged = Judged(dictionary, model, rows, skips)
    listed = list(groups(rows, model.vocab))
    with torch.no_grad(), _interruptible() as stopped, _steps(2 * len(listed), progress) as step:
        for act in (judged.look, judged.replace):
            for group in listed:
                act(group)
                step()
    made = judged.told(is_whole=not stopped)
    if labelled and made.is_whole:
        concepts = _scored(dictionary, model, labelled, seed, progress)
        made = replace(made, concepts=concepts, is_whole=concepts.is_whole)
    if against is not None and made.is_whole:
        other = evaluate_dictionary(
            against[0], against[1], rows, labelled=labelled, skip_special=skip_special, seed=seed, progress=progress
        )
        made = replace(made, against=other)
    return made


def _scored(
    dictionary: Dictionary, model: Model, labelled: Mapping[str, Sequence[Any]], seed: int, progress: bool | None
) -> ConceptScores:  # fmt: skip
    with torch.no_grad():
        return score_concepts(dictionary, model, labelled, seed=seed, progress=progress)


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """A block that an interrupt ends early; the list holds something then."""
    stopped: list[bool] = []
    try:
        yield stopped
    except KeyboardInterrupt:
        stopped.append(True)


@contextmanager
def _steps(total: int, progress: bool | None) -> Iterator[Any]:
    with bar(total, "evaluate", "batch", delay_s=0.0 if progress else 2.0, is_shown=progress is not False) as step:
        yield step
