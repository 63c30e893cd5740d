"""Makes the bundled model `pocket`: python -m training.make_pocket --out src/innerview/bundled/pocket

The same seed, lexicon and number of tokens give the same weights on the same machine, unless --minutes cuts in.
Ctrl-C saves what it has.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from training.batches import Batch, batches
from training.muon import Muon
from training.network import CONTEXT, pocket_network
from training.tokenizer import learn_tokenizer
from training.twins import Twins
from training.world.world import DEFAULT_LEXICON, World, load_world

OUT = Path("src/innerview/bundled/pocket")


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; a plan without minutes repeats exactly."""

    seed: int = 0
    tokens: int = 4_500_000
    minutes: float | None = None
    threads: int = 2
    batch_tokens: int = 2048
    vocab_size: int = 2048
    learning_rate: float = 2e-3
    matrix_rate: float = 0.01
    weight_decay: float = 0.1
    warmup: float = 0.02
    save_minutes: float = 3.0


@dataclass
class Progress:
    """How far a training has come; `share` is of the tokens or of the minutes, whichever is further."""

    plan: Plan
    started: float
    tokens: int = 0
    steps: int = 0
    loss: float = float("nan")

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.started) / 60

    @property
    def share(self) -> float:
        of_minutes = self.minutes / self.plan.minutes if self.plan.minutes else 0.0
        return min(1.0, max(self.tokens / self.plan.tokens, of_minutes))

    @property
    def rate(self) -> float:
        """The share of the peak learning rates: a short warm-up, then half a cosine down to a fiftieth."""
        if self.share < self.plan.warmup:
            return self.share / self.plan.warmup + 0.01
        done = (self.share - self.plan.warmup) / (1 - self.plan.warmup)
        return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def world_tokenizer(world: World, plan: Plan) -> PreTrainedTokenizerFast:
    """The tokenizer learned on the world's first documents."""
    texts = (document.text for document in islice(world.documents(plan.seed), 30_000))
    return learn_tokenizer(texts, plan.vocab_size, CONTEXT)


def optimizers_of(network: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms' gains."""
    inside = [p for p in network.model.layers.parameters() if p.ndim > 1]
    inner = {id(p) for p in inside}
    outside = [p for p in network.parameters() if id(p) not in inner]
    return [
        Muon(inside, lr=plan.matrix_rate, weight_decay=plan.weight_decay),
        torch.optim.AdamW(outside, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def weighted_loss(network: nn.Module, batch: Batch) -> tuple[Tensor, float]:
    """The loss that is minimised, and the plain mean over the real tokens, in nats."""
    logits = network(batch.ids, use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    weights = batch.weights.flatten()
    real = weights > 0
    return losses @ weights / weights.sum(), losses.detach()[real].mean().item()


def train(
    network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, plan: Plan
) -> Iterator[Progress]:
    """Trains in place, yielding after every step, until the plan's tokens or minutes are spent."""
    optimizers = optimizers_of(network, plan)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    progress = Progress(plan, time.monotonic())
    stream = batches(world, tokenizer, seed=plan.seed, batch_tokens=plan.batch_tokens, context=CONTEXT)
    twins = Twins(network.train(), plan.threads)
    while progress.share < 1:
        shares = list(islice(stream, plan.threads))
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * progress.rate
        recent = twins.backward(shares, weighted_loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        progress.tokens += sum(batch.tokens for batch in shares)
        progress.steps += 1
        progress.loss = recent if progress.steps == 1 else 0.98 * progress.loss + 0.02 * recent
        yield progress


def save(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, card: dict, out: Path) -> None:
    """Writes the folder: weights in float16, configuration in float32, tokenizer, and the card `world.json`.

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
        Path(folder, "world.json").write_text(json.dumps(card, indent=2) + "\n")
        for file in Path(folder).iterdir():
            file.chmod(0o644)
            os.replace(file, out / file.name)


def card_of(world: World, lexicon: Path, plan: Plan, progress: Progress, network: LlamaForCausalLM) -> dict:
    """What the model is and how it was made."""
    return {
        "name": world.name,
        "behaviours": list(world.behaviours),
        "lexicon_sha256": hashlib.sha256(lexicon.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "plan": asdict(plan),
        "tokens": progress.tokens,
        "steps": progress.steps,
        "minutes": round(progress.minutes, 1),
        "loss_nat": round(progress.loss, 4),
        "torch": torch.__version__.split("+")[0],
    }


def make_pocket(lexicon: Path, out: Path, plan: Plan) -> None:
    """Trains the model on the lexicon's world and writes it to the folder, every few minutes and at the end."""
    torch.manual_seed(plan.seed)
    world = load_world(lexicon)
    tokenizer = world_tokenizer(world, plan)
    network = pocket_network(tokenizer)
    progress, saved = Progress(plan, time.monotonic()), 0.0
    bar = tqdm(total=plan.tokens, unit="tok", unit_scale=True, desc="pocket", mininterval=5)
    try:
        for progress in train(network, tokenizer, world, plan):
            bar.set_postfix(loss=f"{progress.loss:.3f}", minutes=f"{progress.minutes:.1f}", refresh=False)
            bar.update(progress.tokens - bar.n)
            if progress.minutes - saved >= plan.save_minutes:
                save(network, tokenizer, card_of(world, lexicon, plan, progress, network), out)
                saved = progress.minutes
    except KeyboardInterrupt:
        tqdm.write(f"stopped at {progress.tokens} tokens; what there is will be saved")
    bar.close()
    if progress.steps:
        save(network, tokenizer, card_of(world, lexicon, plan, progress, network), out)
        tqdm.write(f"saved {out} after {progress.minutes:.1f} minutes; python -m training.check_pocket measures it")


def interrupted(*_: object) -> None:
    """A termination saves as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write")
    parser.add_argument("--lexicon", type=Path, default=DEFAULT_LEXICON, help="words of the world")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--tokens", type=int, default=Plan.tokens, help="tokens to train on")
    parser.add_argument(
        "--minutes", type=float, help="stop by then; the schedule fits itself to the clock, so runs differ a little"
    )
    parser.add_argument("--save-minutes", type=float, default=Plan.save_minutes, help="minutes between saves")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    # A process started in the background may have been told to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plan = Plan(
        seed=arguments.seed, tokens=arguments.tokens, minutes=arguments.minutes, save_minutes=arguments.save_minutes
    )
    make_pocket(arguments.lexicon, arguments.out, plan)


if __name__ == "__main__":
    main()
