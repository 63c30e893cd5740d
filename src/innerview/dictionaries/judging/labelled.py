"""Labelled sentences as activations and codes: each sentence's mean, and the token where its label ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.losses import groups
from innerview.dictionaries.judging.rows import whole_rows
from innerview.errors import DictionaryError
from innerview.models.model import Model
from innerview.where.spans import Reader


@dataclass(frozen=True, eq=False)
class Read:
    """Sentences of one concept, read.

    Attributes:
        pooled: Mean activation of each sentence's tokens, special ones left out, shape [n, d_in].
        codes: Mean codes of the same tokens, shape [n, n_features].
        at: Activation at the last token of the label, shape [n, d_in].
        at_codes: Codes there, shape [n, n_features].
        values: The label of each.
        is_test: Whether a sentence is held out; both of a pair are, or neither.
    """

    pooled: Tensor
    codes: Tensor
    at: Tensor
    at_codes: Tensor
    values: list[str]
    is_test: Tensor


def read_sentences(dictionary: Dictionary, model: Model, items: Sequence[Any], seed: int) -> Read:
    """Run labelled sentences, and pool what the dictionary reads; those longer than the network reads are left out.

    Raises:
        DictionaryError: There are no sentences.
    """
    if not items:
        raise DictionaryError("a concept has no sentences; iv.pocket.sentences(name) gives some")
    encoded = whole_rows(model, [item.text for item in items])
    fits = [nth for nth, row in enumerate(encoded) if model.context is None or len(row) <= model.context]
    items, rows = [items[nth] for nth in fits], [encoded[nth] for nth in fits]
    pooled, at = torch.zeros(len(rows), dictionary.d_in), torch.zeros(len(rows), dictionary.d_in)
    codes = torch.zeros(len(rows), dictionary.n_features)
    reader = Reader.of(model.tokenizer)
    for group in groups(rows, None):
        listed = [rows[nth] for nth in group]
        acts = capture(model, listed, dictionary.site, hermetic=True, batch_size=len(listed), progress=False)
        values = acts[dictionary.site].flatten(2).float().cpu()
        for place, nth in enumerate(group):
            kept = torch.tensor([i not in reader.special_ids for i in rows[nth]])
            x = values[place, : len(kept)]
            at[nth] = x[_label_token(reader, rows[nth], items[nth])]
            x = x[kept] if kept.any() else x
            pooled[nth], found = x.mean(dim=0), dictionary.encode(x)
            codes[nth].index_add_(0, found.features.cpu(), found.values.detach().float().cpu() / len(x))
    at_codes = dictionary.encode(at).dense().detach().float().cpu()
    return Read(pooled, codes, at, at_codes, [item.value for item in items], _held_out(items, seed))


def _label_token(reader: Reader, row: list[int], item: Any) -> int:
    """The last token that writes part of the label; the row's last where the text is not found again."""
    whole, places = reader.layout(row)
    begin = whole.find(item.text)
    if begin < 0:
        return len(row) - 1
    end = begin + item.end
    return next((n for n, (start, stop) in enumerate(places) if start < end <= stop), len(row) - 1)


def _held_out(items: Sequence[Any], seed: int) -> Tensor:
    """Half of the sentences, drawn pair by pair."""
    keys = [
        f"pair {item.pair}" if getattr(item, "pair", None) is not None else f"row {n}" for n, item in enumerate(items)
    ]
    unique = sorted(set(keys))
    Random(seed).shuffle(unique)
    chosen = set(unique[: len(unique) // 2])
    return torch.tensor([key in chosen for key in keys])
