"""A pass kept in a folder now and then, so that it goes on behind a stop or a kill."""

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import Corpus
from innerview.features.passing import Pass
from innerview.interrupts import Uninterrupted
from innerview.models.model import Model

NAME = "pass.safetensors"
# Writing takes this part of the time at the most.
SHARE = 0.05
LEAST_S = 20.0


def fingerprint(model: Model, dictionary: Dictionary, corpus: Corpus, asked: Any) -> str:
    """What makes a pass the same: the network, the dictionary, the rows, and what is counted."""
    own = dictionary.manifest
    read = (own.bos, own.normalisation, own.subtracts_decoder_bias)
    digest = hashlib.sha256(repr((model.name, repr(dictionary), read, asked)).encode())
    # Thresholds too: they change codes as much as the encoder does.
    for name, tensor in dictionary.weights.tensors().items():
        digest.update(name.encode() + _drawn(tensor, 4096) + _summed(tensor))
    # Two networks of one kind have one name.
    for name, tensor in model.module.named_parameters():
        digest.update(name.encode() + (b"" if tensor.is_meta else _drawn(tensor, 64)))
    digest.update(corpus.sha256.encode())
    return digest.hexdigest()


def _drawn(tensor: Tensor, most: int) -> bytes:
    """About so many numbers of a tensor, evenly drawn."""
    flat = tensor.detach().flatten()
    return flat[:: max(1, len(flat) // most)].float().cpu().numpy().tobytes()


def _summed(tensor: Tensor) -> bytes:
    """The sum of all its numbers' bits, which no order of adding rounds."""
    flat = tensor.detach().flatten()
    bits = flat.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    return int(bits.sum(dtype=torch.int64)).to_bytes(8, "little", signed=True)


def _bits(tensors: dict[str, Tensor]) -> str:
    """What one flipped bit of any of them changes."""
    return hashlib.sha256(b"".join(name.encode() + _summed(tensors[name]) for name in sorted(tensors))).hexdigest()


@dataclass(eq=False)
class Saver:
    """Keeps a pass in a folder.

    Attributes:
        folder: The folder; made at the first write.
        key: What the pass is of, so that no other one is gone on with.
    """

    folder: Path
    key: str
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def restore(self, made: Pass) -> None:
        """Fill a pass with what is kept, if anything is.

        Raises:
            FeatureError: The folder keeps another pass, is damaged, or cannot be made.
        """
        path = self.folder / NAME
        if not path.is_file():
            # Now, not behind hours of reading.
            self._make_folder()
            return
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > min(1 << 20, path.stat().st_size):
                    raise FeatureError(f"{path} is damaged; remove it, and the pass begins anew")
                told = json.loads(file.read(size))["__metadata__"]
            if told.get("pass") != self.key:
                raise FeatureError(
                    f"{path} is of another pass: other texts, another network or dictionary, or other options; give another folder"
                )
            tensors = load_file(path)
            if _bits(tensors) != told["bits"]:
                raise FeatureError(
                    f"{path} is damaged: its numbers are not those that were written; remove it, and the pass begins anew"
                )
            made.restore(tensors, json.loads(told["numbers"]))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FeatureError(f"{path} is damaged ({error}); remove it, and the pass begins anew") from error

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeatureError(
                f"{str(self.folder)!r} cannot be made a folder: {error.strerror}; give another one"
            ) from error

    def save_sometimes(self, made: Pass) -> None:
        """Write, where the last time is long enough ago."""
        if time.monotonic() - self._last > max(LEAST_S, self._took / SHARE):
            self.save(made)

    def save(self, made: Pass) -> None:
        """Write what is held: whole, or not at all.

        Raises:
            FeatureError: The disk did not take it.
        """
        started = time.monotonic()
        tensors = made.tensors()
        told = {"pass": self.key, "numbers": json.dumps(made.numbers()), "bits": _bits(tensors)}
        try:
            with Uninterrupted():
                self._make_folder()
                save_file(tensors, self.folder / f"{NAME}.tmp", told)
                os.replace(self.folder / f"{NAME}.tmp", self.folder / NAME)
        except (OSError, SafetensorError) as error:
            raise FeatureError(f"{self.folder} took no pass: {error}; make room, or give another folder") from error
        self._last, self._took = time.monotonic(), time.monotonic() - started
