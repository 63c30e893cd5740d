"""One cell of a patching grid run once more, with what the network answers on each side."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.attachments import attached
from innerview.causal.study import Cell, Study, share_of_way
from innerview.models.text import token_word

# Forwards of other batches round otherwise; beyond this share, the network is not what it was.
SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says behind one prompt.

    Attributes:
        ids: The likeliest next tokens, the likeliest first; places of the output where rows are no tokens.
        words: Their texts.
        probabilities: Their probabilities; the output's own values where rows are no tokens.
    """

    ids: list[int]
    words: list[str]
    probabilities: list[float]


@dataclass(frozen=True, eq=False)
class Rerun:
    """A cell run once more.

    Attributes:
        pair: Which pair the answers are of.
        clean: Answer to the clean prompt.
        corrupt: Answer to the corrupt prompt.
        patched: Answer of the patched forward.
        metric: The metric of clean, corrupt and patched of that pair.
        effect: Share of the way of all pairs, as the grid counts it.
        attached: Names of what is attached and in force now.
        is_same: Whether the metrics are those of the grid.
    """

    pair: int
    clean: Answer
    corrupt: Answer
    patched: Answer
    metric: tuple[float, float, float]
    effect: float
    attached: list[str]
    is_same: bool


def rerun_cell(study: Study, cell: Cell, pair: int, measured: Float[Tensor, "side pair"], k: int = 10) -> Rerun:
    """A cell's forwards, run again.

    Args:
        study: The study that the grid was measured by.
        cell: The cell.
        pair: The pair whose answers are read.
        measured: Metric of clean, corrupt and patched as the grid has it.
        k: How many words of each answer.
    """
    sides = [study.side(prompts) for prompts in (study.pairs.clean, study.pairs.corrupt)]
    ledger = study.ledger(1)
    study.put_in([cell], ledger, progress=False)
    now = torch.stack([*sides, ledger.values[0]])
    clean, corrupt, patched = study.answers(cell, pair)
    near = torch.isclose(now, measured.to(now), rtol=SAME, atol=SAME * float(measured.abs().max()), equal_nan=True)
    means = now.mean(dim=-1)
    answers = [_answer(study, logits, k) for logits in (clean, corrupt, patched)]
    return Rerun(
        pair=pair, clean=answers[0], corrupt=answers[1], patched=answers[2],
        metric=(float(now[0, pair]), float(now[1, pair]), float(now[2, pair])),
        effect=float(share_of_way(means[2], means[0], means[1], study.direction)),
        attached=[one.name for one in attached(study.model) if one.enabled], is_same=bool(near.all()),
    )  # fmt: skip


def _answer(study: Study, said: Any, k: int) -> Answer:
    values, has_tokens = said
    flat = values.flatten().float()
    scored = flat.softmax(dim=-1) if has_tokens else flat
    top = scored.topk(min(k, flat.numel()))
    ids = top.indices.tolist()
    words = [token_word(study.model.tokenizer, i) if has_tokens else str(i) for i in ids]
    return Answer(ids, words, top.values.tolist())
