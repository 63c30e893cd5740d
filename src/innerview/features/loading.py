"""Dashboards read from a folder that somebody else may have written: every name, size and number is checked."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from innerview.dictionaries.codes import checked_feature
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.files import Folder
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.errors import DictionaryError, FeatureError
from innerview.features.kept import Kept
from innerview.features.profile import Profile
from innerview.features.saving import GROUPS, SAID, SPREAD, TENSORS, VERSION, WRITTEN, Contents
from innerview.features.spread import BINS, UNSET, Spread
from innerview.features.statistics import FeatureStatistics
from innerview.features.view import Label
from innerview.features.written import Written

MOST_SPELLED = 1 << 20
MOST_NOTES = 64
MOST_BYTES = 1 << 28


def read_contents(folder: str | os.PathLike[str]) -> Contents:
    """What a folder keeps of a dashboard.

    Raises:
        FeatureError: The folder is damaged, or holds something else.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FeatureError(f"no folder {str(path)!r}; give one that dashboard.save(folder) wrote")
    try:
        return _load(Folder(path.resolve(), str(path), path.resolve()))
    except DictionaryError as error:
        raise FeatureError(f"{error}; save the dashboard anew") from error


def _load(folder: Folder) -> Contents:
    said = _json(folder)
    if said.whole("innerview_dashboard", 0) != VERSION:
        raise FeatureError(f"{SAID} is of layout {said.values.get('innerview_dashboard')!r:.40}, and {VERSION} is read")
    n = said.whole("n_features")
    tensors = of_safetensors(folder.path(TENSORS), TENSORS)
    read = _Reading(tensors, n)
    counted, before = said.inner("counted"), said.whole("before", least=0)
    floor = said.values.get("floor")
    if floor is not None and (isinstance(floor, bool) or not isinstance(floor, int) or abs(floor) > 1000):
        raise FeatureError(f"{SAID}: floor is a power of two or nothing, not {floor!r:.40}")
    spread = Spread(
        *(read.take(f"spread.{name}", 2 if name == "bins" else 1, dtype, BINS) for name, dtype in SPREAD.items()),
        floor=floor, n_tokens=said.whole("n_tokens", least=0),
    )  # fmt: skip
    if bool((spread.floors.abs() > -UNSET).any()):
        raise FeatureError(f"{TENSORS}: 'spread.floors' holds no powers of two that a number has")
    groups: dict[str, Any] = {
        name: read.kept(name, before) if kind is Kept else read.group(name, kind, names, counted)
        for name, (kind, names) in GROUPS.items()
    }
    held = (groups["sample"].places >= 0).sum(dim=1)
    if not torch.equal(held, spread.count.clamp(max=groups["sample"].k)):
        raise FeatureError(f"{TENSORS}: 'sample.places' is of other numbers of activations than 'spread.count' says")
    statistics = FeatureStatistics(
        said.text("model"), said.text("dictionary"), said.text("site"), spread, bos=said.flag("bos"),
        n_texts=said.whole("n_texts", least=0), n_twice=said.whole("n_twice", least=0), is_whole=said.flag("is_whole"), texts_told=_told(said), **groups,
    )  # fmt: skip
    written = None
    if f"written.{WRITTEN[0]}" in tensors:
        written = Written(*(read.take(f"written.{name}", 2, torch.int32 if name.endswith("_ids") else torch.float32) for name in WRITTEN))  # fmt: skip
        read.below("written.nearest_ids", written.nearest_ids, n)
    return Contents(statistics, written, _labels(said, n), _spelled(said))


def _json(folder: Folder) -> Fields:
    """What the folder says of itself; larger than a config, as it holds texts."""
    path = folder.path(SAID)
    if path.stat().st_size > MOST_BYTES:
        raise FeatureError(f"{SAID} has {path.stat().st_size} bytes, more than any dashboard's")
    try:
        return Fields.of(SAID, json.loads(path.read_text("utf-8"), parse_constant=_no_constant))
    except (ValueError, RecursionError, OSError) as error:
        raise FeatureError(f"{SAID} in {folder.said!r} is no JSON: {str(error)[:200]}") from error


def _told(said: Fields) -> tuple[str, ...]:
    """Notes on the texts; folders of earlier versions have none."""
    listed = said.values.get("texts_told", [])
    if not isinstance(listed, list) or len(listed) > MOST_NOTES or not all(isinstance(one, str) for one in listed):
        raise FeatureError(f"{SAID}: texts_told is a list of texts, not {listed!r:.40}")
    return tuple(listed)


def _no_constant(said: str) -> Any:
    raise ValueError(f"{said} is no number that JSON has")


