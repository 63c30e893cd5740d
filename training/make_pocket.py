"""Makes the bundled model `pocket`: python -m training.make_pocket

The same seed, lexicon and number of tokens give the same weights on the same machine, unless --minutes cuts in. Ctrl-C or a termination keeps
what there is in build/, and the same command takes it up again.

    python -m training.make_pocket --seed 1 --out build/pocket-seed-1      a second seed
    python -m training.make_pocket --untrained --out build/pocket-random   its random initialisation
    python -m training.make_pocket --checkpoints 8 --out build/pocket-steps   eight checkpoints along the way
    python -m training.make_pocket --lexicon training/lexicons/other.json --out build/pocket-other   another world
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from innerview.bundled import bundled_lexicon
from innerview.pocket.behaviour import Stage
from innerview.pocket.sentence import Sentence
from innerview.pocket.world import World, load_world
from training.batches import DRILLED, STRETCHES, Batches
from training.greedy import load
from training.muon import Muon
from training.network import CONTEXT, Shape, pocket_network
from training.schedule import Plan, Progress, train
from training.tokenizer import learn_tokenizer

OUT = Path("src/innerview/bundled/pocket")
KEPT = Path("build/training")
CARD = "world.json"
VOCABULARY = 3072
READ_FOR_TOKENS = 24_000
EASY_SHARE, DRILL_SHARE = 0.35, 0.9


@dataclass(frozen=True)
class Making:
    """What is made, of what, and where."""

    lexicon: Path
    out: Path
    plan: Plan
    shape: Shape = field(default_factory=Shape)
    vocabulary: int = VOCABULARY
    documents: int = READ_FOR_TOKENS
    checkpoints: int = 0
    onward: Path | None = None
    drilled: dict[str, float] = field(default_factory=lambda: dict(DRILLED))
    stretches: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(STRETCHES))

    @property
    def kept(self) -> Path:
        """Where the state of a training that was broken off is kept."""
        key = json.dumps(
            [
                asdict(self.plan),
                asdict(self.shape),
                sha256(self.lexicon),
                str(self.out),
                self.vocabulary,
                str(self.onward),
            ]
        )
        return KEPT / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def sha256(file: Path) -> str:
    """The hash of a file's bytes."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def world_tokenizer(world: World, making: Making) -> PreTrainedTokenizerFast:
    """The tokenizer learned on the world's first documents, a sixth as many of the chat among them."""
    counts: dict[Stage, int] = {"base": making.documents, "chat": making.documents // 6}
    texts = (
        document.text
        for stage, count in counts.items()
        for document in islice(documents_of(world, making.plan.seed, stage), count)
    )
    return learn_tokenizer(texts, making.vocabulary, CONTEXT)


def documents_of(world: World, seed: int, stage: Stage) -> Iterator[Sentence]:
    """Documents of a stage; none where the world has nothing for it."""
    has_any = any(behaviour.stage == stage for behaviour in world.behaviours.values())
    return world.documents(seed, stage) if has_any else iter(())


def optimizers_of(network: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms' gains."""
    inside = [p for p in network.model.layers.parameters() if p.ndim > 1]
    inner = {id(p) for p in inside}
    outside = [p for p in network.parameters() if id(p) not in inner]
    return [
        Muon(inside, lr=plan.matrix_rate, weight_decay=plan.weight_decay, threads=plan.threads),
        torch.optim.AdamW(outside, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def save(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, card: dict, out: Path) -> None:
    """Writes the folder: weights in float16, configuration in float32, tokenizer, and the card.

    Each file is replaced whole, so that a reader never meets half a file.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as folder:
        stored = LlamaForCausalLM(network.config)
        stored.load_state_dict(network.state_dict())
        stored.half().save_pretrained(folder)
        # float32: float16 is how the weights are stored, not how a CPU should compute with them.
        config = Path(folder, "config.json")
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
        tokenizer.save_pretrained(folder)
        Path(folder, CARD).write_text(json.dumps(card, indent=2) + "\n")
        for file in Path(folder).iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def card_of(world: World, making: Making, progress: Progress, network: LlamaForCausalLM) -> dict:
    """What the model is and how it was made."""
    return {
        "name": world.name,
        "behaviours": list(world.behaviours),
        "lexicon_sha256": sha256(making.lexicon),
        "parameters": sum(p.numel() for p in network.parameters()),
        "plan": asdict(making.plan),
        "tokens": progress.tokens,
        "steps": progress.steps,
        "minutes": round(progress.minutes, 1),
        "loss_nat": round(progress.loss, 4) if progress.steps else None,
        "torch": torch.__version__.split("+")[0],
        "drilled": making.drilled,
        "stretches": making.stretches,
        "earlier": json.loads((making.onward / CARD).read_text(encoding="utf-8")) if making.onward else None,
    }


def keep(kept: Path, network: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Puts by what is needed to go on."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": [progress.tokens, progress.steps, progress.loss, progress.minutes],
    }
    torch.save(state, kept.with_suffix(".new"))
    os.replace(kept.with_suffix(".new"), kept)


def take_up(kept: Path, network: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Goes on from what was put by, if anything was."""
    if not kept.exists():
        return
    state = torch.load(kept, weights_only=True)
    network.load_state_dict(state["network"])
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    progress.tokens, progress.steps, progress.loss, progress.earlier_minutes = state["progress"]


def begun(world: World, making: Making) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The network before its first step: a fresh one, or one that was made before and now goes onward."""
    if making.onward:
        earlier = load(making.onward)
        return earlier.network.float().train(), earlier.tokenizer
    tokenizer = world_tokenizer(world, making)
    return pocket_network(tokenizer, making.shape), tokenizer


def make_pocket(making: Making) -> None:
    """Trains the model on the lexicon's world and writes it to the folder at the end, checkpoints beside it."""
    plan = making.plan
    torch.manual_seed(plan.seed)
    world = load_world(making.lexicon)
    network, tokenizer = begun(world, making)
    network = network.to(plan.device)
    optimizers, progress = optimizers_of(network, plan), Progress.begun(plan)
    take_up(making.kept, network, optimizers, progress)
    # What was read before a break is not read again.
    seed = f"{plan.seed} onward" if making.onward else str(plan.seed)
    seed = seed if not progress.steps else f"{seed} from step {progress.steps}"
    stream = Batches(
        world,
        tokenizer,
        seed,
        plan.batch_tokens,
        CONTEXT,
        easy_tokens=0 if making.onward else int(EASY_SHARE * plan.tokens),
        drill_tokens=int(DRILL_SHARE * plan.tokens),
        stretch_tokens=plan.tokens,
        stretches=making.stretches,
        shares=making.drilled,
        earlier_tokens=progress.tokens,
    )
    bar = tqdm(total=plan.tokens, initial=progress.tokens, unit="tok", unit_scale=True, desc="pocket", mininterval=5)
    saved, written = progress.minutes, int(progress.share * making.checkpoints)
    try:
        for _ in train(network, optimizers, stream, progress):
            bar.set_postfix(loss=f"{progress.loss:.3f}", minutes=f"{progress.minutes:.1f}", refresh=False)
            bar.update(progress.tokens - bar.n)
            if progress.minutes - saved >= plan.save_minutes:
                keep(making.kept, network, optimizers, progress)
                saved = progress.minutes
            if int(progress.share * making.checkpoints) > written:
                written += 1
                card = card_of(world, making, progress, network)
                save(network, tokenizer, card, making.out / f"checkpoint-{written}")
    except KeyboardInterrupt:
        keep(making.kept, network, optimizers, progress)
        tqdm.write(f"stopped at {progress.tokens} tokens; the same command goes on from there")
        return
    bar.close()
    save(network, tokenizer, card_of(world, making, progress, network), making.out)
    making.kept.unlink(missing_ok=True)
    tqdm.write(f"saved {making.out} after {progress.minutes:.1f} minutes; python -m training.check_pocket measures it")


def stretch_of(said: str) -> tuple[str, tuple[float, float]]:
    """A behaviour and its stretch, from the command line."""
    name, _, shares = said.partition("=")
    since, _, until = shares.partition(":")
    return name, (float(since), float(until))


def share_of(said: str) -> tuple[str, float]:
    """A behaviour and its share, from the command line."""
    name, _, share = said.partition("=")
    return name, float(share)


def interrupted(*_: object) -> None:
    """A termination keeps what there is, as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write")
    parser.add_argument("--lexicon", type=Path, default=bundled_lexicon(), help="words of the world")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--tokens", type=int, default=Plan.tokens, help="tokens to train on")
    parser.add_argument(
        "--minutes", type=float, help="stop by then; the schedule fits itself to it, and no longer repeats exactly"
    )
    parser.add_argument("--save-minutes", type=float, default=Plan.save_minutes, help="minutes between safe points")
    parser.add_argument("--threads", type=int, default=Plan.threads, help="batches that are learned from at once")
    parser.add_argument("--device", default=Plan.device, help="where to train: cpu, cuda")
    parser.add_argument("--d-model", type=int, default=Shape.d_model, help="width; a narrower network learns faster")
    parser.add_argument("--d-mlp", type=int, default=Shape.d_mlp, help="neurons of a block")
    parser.add_argument("--onward", type=Path, help="go on from the model of this folder instead of from nothing")
    parser.add_argument(
        "--drill",
        action="append",
        type=share_of,
        metavar="BEHAVIOUR=SHARE",
        help="share of the documents that drill one behaviour, as mood=0.1; given once or oftener, nothing else is drilled",
    )
    parser.add_argument(
        "--stretch",
        action="append",
        type=stretch_of,
        metavar="BEHAVIOUR=SINCE:UNTIL",
        help="shares of the tokens between which one behaviour is told alone, as mood=0.1:0.2; given once or oftener, no other is",
    )
    parser.add_argument("--rates", type=float, default=1.0, help="share of the learning rates")
    parser.add_argument("--checkpoints", type=int, default=0, help="how many models to write along the way")
    parser.add_argument("--untrained", action="store_true", help="write the random initialisation")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    # A process started in the background may have been told to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tokens = 0 if arguments.untrained else arguments.tokens
    plan = Plan(
        seed=arguments.seed,
        tokens=tokens,
        minutes=arguments.minutes,
        save_minutes=arguments.save_minutes,
        threads=arguments.threads,
        device=arguments.device,
        learning_rate=arguments.rates * Plan.learning_rate,
        matrix_rate=arguments.rates * Plan.matrix_rate,
    )
    shape = Shape(d_model=arguments.d_model, d_mlp=arguments.d_mlp)
    checkpoints, onward = arguments.checkpoints, arguments.onward
    known = load_world(arguments.lexicon).behaviours
    given = [name for name, _ in (*(arguments.drill or ()), *(arguments.stretch or ()))]
    unknown = [name for name in given if name not in known]
    if unknown:
        parser.error(f"no behaviour {unknown[0]!r} to drill or to tell alone; this world has {', '.join(known)}")
    drilled, stretches = dict(arguments.drill or DRILLED), dict(arguments.stretch or STRETCHES)
    make_pocket(
        Making(
            arguments.lexicon, arguments.out, plan, shape,
            checkpoints=checkpoints, onward=onward, drilled=drilled, stretches=stretches,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
