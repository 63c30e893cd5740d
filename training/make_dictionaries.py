"""Makes the dictionaries of the bundled model: python -m training.make_dictionaries

A JumpReLU dictionary, eight times as wide, at each layer's residual stream; in the middle also a TopK, a second seed, and a transcoder of the
MLP. All are trained in one pass over the world's documents. The same seed and tokens give the same weights on the same machine. Ctrl-C keeps
the state in build/, and the same command takes it up again.

    python -m training.make_dictionaries --model build/pocket-random --layers 1 4 --plain --out build/random-dictionaries    of random weights
    python -m training.make_dictionaries --layers 0 2 --tokens 200000 --out build/some                 a few, quickly

training.check_dictionaries says how good they are.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch

import innerview as iv
from innerview.bundled import bundled_folder
from innerview.opened import opened
from innerview.pocket.world import load_world

KEPT = Path("build/training/dictionaries")
TARGET_L0, TOP_K = 32, 32
# Seconds between two lines of how far the training is, where no bar can be shown.
TOLD_EVERY_S = 30.0
# Documents on which features are measured, and those of one forward; each begins with a BOS token, which is left out.
MEASURED_ON, TEXTS_AT_ONCE = 6000, 250


@dataclass(frozen=True)
class Documents:
    """Documents of the world, the same ones each time that they are read.

    Attributes:
        seed: Which ones; training and checking take different ones.
        count: How many; None without end.
        lexicon: The world's words; the bundled ones when None.
    """

    seed: str
    count: int | None = None
    lexicon: Path | None = None

    def __iter__(self) -> Iterator[str]:
        documents = load_world(self.lexicon).documents(self.seed)
        return (document.text for document in islice(documents, self.count))


@dataclass(frozen=True)
class Making:
    """What is made, of which network, and where.

    Attributes:
        model: Name or folder of the network.
        out: Folder of the dictionaries, one folder each.
        tokens: Tokens that they train on.
        seed: Of first weights, of the documents and their order.
        layers: Layers whose residual stream gets a dictionary; all when None.
        learning_rate: Of every dictionary.
        sparsity: Weight of the sparsity of JumpReLU dictionaries.
        threads: Threads of torch.
        batch_tokens: Tokens of one step.
        wider: Features for each number of the site.
        lexicon: The world's words; the bundled ones when None.
        is_plain: Leave out those in the middle.
    """

    model: str = "pocket"
    out: Path = field(default_factory=lambda: bundled_folder("pocket") / "dictionaries")
    tokens: int = 3_000_000
    seed: int = 0
    layers: tuple[int, ...] | None = None
    learning_rate: float = 3e-3
    sparsity: float = 0.3
    threads: int = 2
    batch_tokens: int = 4096
    wider: int = 8
    lexicon: Path | None = None
    is_plain: bool = False

    @property
    def kept(self) -> Path:
        """Where a training that was broken off is kept."""
        return KEPT / hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def specs(making: Making, n_layers: int, d_model: int) -> dict[str, iv.DictionarySpec]:
    """Every dictionary by the name of its folder."""
    layers = making.layers if making.layers is not None else tuple(range(n_layers))
    middle = layers[len(layers) // 2]
    # Without a first moment, as JumpReLU is published: with one, a quarter of the features died within a hundred steps.
    steps = iv.Optimization(making.learning_rate, betas=(0.0, 0.999), warmup=0.05, decay=0.2)
    jump = iv.JumpReLU(l0=making.sparsity, l0_target=TARGET_L0, bandwidth=0.1, first_threshold=0.08)
    site, n = f"blocks.{middle}.resid", making.wider * d_model
    made = {
        f"blocks.{layer}.resid": iv.DictionarySpec(
            f"blocks.{layer}.resid", jump, n, seed=making.seed, optimization=steps
        )
        for layer in layers
    }
    if making.is_plain:
        return made
    made[f"{site}.top_k"] = iv.DictionarySpec(
        site, iv.TopK(TOP_K), n, seed=making.seed, optimization=replace(steps, betas=(0.9, 0.999))
    )
    made[f"{site}.second_seed"] = replace(made[site], seed=making.seed + 1)
    made[f"blocks.{middle}.mlp"] = iv.DictionarySpec(
        f"blocks.{middle}.mlp.in", jump, n, f"blocks.{middle}.mlp.out", seed=making.seed, optimization=steps
    )
    return made


@contextmanager
def telling(named: tuple[str, ...]) -> Iterator[None]:
    """Prints a line now and then, inside the block, of how far a training is."""
    ends = []

    def begin(kind: str, thing: object) -> None:
        if kind == "training":
            ends.append(cast(Any, thing).listen(Telling(named)))

    ends.append(opened.listen(begin))
    try:
        yield
    finally:
        for end in ends:
            end()


@dataclass
class Telling:
    """What prints how far a training is.

    Attributes:
        named: Names of its dictionaries.
        started: When it began, as `time.monotonic` says.
        told: When it last printed.
    """

    named: tuple[str, ...]
    started: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def __call__(self, training: Any) -> None:
        now = time.monotonic()
        if now - self.told < TOLD_EVERY_S and training.state == "running":
            return
        self.told = now
        print(
            f"{training.tokens:,} of {training.n_tokens:,} tokens, {training.tokens / (now - self.started):,.0f} a second"
        )
        for name, points in zip(self.named, training.histories, strict=True):
            if points:
                last = points[-1]
                print(f"  {name}: FVU {last['fvu']:.3f} at L0 {last['l0']:.1f}, dead {last['dead']:.1%}")
        sys.stdout.flush()


def make_dictionaries(making: Making, *, progress: bool = True) -> list[Path]:
    """Folders of the dictionaries; none where the training was stopped, which the same call takes up again.

    Args:
        making: What is made.
        progress: Whether to show how far it is.
    """
    torch.set_num_threads(making.threads)
    model = iv.open_model(making.model)
    wanted = specs(making, model.n_layers or 0, model.d_model or 0)
    # Ten sites are held of every token that is shuffled: 64 batches of them would take 4 GB.
    settings = iv.TrainingSettings(
        n_tokens=making.tokens,
        batch_tokens=making.batch_tokens,
        seed=making.seed,
        buffer_tokens=16 * making.batch_tokens,
    )
    texts = Documents(f"dictionaries {making.seed}", lexicon=making.lexicon)
    with telling(tuple(wanted)) if progress and not sys.stderr.isatty() else nullcontext():
        found = iv.train_dictionaries(
            model, list(wanted.values()), texts=texts, settings=settings, folder=making.kept, progress=progress
        )
    if not found.is_complete:
        print(f"stopped behind {found.tokens:,} tokens; the same command goes on")
        return []
    named = zip(wanted, found.dictionaries, strict=True)
    folders = [iv.save_dictionary(one.at(source=name), making.out / name, dtype=torch.float16) for name, one in named]
    measure(model, folders, making)
    shutil.rmtree(making.kept, ignore_errors=True)
    return folders


def measure(model: iv.Model, folders: Sequence[Path], making: Making) -> None:
    """Writes each feature's median and density, on documents of their own, into the manifests of saved dictionaries.

    The last tokens of a training are too few for features that are active once in thousands.
    """
    texts = sorted(Documents(f"measuring {making.seed}", MEASURED_ON, making.lexicon), key=len)
    read = [iv.load_dictionary(folder) for folder in folders]
    sites = list(dict.fromkeys(str(one.site) for one in read))
    parts: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        acts = iv.capture(model, texts[start : start + TEXTS_AT_ONCE], sites, progress=False)
        mask = cast(torch.Tensor, acts.mask).clone()
        mask[:, 0] = False
        for site in sites:
            parts[site].append(acts[site][mask])
    for folder, one in zip(folders, read, strict=True):
        found = one.measured(torch.cat(parts[str(one.site)]))
        iv.save_dictionary(found, folder, dtype=torch.float16)


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Making()
    parser.add_argument("--model", default=default.model)
    parser.add_argument("--out", type=Path, default=default.out)
    parser.add_argument("--tokens", type=int, default=default.tokens)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--sparsity", type=float, default=default.sparsity)
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--batch-tokens", type=int, default=default.batch_tokens)
    parser.add_argument("--wider", type=int, default=default.wider)
    parser.add_argument("--lexicon", type=Path)
    parser.add_argument("--plain", action="store_true", dest="is_plain", help="leave out those in the middle")
    said = parser.parse_args(given)
    layers = None if said.layers is None else tuple(said.layers)
    making = Making(**{**vars(said), "layers": layers})
    for folder in make_dictionaries(making):
        print(folder)


if __name__ == "__main__":
    main()