def _spelled(said: Fields) -> dict[int, str]:
    table = said.inner("tokens").values
    if len(table) > MOST_SPELLED:
        raise FeatureError(f"{SAID} gives the texts of {len(table)} tokens, more than any network has")
    wrong = next(
        (key for key, text in table.items() if not key.isdecimal() or len(key) > 9 or not isinstance(text, str)), None
    )
    if wrong is not None:
        raise FeatureError(f"{SAID}: tokens gives texts by id, not {wrong!r:.40}")
    return {int(key): text for key, text in table.items()}


def _labels(said: Fields, n_features: int) -> dict[int, Label]:
    listed = said.values.get("labels")
    if not isinstance(listed, list):
        raise FeatureError(f"{SAID}: labels is a list, not {listed!r:.40}")
    made = {}
    for nth, one in enumerate(listed):
        fields = Fields.of(f"{SAID}: labels[{nth}]", one)
        score = fields.values.get("score")
        number = checked_feature(fields.whole("feature", least=0), n_features)
        told = None if score is None else fields.number("score")
        made[number] = Label(number, fields.text("text"), told, fields.text("source"), fields.inner("detail").values)
    return made


@dataclasses.dataclass(frozen=True, eq=False)
class _Reading:
    """Tensors of a dashboard, each with its shape and what its numbers may be."""

    tensors: Tensors
    n: int

    def take(self, name: str, ndim: int, dtype: torch.dtype, *rest: int) -> Tensor:
        """A tensor with a row a feature."""
        entry = self.tensors.entries.get(name)
        if entry is None:
            raise FeatureError(f"{TENSORS} has no {name!r}; save the dashboard anew")
        told = str(dtype).removeprefix("torch.")
        fits = (
            len(entry.shape) == ndim
            and entry.shape[0] == self.n
            and entry.shape[1:][: len(rest[: ndim - 1])] == rest[: ndim - 1]
        )
        if not fits or entry.dtype != told:
            raise FeatureError(
                f"{TENSORS}: {name!r} is {entry.dtype} {list(entry.shape)}, which is no tensor of {self.n} features"
            )
        found = entry.read()
        # A feature that was never active has no largest activation.
        if found.is_floating_point() and name != "spread.most" and not bool(torch.isfinite(found).all()):
            raise FeatureError(f"{TENSORS}: {name!r} holds NaN or infinity")
        if name == "spread.most" and bool(torch.isnan(found).any()):
            raise FeatureError(f"{TENSORS}: {name!r} holds NaN")
        if not found.is_floating_point() and not name.endswith(("starts", "floors")) and bool((found < -1).any()):
            raise FeatureError(f"{TENSORS}: {name!r} holds numbers below -1")
        return found

    def below(self, name: str, found: Tensor, limit: int) -> None:
        """Refuse numbers that nothing has."""
        if found.numel() and int(found.max()) >= limit:
            raise FeatureError(f"{TENSORS}: {name!r} names number {int(found.max())}, and there are {limit}")

    def kept(self, name: str, before: int) -> Kept:
        """Activations with the text around them."""
        places = self.take(f"{name}.places", 2, torch.int64)
        k = places.shape[1]
        values = self.take(f"{name}.values", 3, torch.float32, k)
        ids = self.take(f"{name}.ids", 3, torch.int32, k, values.shape[2])
        texts, starts = (self.take(f"{name}.{part}", 2, torch.int32, k) for part in ("texts", "starts"))
        is_held = places >= 0
        if not before < values.shape[2] or bool((ids[:, :, before][is_held] < 0).any()):
            raise FeatureError(f"{TENSORS}: {name!r} has activations without their own token")
        if bool((is_held[:, 1:] & ~is_held[:, :-1]).any()) or _has_gaps(ids):
            raise FeatureError(f"{TENSORS}: {name!r} has gaps")
        return Kept(places, values, ids, texts, starts, before)

    def group(self, name: str, kind: Callable[..., Any], names: tuple[str, ...], counted: Fields) -> Any:
        """Partners or tokens of each feature; None where they were not counted."""
        if f"{name}.{names[0]}" not in self.tensors:
            return None
        floats = ("values", "means")
        found = [self.take(f"{name}.{part}", 2, torch.float32 if part in floats else torch.int32) for part in names]
        if len({one.shape for one in found}) > 1:
            raise FeatureError(f"{TENSORS}: the tensors of {name!r} have several shapes")
        if name == "together":
            self.below(f"{name}.indices", found[0], self.n)
        told = counted.inner(name)
        missed = told.whole("missed", least=0)
        return kind(*found, missed) if kind is Profile else kind(*found, told.whole("n_tokens", least=0), missed)


def _has_gaps(ids: Tensor) -> bool:
    """Whether a stretch of text is interrupted by tokens that are none."""
    inside = ids >= 0
    changes = (inside[:, :, 1:] != inside[:, :, :-1]).sum(dim=2)
    both = inside[:, :, 0] & inside[:, :, -1]
    return bool((changes > 2).any()) or bool((both & (changes > 0)).any())
