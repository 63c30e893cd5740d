"""Files of a folder: regular ones, inside it, and not larger than what they are for."""

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from innerview.dictionaries.loaders.fields import Fields
from innerview.errors import DictionaryError

CONFIG_BYTES = 1 << 22
# Pure Python reads YAML, some 100 kB a second; the published ones have a few hundred bytes.
YAML_BYTES = 1 << 16
DEPTH = 40
ENTRIES = 10_000


@dataclass(frozen=True)
class Folder:
    """A folder, read with care: no link, no `..` and no special file leads out of it.

    Attributes:
        root: Its path.
        said: What it is called in messages, and what hints are read from: a path, or a hub's id and a path in it.
        boundary: What files must really lie in: the folder itself, or the cache of a hub's repository, whose files are links.
    """

    root: Path
    said: str
    boundary: Path = field(repr=False)

    def names(self) -> set[str]:
        """Files and folders in it.

        Raises:
            DictionaryError: It cannot be listed.
        """
        try:
            with os.scandir(self.root) as entries:
                found = {entry.name for _, entry in zip(range(ENTRIES), entries, strict=False)}
        except OSError as error:
            raise DictionaryError(f"the folder {self.said!r} cannot be listed: {error.strerror}") from error
        return found

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""
        return os.path.lexists(self.root / name)

    def path(self, name: str) -> Path:
        """The real path of a file in it.

        Raises:
            DictionaryError: It is missing, lies elsewhere, or is no regular file.
        """
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name or "\\" in name or name.startswith("/") or ".." in parts:
            raise DictionaryError(f"{name!r} is no name of a file inside {self.said!r}")
        try:
            real = (self.root / name).resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise DictionaryError(f"{self.said!r} has no file {name!r}") from error
        if not real.is_relative_to(self.boundary):
            raise DictionaryError(f"{name!r} in {self.said!r} leads out of it, to {str(real)!r}; copy the file there")
        if not stat.S_ISREG(mode):
            raise DictionaryError(f"{name!r} in {self.said!r} is no regular file")
        return real

    def folder(self, name: str) -> "Folder":
        """A folder inside."""
        return Folder(self.root / name, f"{self.said}/{name}", self.boundary)

    def json(self, name: str) -> Fields:
        """A config.

        Raises:
            DictionaryError: It is missing, too large, or no JSON object.
        """
        raw = self._text(name, CONFIG_BYTES)
        try:
            value = json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DictionaryError(f"{name} in {self.said!r} is no JSON: {error}") from error
        return Fields.of(name, value)

    def yaml(self, name: str) -> Fields:
        """A config in YAML, plain values only: no tags, anchors or aliases.

        Raises:
            DictionaryError: It is missing, too large, no YAML, or more than plain values.
        """
        raw = self._text(name, YAML_BYTES)
        try:
            for depth, token in _scanned(raw):
                if isinstance(token, (yaml.TagToken, yaml.AnchorToken, yaml.AliasToken)) or depth > DEPTH:
                    raise DictionaryError(
                        f"{name} in {self.said!r} has tags, anchors or nesting (line {token.start_mark.line + 1}), and plain values are read"
                    )
            value = yaml.safe_load(raw)
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            raise DictionaryError(f"{name} in {self.said!r} is no YAML: {str(error).splitlines()[0]}") from error
        return Fields.of(name, value)

    def _text(self, name: str, limit: int) -> str:
        path = self.path(name)
        size = path.stat().st_size
        if size > limit:
            raise DictionaryError(f"{name} in {self.said!r} has {size} bytes, and a config has at most {limit}")
        try:
            return path.read_bytes()[: limit + 1].decode("utf-8")
        except (OSError, ValueError) as error:
            raise DictionaryError(f"{name} in {self.said!r} is no text: {error}") from error


def _no_constant(said: str) -> Any:
    raise ValueError(f"{said} is no number that JSON has")


def _scanned(raw: str) -> Any:
    depth = 0
    for token in yaml.scan(raw, Loader=yaml.SafeLoader):
        if isinstance(
            token,
            (
                yaml.BlockMappingStartToken,
                yaml.BlockSequenceStartToken,
                yaml.FlowMappingStartToken,
                yaml.FlowSequenceStartToken,
            ),
        ):
            depth += 1
        elif isinstance(token, (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)):
            depth -= 1
        yield depth, token
