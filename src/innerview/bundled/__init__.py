"""Folders of the models that ship with innerview: names and paths, nothing loaded."""

from __future__ import annotations

from pathlib import Path

from innerview.errors import ModelError

__all__ = ["bundled_folder", "bundled_lexicon", "bundled_names"]

_HERE = Path(__file__).parent


def bundled_names() -> list[str]:
    """The names of the bundled models, sorted: the folders here that hold a `config.json`, or an `adapter.json`."""
    return sorted(entry.parent.name for card in ("config", "adapter") for entry in _HERE.glob(f"*/{card}.json"))


def bundled_folder(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        ModelError: No model of that name is bundled.
    """
    if name not in bundled_names():
        raise ModelError(f"no bundled model {name!r}; bundled_names() lists {bundled_names()}")
    return _HERE / name


def bundled_lexicon() -> Path:
    """The file of the pocket world's words."""
    return _HERE / "lexicon.json"
