"""What the network loses where a feature is taken out: the rise of each next token's loss.

Reference: https://transformer-circuits.pub/2023/monosemantic-features (ablations in feature dashboards)
"""

from dataclasses import replace

import numpy as np
import torch

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import Corpus, given_to, reads_bos
from innerview.features.view import Example, FeatureView
from innerview.models import text
from innerview.models.model import Model
from innerview.where import Where

NOT_RUN = "loss effects were not run: dashboard.effects(feature)"


@torch.no_grad()
def loss_rises(model: Model, dictionary: Dictionary, feature: int, row: list[int]) -> np.ndarray:
    """Rise of each next token's loss in nats when a feature is taken out of a row, float32, shape [pos]; NaN at the last token.

    What the dictionary misses stays as it is. The special token at its front is left alone where the dictionary was not trained on them.

    Args:
        model: A language model.
        dictionary: The dictionary.
        feature: The feature.
        row: Ids, at least two.
    Raises:
        FeatureError: The row predicts nothing, or the network has no logits.
    """
    if len(row) < 2:
        raise FeatureError(f"a row of {len(row)} token predicts nothing; give at least two")
    # Special tokens further on count in the pass, so that the feature is taken out there too.
    is_whole = reads_bos(dictionary) or not text.is_special(model, row[0])
    edit = dictionary.ablate(feature, where=Where() if is_whole else Where(positions=tuple(range(1, len(row)))))
    plain, without = (_losses(model, row, edits) for edits in ((), [edit]))
    return np.append((without - plain).float().cpu().numpy(), np.float32(np.nan))


def _losses(model: Model, row: list[int], edits: object) -> torch.Tensor:
    logits = _logits(model, row, edits)[:-1].float()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:], device=logits.device), reduction="none")


def _logits(model: Model, row: list[int], edits: object = ()) -> torch.Tensor:
    if "logits" not in model.table:
        raise FeatureError(f"{model.name} has no logits, so nothing is lost in them; open a language model")
    return capture(model, given_to(model, [row]), "logits", edits=edits, hermetic=True, progress=False)["logits"][0]


@torch.no_grad()
def check_predicts(model: Model, row: list[int]) -> None:
    """Refuse a network whose logits at a token know what stands behind it: they are no prediction of it.

    Args:
        model: The network.
        row: Ids, at least two.
    Raises:
        FeatureError: It looks ahead, or has no logits.
    """
    first, second = row[0], row[1]
    other = first if first != second else (first + 1) % (model.vocab or first + 2)
    here, there = (_logits(model, [first, behind])[0] for behind in (second, other))
    # What is behind changes nothing but how sums are rounded.
    rounding = max(1e-3, 4 * torch.finfo(here.dtype).eps)
    here, there = here.float(), there.float()
    if float((here - there).abs().max()) > rounding * float(here.std(correction=0)):
        raise FeatureError(
            f"{model.name} looks ahead: its logits at a token know the tokens behind it, so there is no next token's loss; open a causal language model"
        )


def with_effects(
    view: FeatureView, model: Model, dictionary: Dictionary, corpus: Corpus | None, most: int
) -> FeatureView:
    """The view with the effects of its first few examples of each stretch; an interrupt leaves those that were run.

    Args:
        view: The view.
        model: The network.
        dictionary: The dictionary.
        corpus: What was read, for the whole row of an example; without it the stretch that is shown is run alone.
        most: Examples of each stretch.
    """
    stretches, is_stopped = [], False
    if some := next((one.ids for part in view.stretches for one in part.examples if len(one.ids) > 1), None):
        check_predicts(model, list(some))
    for stretch in view.stretches:
        examples = list(stretch.examples)
        for nth, example in enumerate(examples[:most]):
            if is_stopped or len(example.ids) < 2:
                continue
            try:
                examples[nth] = replace(example, effects=_of_example(example, view.feature, model, dictionary, corpus))
            except KeyboardInterrupt:
                is_stopped = True
        stretches.append(replace(stretch, examples=tuple(examples)))
    told = tuple(note for note in view.notes if note != NOT_RUN)
    notes = [] if corpus is not None else ["loss effects are of the stretch of text that is shown, read by itself"]
    notes += ["loss effects were stopped before the last"] if is_stopped else []
    return replace(view, stretches=tuple(stretches), notes=(*told, *notes))


def _of_example(
    example: Example, feature: int, model: Model, dictionary: Dictionary, corpus: Corpus | None
) -> np.ndarray:
    if corpus is None or example.place < 0:
        return loss_rises(model, dictionary, feature, list(example.ids))
    number = corpus.row_of(example.place)
    first = example.place - example.drawn - int(corpus.starts[number])
    return loss_rises(model, dictionary, feature, corpus.row(number))[first : first + len(example.ids)]
