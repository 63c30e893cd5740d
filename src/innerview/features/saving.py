"""Dashboards in a folder, as files that others read: tensors in safetensors, names and labels in JSON, and a table in parquet.

`features.safetensors` holds one row a feature in every tensor; `dashboard.json` says what they are of, and gives the texts of the tokens;
`features.parquet` is the same as a table, one row a feature, written where pyarrow is installed and never read back.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from innerview.errors import FeatureError
from innerview.features.kept import Kept
from innerview.features.profile import Profile
from innerview.features.statistics import FeatureStatistics
from innerview.features.together import Partners
from innerview.features.view import Label
from innerview.features.written import Written

VERSION = 1
TENSORS, SAID, TABLE = "features.safetensors", "dashboard.json", "features.parquet"
# Of each group of tensors: its type, and the fields that are tensors.
GROUPS: dict[str, tuple[type, tuple[str, ...]]] = {
    "top": (Kept, ("places", "values", "ids", "texts", "starts")),
    "sample": (Kept, ("places", "values", "ids", "texts", "starts")),
    "together": (Partners, ("indices", "values", "counts")),
    "neurons": (Partners, ("indices", "values", "counts")),
    "profile": (Profile, ("ids", "counts", "means", "reads")),
}
SPREAD = {
    "count": torch.int64,
    "total": torch.float64,
    "most": torch.float32,
    "bins": torch.int32,
    "floors": torch.int32,
}
WRITTEN = ("promoted_ids", "promoted", "suppressed_ids", "suppressed", "nearest_ids", "nearest")


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """What is kept of a dashboard.

    Attributes:
        statistics: What a corpus showed.
        written: Words and neighbours of every feature; None where they were not gathered.
        labels: What features are said to mean, by number.
        spelled: Texts of tokens, by id.
    """

    statistics: FeatureStatistics
    written: Written | None
    labels: Mapping[int, Label]
    spelled: Mapping[int, str] = dataclasses.field(default_factory=dict)


def write_contents(
    contents: Contents, folder: str | os.PathLike[str], spell: Callable[[int], str], table: pd.DataFrame
) -> Path:
    """Write a dashboard to a folder; returns it.

    Args:
        contents: What is kept; of `spelled` nothing is taken.
        folder: The folder; made where it is missing.
        spell: Gives the text of a token.
        table: One row a feature, for the table that others read.
    Raises:
        FeatureError: The disk did not take it.
    """
    target, tensors = Path(folder), _tensors(contents.statistics, contents.written)
    said = json.dumps(_said(contents, spell, tensors), ensure_ascii=False, allow_nan=False)
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target / f"{TENSORS}.tmp")
        (target / f"{SAID}.tmp").write_text(said, encoding="utf-8")
        for name in (TENSORS, SAID):
            os.replace(target / f"{name}.tmp", target / name)
        write_table(contents.statistics, table, spell, target / TABLE)
    except (OSError, SafetensorError) as error:
        raise FeatureError(f"{str(target)!r} took no dashboard: {error}; give another folder") from error
    return target


def _tensors(own: FeatureStatistics, written: Written | None) -> dict[str, Tensor]:
    made = {f"spread.{name}": getattr(own.spread, name) for name in SPREAD}
    for group, (_, names) in GROUPS.items():
        held = getattr(own, group)
        made |= {} if held is None else {f"{group}.{name}": getattr(held, name) for name in names}
    made |= {} if written is None else {f"written.{name}": getattr(written, name) for name in WRITTEN}
    return {name: value.contiguous() for name, value in made.items()}


def _said(contents: Contents, spell: Callable[[int], str], tensors: dict[str, Tensor]) -> dict[str, Any]:
    own = contents.statistics
    listed = [tensors[name].flatten() for name in tensors if name.endswith(("top.ids", "sample.ids", "profile.ids", "_ids")) and "nearest" not in name]  # fmt: skip
    ids = torch.cat(listed).unique().tolist() if listed else []
    numbers = {name: dataclasses.asdict(held) for name in ("together", "neurons", "profile") if (held := _counted(getattr(own, name)))}  # fmt: skip
    return {
        "innerview_dashboard": VERSION,
        "model": own.model, "dictionary": own.dictionary, "site": own.site, "bos": own.bos, "is_whole": own.is_whole,
        "n_features": own.n_features, "n_tokens": own.n_tokens, "n_texts": own.n_texts, "n_twice": own.n_twice, "texts_told": list(own.texts_told),
        "floor": own.spread.floor, "before": own.top.before, "counted": numbers,
        "tokens": {str(i): whole_text(spell(i)) for i in ids if i >= 0},
        "labels": [_plain_label(label) for label in contents.labels.values()],
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Counted:
    n_tokens: int
    missed: int


def _counted(held: Any) -> _Counted | None:
    return None if held is None else _Counted(getattr(held, "n_tokens", 0), held.missed)


def whole_text(text: str) -> str:
    """Text that a file takes: half a character is shown as what it is."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain_label(label: Label) -> dict[str, Any]:
    score = None if label.score is None or not math.isfinite(label.score) else float(label.score)
    text, source = whole_text(label.text), whole_text(label.source)
    return {"feature": label.feature, "text": text, "score": score, "source": source, "detail": _plain(label.detail)}


def _plain(detail: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON takes of a label's detail."""
    kinds = (str, int, bool, type(None))
    held = {str(k): whole_text(v) if isinstance(v, str) else v for k, v in detail.items()}
    return {k: v for k, v in held.items() if isinstance(v, kinds) or (isinstance(v, float) and math.isfinite(v))}


def write_table(statistics: FeatureStatistics, table: pd.DataFrame, spell: Callable[[int], str], path: Path) -> bool:
    """One row a feature as parquet, where pyarrow is installed; whether it was written."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    columns: dict[str, Any] = {"feature": table.index.to_numpy()} | {
        str(name): table[name].to_numpy() for name in table
    }
    columns |= {name: [whole_text(one) for one in told] for name, told in columns.items() if told.dtype == object}
    features = range(len(table))
    columns["quantiles"] = [list(statistics.quantiles(i).values()) for i in features]
    columns["examples"] = [_examples(statistics, i, spell) for i in features]
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return True


def _examples(statistics: FeatureStatistics, feature: int, spell: Callable[[int], str]) -> list[dict[str, Any]]:
    return [
        {
            "low": stretch.low, "high": stretch.high, "text": one.text, "start": one.start, "ids": list(one.ids),
            "tokens": [whole_text(word) for word in one.words], "activations": one.values.tolist(),
        }
        for stretch in statistics.stretches(feature, spell) for one in stretch.examples
    ]  # fmt: skip
