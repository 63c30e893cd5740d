"""What the network loses where a feature is taken out: the rise of each next token's loss.

Reference: https://transformer-circuits.pub/2023/monosemantic-features (ablations in feature dashboards)
"""

from dataclasses import replace

import numpy as np
import torch

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import Corpus, reads_bos
from innerview.features.view import Example, FeatureView
from innerview.models.model import Model
from innerview.where import Where

NOT_RUN = "loss effects were not run: dashboard.effects(feature)"


@torch.no_grad()
def loss_rises(model: Model, dictionary: Dictionary, feature: int, row: list[int]) -> np.ndarray:
    """Rise of each next token's loss in nats when a feature is taken out of a row, float32, shape [pos]; NaN at the last token.

    What the dictionary misses stays as it is. Special tokens are left alone where the dictionary was not trained on them.

    Args:
        model: A language model.
        dictionary: The dictionary.
        feature: The feature.
        row: Ids, at least two.
    Raises:
        FeatureError: The row predicts nothing, or the network has no logits.
    """
    if "logits" not in model.table:
        raise FeatureError(f"{model.name} has no logits, so nothing is lost in them; open a language model")
    if len(row) < 2:
        raise FeatureError(f"a row of {len(row)} token predicts nothing; give at least two")
    where = Where() if reads_bos(dictionary) or model.tokenizer is None else Where(special=False)
    edit = dictionary.ablate(feature, where=where)
    plain, without = (_losses(model, row, edits) for edits in ((), [edit]))
    return np.append((without - plain).float().cpu().numpy(), np.float32(np.nan))


def _losses(model: Model, row: list[int], edits: object) -> torch.Tensor:
    logits = capture(model, [row], "logits", edits=edits, hermetic=True, progress=False)["logits"][0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:], device=logits.device), reduction="none")


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
