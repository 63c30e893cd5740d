"""The state of a training on disk, written whole or not at all."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.errors import DictionaryError

FILE = "training.state"


def fingerprint(specs: Sequence[DictionarySpec], settings: TrainingSettings) -> str:
    """What a state must have been written for, so that going on from it changes nothing."""
    told = [
        settings.n_tokens, settings.batch_tokens, settings.seed, settings.buffer, settings.normalisation,
        settings.keeps_bos, settings.context, settings.dead_after, settings.report_every,
    ]  # fmt: skip
    return hashlib.sha256(repr((list(specs), told)).encode()).hexdigest()


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state behind the one that is there, then put it in its place.

    Raises:
        DictionaryError: The folder cannot be written.
    """
    whole = folder / FILE
    part = folder / f"{FILE}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(whole)
    except OSError as error:
        raise DictionaryError(f"cannot write {str(whole)!r}: {error.strerror}; give another folder") from error


def load_state(folder: Path, wanted: str) -> dict[str, Any] | None:
    """The state in a folder; None where there is none.

    Raises:
        DictionaryError: It is damaged, or of another training.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DictionaryError(
            f"{str(path)!r} is no state of a training: {error}; delete it, or give another folder"
        ) from error
    if not isinstance(state, dict) or state.get("fingerprint") != wanted:
        raise DictionaryError(
            f"{str(path)!r} is the state of another training: dictionaries or settings differ; give another folder"
        )
    return state
