"""Folders of the models that ship with innerview: names and paths, nothing loaded."""

from __future__ import annotations

from pathlib import Path

from innerview.errors import DictionaryError, ModelError

__all__ = ["bundled_dictionaries", "bundled_dictionary", "bundled_folder", "bundled_lexicon", "bundled_names"]

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


def bundled_dictionaries(model: str) -> list[str]:
    """The names of a bundled model's dictionaries, sorted: the folders in its `dictionaries` that hold a `manifest.json`."""
    return sorted(entry.parent.name for entry in (bundled_folder(model) / "dictionaries").glob("*/manifest.json"))


def bundled_dictionary(model: str, name: str) -> Path:
    """The folder of a bundled dictionary.

    Args:
        model: Name of the bundled model.
        name: The site that it reads, such as `blocks.3.resid`; of several at a site, its name.
    Raises:
        DictionaryError: There is none of that name.
    """
    known = bundled_dictionaries(model)
    if name not in known:
        told = ", ".join(known) or "none yet"
        raise DictionaryError(f"no bundled dictionary of {model!r} at {name!r}; say site=, one of: {told}")
    return bundled_folder(model) / "dictionaries" / name
