"""Programs for Triton, an optional dependency that is imported when the first of them is launched."""

import importlib.util
import os
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import torch


class Program:
    """A function in Triton's language, compiled when it is first launched: `program[grid](*arguments)`.

    Its file says `from __future__ import annotations` and imports Triton's language for types alone: the name `tl` is put into the
    file's globals here. With TRITON_INTERPRET=1 in the environment it runs in Triton's interpreter, on a CPU too.
    """

    def __init__(self, source: Callable[..., None]) -> None:
        self.source = source

    @cached_property
    def _compiled(self) -> Any:
        import triton  # pyright: ignore[reportMissingImports]
        import triton.language  # pyright: ignore[reportMissingImports]

        self.source.__globals__["tl"] = triton.language
        return triton.jit(self.source)

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self._compiled[grid]


@cache
def has_triton() -> bool:
    """Whether Triton is installed; it is not imported."""
    return importlib.util.find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether programs run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: str) -> str | None:
    """Why programs do not run on a kind of device, in words; None where they do."""
    if not has_triton():
        return "Triton is not installed"
    if is_interpreted():
        return None
    if device != "cuda":
        return f"Triton's programs run on cuda, not on {device}"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    # bf16 products and the shapes of tiles below are of Ampere and later.
    major = torch.cuda.get_device_capability()[0]
    return None if major >= 8 or torch.version.hip else f"the GPU is of compute capability {major}, and 8 is needed"
