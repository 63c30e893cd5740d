"""What was answered so far, in a file that a stopped job goes on from: one line of JSON an answer."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innerview.errors import FeatureError


@dataclass(eq=False)
class Records:
    """Answers by key. Without a file they are held in memory alone.

    Attributes:
        path: The file; None for none.
        of: What the job is: another job's file is refused.
        held: What is known, by key.
    """

    path: Path | None
    of: dict[str, Any]
    held: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None, of: dict[str, Any]) -> "Records":
        """The records of a job, those of its file read.

        Raises:
            FeatureError: The file is of another job, or damaged.
        """
        made = cls(None if path is None else Path(path), of)
        if made.path is not None and made.path.exists():
            made._read(made.path)
        elif made.path is not None and not made.path.parent.is_dir():
            # Now, not when the first answer was paid for.
            raise FeatureError(f"no folder {str(made.path.parent)!r} to keep answers in; make it first")
        return made

    def _read(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise FeatureError(f"{path} cannot be read: {error.strerror}") from error
        # A line that a kill tore has no end, and is not there.
        lines = raw[: raw.rfind(b"\n") + 1].splitlines()
        try:
            told = [json.loads(line) for line in lines]
            first = dict(told[0]["job"]) if told else self.of
            self.held = {str(one["key"]): one["answer"] for one in told[1:]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FeatureError(f"{path} is no file of answers ({error!r}); give another file, or remove it") from error
        if first != self.of:
            differs = sorted(name for name in {*first, *self.of} if first.get(name) != self.of.get(name))
            raise FeatureError(
                f"{path} is of another job, which differs in {', '.join(differs)}; give another file, or remove it"
            )
        if len(raw) > raw.rfind(b"\n") + 1:
            os.truncate(path, raw.rfind(b"\n") + 1)

    def add(self, key: str, answer: Any) -> None:
        """Keep an answer, on the disk where there is a file.

        Raises:
            FeatureError: The disk did not take it.
        """
        self.held[key] = answer
        if self.path is None:
            return
        try:
            is_new = not self.path.exists() or self.path.stat().st_size == 0
            with self.path.open("ab") as file:
                if is_new:
                    file.write(json.dumps({"job": self.of}).encode() + b"\n")
                file.write(json.dumps({"key": key, "answer": answer}).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FeatureError(
                f"{self.path} took no answer: {error.strerror}; make room, or give another file"
            ) from error
