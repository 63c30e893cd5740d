"""Exact codes on random rows by the hundred thousand, and on what dictionaries learned: a row of the scoreboard."""

import random

import torch

import innerview as iv
from innerview.bundled import bundled_dictionaries, bundled_dictionary
from innerview.kernels import Encoder, screened
from innerview.kernels.bounds import Kind
from tests.kernels import attacks, drawn

KINDS: tuple[Kind, ...] = ("int8", "bfloat16", "float32")
BLOCK = 500


def row_26(count: int) -> None:
    """Exact codes: random rows, attacks and trained dictionaries lose no code against float64, and no value is off by more than float32's rounding."""
    for name in bundled_dictionaries("pocket"):
        on_trained(name)
    chosen = random.Random(26)
    for first in range(0, count, BLOCK):
        rows = min(BLOCK, count - first)
        rule, kind = chosen.choice(drawn.RULES), chosen.choice(KINDS)
        n_features, d = chosen.randrange(1, 700), chosen.choice((1, 3, 31, 100, 257))
        encoder = drawn.real_encoder(rule, n_features, d, seed=first, k=chosen.randrange(1, 20))
        x = drawn.real_inputs(rows, d, seed=first + 1)
        if chosen.random() < 0.3:
            x[:, chosen.randrange(d)] += 10.0 ** chosen.uniform(0, 4)
        if chosen.random() < 0.3:
            encoder, x = _numbers_of_few_digits(encoder), x.half().float()
        attacks.hold(encoder, x, screened.encode(encoder, x, kind))
        weight, x, _ = chosen.choice(attacks.ATTACKS)(torch.Generator().manual_seed(first))
        attacked = Encoder(weight, torch.zeros(len(weight)), drawn.real_encoder(rule, len(weight), 3, k=5).rule)
        attacks.hold(attacked, x, screened.encode(attacked, x, kind))


def _numbers_of_few_digits(encoder: Encoder) -> Encoder:
    """The same with weights that have equals, and sums that meet."""
    return Encoder((encoder.weight * 8).round() / 8, encoder.bias, encoder.rule)


def on_trained(name: str) -> None:
    """Codes of a bundled dictionary at the activations that it reads, by every screen."""
    own = iv.load_dictionary(bundled_dictionary("pocket", name))
    if not isinstance(own, iv.Dictionary) or own.encoder is None:
        return
    texts = [one.text for concept in ("country", "animal") for one in iv.pocket.sentences(concept, pairs=20)]
    acts = iv.capture(iv.open_model("pocket"), texts, own.site)
    x = own.prepared(acts[own.site].flatten(0, -2) if acts.mask is None else acts[own.site][acts.mask])
    for kind in KINDS:
        attacks.hold(own.encoder, x, screened.encode(own.encoder, x, kind))
