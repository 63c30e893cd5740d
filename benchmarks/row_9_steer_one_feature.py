"""Row 9: steer one feature at each decoded token, a network of GPT-2's size and a dictionary of 24,576 features."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

import innerview as iv
from benchmarks import networks
from benchmarks.gate import other_ids, same_ids
from benchmarks.pairing import Contender, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from benchmarks.ways import with_compile, with_hooks, with_innerview, with_whole_sae

POS, TOKENS, LAYER, N_FEATURES, FEATURE = 16, 16, 6, 24_576, 17
# Long enough to change what a network of random weights writes.
LENGTH = 20.0
TARGET = 1.01
UNEDITED, CLAMP, ADD, WHOLE, SAE_LENS = (
    "unedited",
    "sae.clamp",
    "Add of sae.direction",
    "whole SAE by hand",
    "whole SAE of SAELens",
)


def row(rounds: int | None) -> Row:
    """Ours against the unedited step, and against whole SAEs with their error terms."""
    module = networks.gpt2()
    ids, sae = networks.ids(module, 1, POS), dictionary(module.config.hidden_size)
    peers, missing = _peers(module, ids, sae)
    workloads = [_clamped(module, ids, sae, peers, rounds or 40), _added(module, ids, sae, rounds or 40)]
    workloads.append(_compiled(module, ids, sae, rounds or 40))
    return Row("9", "Steer one feature at each decoded token", workloads, NOTES, missing)


NOTES = [
    "The limit is `iv.generate` with no edit, of the same network; compiled, it is a static cache and `torch.compile` by hand, with no tap put in.",
    "A whole SAE encodes every feature, sets the one, decodes, and adds back what it leaves out; it decodes by a hook on transformers' `generate`.",
    "The dictionary is random: JumpReLU, float32, thresholds that leave a few dozen features active.",
]


def dictionary(width: int) -> iv.Dictionary:
    """A random JumpReLU dictionary at the edited site, the same each time; one step of its features is long enough to change a text."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    encoder, decoder = random(N_FEATURES, width) / width**0.5, random(N_FEATURES, width)
    decoder = decoder / decoder.norm(dim=1, keepdim=True)
    weights = iv.Weights(
        encoder,
        torch.zeros(N_FEATURES),
        decoder,
        torch.zeros(width),
        None,
        {"threshold": torch.full((N_FEATURES,), 3.0)},
    )
    return iv.Dictionary(weights, iv.JumpReLU(), iv.Manifest(False, iv.Normalisation(), site=f"blocks.{LAYER}.resid"))


def _peers(module: PreTrainedModel, ids: Tensor, sae: iv.Dictionary) -> tuple[list[Contender], dict[str, str]]:
    """Whole SAEs that set the feature, and those that cannot be imported."""
    made, missing = [], {}
    for name, way in ((WHOLE, with_whole_sae.by_hand), (SAE_LENS, with_whole_sae.by_sae_lens)):
        try:
            change = way(sae, FEATURE, LENGTH)
        except ImportError as error:
            missing[name] = str(error)
            continue
        made.append(Contender(name, "peer", with_whole_sae.decode(module, ids, LAYER, change, TOKENS)))
    return made, missing


def _clamped(module: PreTrainedModel, ids: Tensor, sae: iv.Dictionary, peers: list[Contender], rounds: int) -> Workload:
    limit = Contender(UNEDITED, "limit", with_innerview.unedited(module, ids, TOKENS))
    ours = Contender(CLAMP, "ours", with_innerview.decode_feature(module, ids, sae.clamp(FEATURE, LENGTH), TOKENS))
    gate = f"{same_ids([ours, *peers], length=TOKENS)}, {other_ids(ours, limit)}"
    timings = measure([limit, ours, *peers], rounds=rounds)
    claims = [
        Claim(f"{CLAMP}: time ÷ {UNEDITED}", timings.ratio(CLAMP, UNEDITED), "×", TARGET),
        *[Claim(f"time of {c.name} ÷ {CLAMP}", timings.ratio(c.name, CLAMP), "×") for c in peers],
        Claim(f"{CLAMP} beyond {UNEDITED}, a token", timings.difference(CLAMP, UNEDITED, 1e6 / TOKENS), "µs"),
    ]
    return Workload(_named("one feature clamped"), gate, timings, claims)


def _added(module: PreTrainedModel, ids: Tensor, sae: iv.Dictionary, rounds: int) -> Workload:
    direction = sae.direction(FEATURE)
    limit = Contender(UNEDITED, "limit", with_innerview.unedited(module, ids, TOKENS))
    edit, delta = iv.Add(direction, LENGTH, unit="raw"), direction.vector * LENGTH
    ours = Contender(ADD, "ours", with_innerview.decode_feature(module, ids, edit, TOKENS))
    hook = Contender("plain hook", "peer", with_hooks.decode(module, ids, LAYER, delta, TOKENS))
    gate = f"{same_ids([ours, hook], length=TOKENS)}, {other_ids(ours, limit)}"
    timings = measure([limit, ours, hook], rounds=rounds)
    claims = [
        Claim(f"{ADD}: time ÷ {UNEDITED}", timings.ratio(ADD, UNEDITED), "×", TARGET),
        Claim(f"time of the plain hook ÷ {ADD}", timings.ratio("plain hook", ADD), "×"),
    ]
    return Workload(_named("one feature's direction added"), gate, timings, claims)


def _compiled(module: PreTrainedModel, ids: Tensor, sae: iv.Dictionary, rounds: int) -> Workload:
    limit = Contender(f"{UNEDITED}, compiled", "limit", with_compile.unedited(networks.twin(module), ids, TOKENS))
    ours = Contender(
        f"{CLAMP}, compiled", "ours",
        with_innerview.decode_compiled(networks.twin(module), ids, LAYER, sae.clamp(FEATURE, LENGTH), TOKENS),
    )  # fmt: skip
    plain = Contender(CLAMP, "ours", with_innerview.decode_feature(module, ids, sae.clamp(FEATURE, LENGTH), TOKENS))
    gate = f"{same_ids([ours, plain], length=TOKENS)}, {other_ids(ours, limit)}"
    timings = measure([limit, ours, plain], rounds=rounds)
    claims = [
        Claim(f"{ours.name}: time ÷ {limit.name}", timings.ratio(ours.name, limit.name), "×", TARGET),
        Claim(f"time of {CLAMP} ÷ {ours.name}", timings.ratio(CLAMP, ours.name), "×"),
    ]
    return Workload(_named("one feature clamped, by compiled code"), gate, timings, claims)


def _named(what: str) -> str:
    return (
        f"{TOKENS} greedy tokens behind {POS}, {what} at blocks.{LAYER}.resid at each, {N_FEATURES} features, GPT-2's size, "
        f"random float32 weights, threads: {torch.get_num_threads()}"
    )


if __name__ == "__main__":
    run(row)
