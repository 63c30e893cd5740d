"""A pass kept in a folder now and then, so that it goes on behind a stop or a kill."""

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

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
    own = dictionary.weights
    digest = hashlib.sha256(repr((model.name, repr(dictionary), dictionary.manifest.bos, asked)).encode())
    # A few thousand numbers of each matrix tell two dictionaries apart.
    for tensor in (own.encoder, own.decoder, own.encoder_bias):
        flat = tensor.detach().flatten()
        digest.update(flat[:: max(1, len(flat) // 4096)].float().cpu().numpy().tobytes())
    digest.update(corpus.sha256.encode())
    return digest.hexdigest()


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
            FeatureError: The folder keeps another pass, or is damaged.
        """
        path = self.folder / NAME
        if not path.is_file():
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
            made.restore(load_file(path), json.loads(told["numbers"]))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FeatureError(f"{path} is damaged ({error}); remove it, and the pass begins anew") from error

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
        told = {"pass": self.key, "numbers": json.dumps(made.numbers())}
        try:
            with Uninterrupted():
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file(made.tensors(), self.folder / f"{NAME}.tmp", told)
                os.replace(self.folder / f"{NAME}.tmp", self.folder / NAME)
        except (OSError, SafetensorError) as error:
            raise FeatureError(f"{self.folder} took no pass: {error}; make room, or give another folder") from error
        self._last, self._took = time.monotonic(), time.monotonic() - started
