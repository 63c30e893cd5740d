"""Fine-tunes stored as low-rank differences, merged into their base when opened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from innerview.errors import ModelError

CARD = "adapter.json"
WEIGHTS = "adapter.safetensors"


@dataclass(frozen=True)
class Adapter:
    """A folder with `adapter.json` and pairs A [rank, in], B [out, rank] of matrices, one pair a module.

    Attributes:
        base: Folder of the network that the difference belongs to.
        base_sha256: Hash of that network's weights.
    """

    folder: Path
    base: Path
    base_sha256: str


def adapter_of(folder: str | Path) -> Adapter | None:
    """The adapter of a folder, None where the folder holds none.

    Raises:
        ModelError: The card cannot be read.
    """
    card = Path(folder) / CARD
    if not card.is_file():
        return None
    try:
        read = json.loads(card.read_text(encoding="utf-8"))
        return Adapter(Path(folder), (Path(folder) / read["base"]).resolve(), read["base_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{card} is no card of an adapter ({error!r}); it needs base and base_sha256") from error


def check_base(adapter: Adapter) -> None:
    """Nothing, where the base is the one that the difference was made for.

    Raises:
        ModelError: The base is missing, or has other weights.
    """
    weights = adapter.base / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"the base of {adapter.folder} is missing: there is no {weights}; restore it beside the adapter"
        )
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != adapter.base_sha256:
        raise ModelError(
            f"{adapter.folder} belongs to weights with sha256 {adapter.base_sha256[:12]}…, "
            f"but {weights} has {found[:12]}…; make the adapter again for this base"
        )


@torch.no_grad()
def merge(module: nn.Module, adapter: Adapter) -> None:
    """Adds B @ A to the weight of each module that the adapter names, in place, computed in float32.

    Raises:
        ModelError: The file is damaged, or a pair fits no weight of the network.
    """
    try:
        pairs = load_file(adapter.folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{adapter.folder / WEIGHTS} cannot be read: {error}; make the adapter again") from error
    modules = dict(module.named_modules())
    for name in sorted({key.rpartition(".")[0] for key in pairs}):
        a, b = pairs.get(f"{name}.A"), pairs.get(f"{name}.B")
        weight = getattr(modules.get(name), "weight", None)
        if a is None or b is None or not isinstance(weight, torch.Tensor) or (b.shape[0], a.shape[1]) != weight.shape:
            raise ModelError(f"the pair {name!r} of {adapter.folder / WEIGHTS} fits no weight of {adapter.base}")
        weight.add_((b.float() @ a.float()).to(weight))
