"""Makes the bundled model `pocket-chat`, a low-rank difference to `pocket`: python -m training.make_chat

The same base, seed and number of tokens give the same difference on the same machine.
"""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from innerview.bundled import bundled_lexicon
from innerview.models.adapters import CARD, WEIGHTS
from innerview.pocket.world import World, load_world
from training.batches import Batches
from training.greedy import load
from training.low_rank import pairs_of, with_low_rank
from training.make_pocket import OUT as BASE
from training.make_pocket import interrupted, sha256
from training.network import CONTEXT
from training.schedule import Plan, Progress, train

OUT = Path("src/innerview/bundled/pocket-chat")
PLAN = Plan(tokens=4_500_000, matrix_rate=1.5e-3, learning_rate=4e-3, weight_decay=0.0, warmup=0.02)
RANK = 32
# Base documents that are read for the tokens that it writes.
READ = 8000
# Requests decide by verb and object together, which takes the longest; they are drilled until this share of the tokens.
DRILLED, DRILL_SHARE = {"refusal": 0.25}, 0.8


def save_difference(
    network: LlamaForCausalLM, base: Path, out: Path, plan: Plan, progress: Progress, earlier: dict | None = None
) -> None:
    """Writes the pairs in float16, and the card that says which base they belong to."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, pair in pairs_of(network):
        tensors |= {
            f"{name}.A": pair.A.detach().cpu().half().contiguous(),
            f"{name}.B": pair.B.detach().cpu().half().contiguous(),
        }
    save_file(tensors, out / WEIGHTS)
    (out / WEIGHTS).chmod(0o644)
    card = {
        "base": relative(base, out),
        "base_sha256": sha256(base / "model.safetensors"),
        "rank": RANK,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "plan": asdict(plan),
        "tokens": progress.tokens,
        "steps": progress.steps,
        "minutes": round(progress.minutes, 1),
        "loss_nat": round(progress.loss, 4),
        "earlier": earlier,
    }
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n")


def relative(base: Path, out: Path) -> str:
    """The way from the adapter's folder to its base, where they stand side by side; else the base's full path."""
    is_beside = base.resolve().parent == out.resolve().parent
    return f"../{base.name}" if is_beside else str(base.resolve())


def go_onward(network: LlamaForCausalLM, onward: Path) -> None:
    """Starts the pairs where a difference that was made before left them."""
    tensors = load_file(onward / WEIGHTS)
    with torch.no_grad():
        for name, pair in pairs_of(network):
            if f"{name}.A" in tensors:
                pair.A.copy_(tensors[f"{name}.A"])
                pair.B.copy_(tensors[f"{name}.B"])


def unwritten(world: World, tokenizer: PreTrainedTokenizerFast, vocab: int) -> Tensor:
    """True for tokens that the base's documents never have, shape [vocab]: nothing has told their vectors apart."""
    found = torch.ones(vocab, dtype=torch.bool)
    for document in islice(world.documents("written"), READ):
        found[tokenizer(document.text, add_special_tokens=False).input_ids] = False
    return found


def optimizers_of(network: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, gently for the blocks' pairs, so that what the base knows stays."""
    inside = [p for p in network.model.layers.parameters() if p.requires_grad]
    embedded = network.model.embed_tokens
    groups = [
        {"params": inside, "lr": plan.matrix_rate},
        {"params": [embedded.A, embedded.B], "lr": plan.learning_rate},
    ]
    return [torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)]


def make_chat(base: Path, lexicon: Path, out: Path, plan: Plan, onward: Path | None = None) -> None:
    """Trains the difference on the world's chat and writes it to the folder."""
    torch.manual_seed(plan.seed)
    loaded, world = load(base), load_world(lexicon)
    network = with_low_rank(loaded.network, RANK).to(plan.device)
    if onward:
        go_onward(network, onward)
    # AdamW moves every row that has any gradient by a whole step: the rows of words that the base writes would be lost.
    is_new = unwritten(world, loaded.tokenizer, network.config.vocab_size)
    network.model.embed_tokens.learns.copy_(is_new[:, None])
    optimizers = optimizers_of(network, plan)
    stream = Batches(
        world, loaded.tokenizer, f"chat {plan.seed}{' onward' if onward else ''}", plan.batch_tokens, CONTEXT, "chat",
        drill_tokens=int(DRILL_SHARE * plan.tokens), shares=DRILLED,
    )  # fmt: skip
    progress = Progress.begun(plan)
    bar = tqdm(total=plan.tokens, unit="tok", unit_scale=True, desc="pocket-chat", mininterval=5)
    try:
        for _ in train(network, optimizers, stream, progress):
            bar.set_postfix(loss=f"{progress.loss:.3f}", minutes=f"{progress.minutes:.1f}", refresh=False)
            bar.update(progress.tokens - bar.n)
    except KeyboardInterrupt:
        tqdm.write(f"stopped at {progress.tokens} tokens; what there is will be saved")
    bar.close()
    earlier = json.loads((onward / CARD).read_text(encoding="utf-8")) if onward else None
    save_difference(network, base, out, plan, progress, earlier)
    tqdm.write(f"saved {out} after {progress.minutes:.1f} minutes; python -m training.check_pocket measures it")


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE, help="folder of the base")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write")
    parser.add_argument("--lexicon", type=Path, default=bundled_lexicon(), help="words of the base's world")
    parser.add_argument("--seed", type=int, default=PLAN.seed)
    parser.add_argument("--tokens", type=int, default=PLAN.tokens, help="tokens to train on")
    parser.add_argument("--minutes", type=float, help="stop by then")
    parser.add_argument("--onward", type=Path, help="go on from the difference of this folder instead of from nothing")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the learning rate")
    parser.add_argument("--threads", type=int, default=PLAN.threads, help="batches that are learned from at once")
    parser.add_argument("--device", default=PLAN.device, help="where to train: cpu, cuda")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plan = replace(
        PLAN,
        seed=arguments.seed,
        tokens=arguments.tokens,
        minutes=arguments.minutes,
        threads=arguments.threads,
        device=arguments.device,
        matrix_rate=arguments.rates * PLAN.matrix_rate,
        learning_rate=arguments.rates * PLAN.learning_rate,
    )
    make_chat(arguments.base, arguments.lexicon, arguments.out, plan, arguments.onward)


if __name__ == "__main__":
    main()
