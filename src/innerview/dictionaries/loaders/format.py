"""What a published format is to the loaders: how it is recognised, and what reads it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from innerview.dictionaries.loaders.files import Folder
from innerview.dictionaries.loaders.names import layer_of
from innerview.dictionaries.manifest import Normalisation
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class Source:
    """Where a dictionary is read from, and what the user said that files do not.

    Attributes:
        folder: The folder of its files.
        said: What it is called; formats without a config read the site and the model from it.
        file: One file of the folder, where that was named.
        commit: Version of a hub's repository.
        site: The site that the user named; empty for none.
        normalisation: What the user said of the input; None for nothing.
    """

    folder: Folder
    said: str
    file: str = ""
    commit: str = "unknown"
    site: str = ""
    normalisation: Normalisation | None = None

    def names(self) -> set[str]:
        """Files that the user may mean: the named one beside the configs, or all of the folder."""
        found = self.folder.names()
        if not self.file:
            return found
        weights = re.compile(r"\.(safetensors|pt|pth|npz|gguf|bin)$")
        return {name for name in found if not weights.search(name)} | {self.file}

    def matching(self, pattern: str) -> list[str]:
        """Names of files that fit a pattern as a whole, in the order of their numbers."""
        found = [name for name in self.names() if re.fullmatch(pattern, name)]
        return sorted(found, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))

    def one_of(self, pattern: str) -> str:
        """The file of a pattern that is meant: the only one, or that of the site's layer.

        Raises:
            DictionaryError: There are several, and nothing tells which.
        """
        found = self.matching(pattern)
        if len(found) == 1:
            return found[0]
        layer = layer_of(self.site)
        meant = [name for name in found if layer is not None and str(layer) in re.findall(r"\d+", name)[:1]]
        if len(meant) == 1:
            return meant[0]
        told = ", ".join(found[:6]) + ("…" if len(found) > 6 else "")
        raise DictionaryError(f"{self.said!r} holds {len(found)} dictionaries ({told}); name one file, or say site=")

    @property
    def hint(self) -> str:
        """What formats without a config read the site, the model and k from."""
        return f"{self.said}/{self.file}" if self.file else self.said

    def origin(self, format_name: str) -> str:
        """What the manifest says of where it came from."""
        return f"{self.hint} ({format_name})"


@dataclass(frozen=True)
class Format:
    """A published format.

    Attributes:
        name: What it is called.
        files: The files that tell it, for people.
        is_here: Whether a source's names are its files.
        read: What reads it.
    """

    name: str
    files: str
    is_here: Callable[[Source], bool]
    read: Callable[[Source], Any]
