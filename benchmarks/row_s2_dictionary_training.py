"""Row S2: dictionaries of pocket trained by innerview and by SAELens, on the same activations and as many of them."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sae_lens import SAE
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

import innerview as iv
from benchmarks.pairing import Contender, DisagreementError, Span, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from innerview.dictionaries.training.learner import Learner
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.pocket.world import load_world

SITE, N_FEATURES, BATCH = "blocks.4.resid", 1536, 4096
STEPS, HELD_OUT = 100, 16_384
# SAELens' default, and up to where it no longer gains.
RATES = (3e-4, 3e-3, 1e-2)
CLOSE = 1e-3


@dataclass(frozen=True)
class Trained:
    """What came of one training: share of the variance that is missed, and codes a token, on activations held out."""

    fvu: float
    l0: float


@dataclass(frozen=True)
class Kind:
    """One architecture as both have it."""

    name: str
    ours: Callable[[int], Any]
    sae: Any
    config: Callable[..., Any]
    sparsities: tuple[int, ...]


KINDS = (
    Kind("TopK", iv.TopK, TopKTrainingSAE, TopKTrainingSAEConfig, (8, 16, 32)),
    # By default its running threshold would not have left 0 behind within so few steps.
    Kind(
        "BatchTopK",
        iv.BatchTopK,
        BatchTopKTrainingSAE,
        partial(BatchTopKTrainingSAEConfig, topk_threshold_lr=0.1),
        (16,),
    ),
)


def row(rounds: int | None) -> Row:
    """The frontier of FVU over L0 at three sparsities, and steps of training in turns."""
    x = activations(STEPS * BATCH + HELD_OUT)
    known, held_out = x[:-HELD_OUT], x[-HELD_OUT:]
    workloads = [_workload(kind, k, known, held_out, rounds or 20) for kind in KINDS for k in kind.sparsities]
    return Row("S2", "Training of dictionaries: FVU over L0, and tokens a second", workloads, NOTES)


NOTES = [
    f"Activations of {SITE} of pocket, {STEPS * BATCH:,} tokens in batches of {BATCH}, each seen once by both; {N_FEATURES} features.",
    f"FVU is taken on {HELD_OUT:,} other tokens, of the dictionaries as they are saved and loaded.",
    "innerview trains at its defaults.",
    f"SAELens trains at the rates {', '.join(f'{rate:g}' for rate in RATES)}; the first is its default. They fall over the last fifth, and its best is taken.",
    "One seed each: differences of a hundredth in a ratio of FVU mean nothing.",
    "SAELens' BatchTopK follows its threshold at a rate of 0.1 instead of 0.01, which is too slow for a training this short.",
    "The times are those of one step of training, behind a whole training.",
]


def activations(n: int) -> Tensor:
    """Activations of tokens of the pocket world, in an order drawn at random, shape [n, d]."""
    model = iv.open_model("pocket")
    texts, found, size = load_world().documents("benchmark"), [], 0
    while size < n:
        some = sorted((next(texts).text for _ in range(2000)), key=len)
        for start in range(0, len(some), 200):
            acts = iv.capture(model, some[start : start + 200], [SITE], progress=False)
            mask = acts.mask.clone()
            mask[:, 0] = False
            found.append(acts[SITE][mask])
            size += len(found[-1])
    x = torch.cat(found)
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n]]


def _workload(kind: Kind, k: int, known: Tensor, held_out: Tensor, rounds: int) -> Workload:
    done = iv.train_dictionary(
        known, SITE, kind.ours(k), n_features=N_FEATURES, n_tokens=len(known), batch_tokens=BATCH, progress=False
    )
    ours = judged(done.dictionary, held_out)
    theirs: dict[float, Trained] = {}
    gate = ""
    trainer = None
    for rate in RATES:
        trainer, gate, theirs[rate] = _peer(kind, k, rate, known, held_out)
    best = min(theirs.values(), key=lambda one: one.fvu)
    timings = measure(_contenders(kind, k, known, trainer), rounds=rounds)
    told = "; ".join(f"rate {rate:g}: {one.fvu:.4f} at L0 {one.l0:.1f}" for rate, one in theirs.items())
    return Workload(
        f"{kind.name} {k}: FVU {ours.fvu:.4f} at L0 {ours.l0:.1f}; SAELens' {told}",
        gate,
        timings,
        _claims(ours, best, timings),
    )


def _claims(ours: Trained, best: Trained, timings: Timings) -> list[Claim]:
    return [
        Claim("FVU ÷ SAELens' best", _point(ours.fvu / best.fvu), "×", 1.0),
        Claim("L0 ÷ SAELens' best", _point(ours.l0 / best.l0), "×"),
        Claim("time of a step ÷ SAELens'", timings.ratio("innerview", "SAELens"), "×", 1.0),
        Claim("tokens a second, in thousands", Span.of([BATCH / 1e3 / s for s in timings.seconds["innerview"]]), "k"),
    ]


def _point(value: float) -> Span:
    return Span(value, value, value, value, value)


@torch.no_grad()
def judged(dictionary: iv.Dictionary, x: Tensor) -> Trained:
    """FVU and L0 of a dictionary on activations."""
    error = active = 0.0
    for some in x.split(BATCH):
        codes = dictionary.encode(some)
        error += float((dictionary.decode(codes, some) - some).square().sum())
        active += len(codes)
    return Trained(error / float((x - x.mean(0)).square().sum()), active / len(x))


def _peer(kind: Kind, k: int, rate: float, known: Tensor, held_out: Tensor) -> tuple[Any, str, Trained]:
    """SAELens' trainer when it has trained, what was checked, and how good its dictionary is."""
    torch.manual_seed(0)
    sae = kind.sae(kind.config(d_in=known.shape[1], d_sae=N_FEATURES, k=k))
    config = SAETrainerConfig(
        total_training_samples=len(known),
        train_batch_size_samples=BATCH,
        lr=rate,
        lr_end=rate / 10,
        lr_decay_steps=STEPS // 5,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=_batches(known))
    with contextlib.redirect_stderr(io.StringIO()):
        trainer.fit()
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        saved: Any = SAE.load_from_disk(folder)
        read = iv.load_dictionary(folder)
    return trainer, _same_codes(read, saved, held_out[:BATCH]), judged(read, held_out)


def _same_codes(read: iv.Dictionary, saved: Any, x: Tensor) -> str:
    """What was checked: the judge reads SAELens' dictionary as SAELens does.

    Raises:
        DisagreementError: Its reconstruction differs.
    """
    with torch.no_grad():
        wanted = saved(x)
    gap = float((read.reconstruct(x) - wanted).norm() / wanted.norm())
    if not gap <= CLOSE:
        raise DisagreementError(
            f"innerview and SAELens reconstruct by one dictionary, and differ by {gap:.3g} of the length"
        )
    return f"innerview reconstructs by SAELens' saved dictionary as SAELens does, within {gap:.1g} of the length"


def _batches(x: Tensor) -> Iterator[Tensor]:
    of = torch.Generator().manual_seed(0)
    while True:
        yield from (x[some] for some in torch.randperm(len(x), generator=of).split(BATCH))


def _contenders(kind: Kind, k: int, known: Tensor, trainer: Any) -> list[Contender]:
    """One step of each, of dictionaries that are trained."""
    settings = TrainingSettings(n_tokens=len(known), batch_tokens=BATCH, device="cpu")
    spec = DictionarySpec(SITE, kind.ours(k), N_FEATURES)
    learner = Learner(spec, settings, {SITE: known[: 2 * BATCH]}, STEPS, Processes())
    batches = _batches(known)
    for step in range(STEPS // 2):
        learner.step({SITE: next(batches)}, step, step * BATCH)
    batch = next(batches)

    def theirs() -> None:
        trainer.step(batch)

    def ours() -> None:
        learner.step({SITE: batch}, STEPS // 2, STEPS // 2 * BATCH)

    return [Contender("innerview", "ours", ours), Contender("SAELens", "peer", theirs)]


if __name__ == "__main__":
    run(row)
