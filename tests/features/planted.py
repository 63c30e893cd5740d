"""Dictionaries whose features read one word each, by construction."""

from collections import Counter

import torch

import innerview as iv


def reading(model: iv.Model, ids: list[int]) -> iv.Dictionary:
    """A dictionary of the embedding: a feature a token, active on it alone, and a dead one."""
    table = model.module.get_input_embeddings().weight.detach().float()
    rows = torch.stack([table[one] / table[one].norm() for one in ids])
    # Just below what the token itself gives, and above what any other does.
    own, others = (table @ rows.T)[ids].diagonal(), (table @ rows.T).clone()
    others[ids, torch.arange(len(ids))] = -torch.inf
    assert bool((others.amax(dim=0) < own).all())
    bias = -(own + others.amax(dim=0)) / 2
    encoder = torch.cat([rows, torch.zeros(1, rows.shape[1])])
    weights = iv.Weights(
        encoder, torch.cat([bias, torch.tensor([-1.0])]), torch.cat([rows, rows[:1]]), torch.zeros(rows.shape[1])
    )
    manifest = iv.Manifest(False, iv.Normalisation(), site="embed", bos="absent", source="planted")
    return iv.Dictionary(weights, iv.ReLU(), manifest)


def reading_words(known: iv.KnownLabels) -> tuple[iv.Model, iv.Dictionary, list[str]]:
    """The bundled network, a dictionary of three words that the world says now and then, and these."""
    model = iv.open_model("pocket")
    counts = []
    for split in ("train", "held_out"):
        rows = model.tokenizer([one.text for one in known.drawn(split)], add_special_tokens=False)["input_ids"]
        counts.append(Counter(one for row in rows for one in set(row)))
    often = [one for one in sorted(counts[0]) if all(12 <= count[one] <= 60 for count in counts)]
    words = [one for one in often if model.tokenizer.decode([one]).startswith(" ")][::5][:3]
    return model, reading(model, words), [model.tokenizer.decode([one]) for one in words]
