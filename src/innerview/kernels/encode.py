"""Codes by the fastest way there is, all of them equal to `reference.py`: the contract, and the choice.

A path takes an `Encoder` and finite inputs, shape [tokens, d], in the format and on the device of the encoder's weight, and gives
`Sparse` codes ordered by token, then by feature. Products are summed, and numbers compared, in float32 (float64 for float64);
values are rounded to the weight's format at the end. Where sums are exact, paths agree to the last bit, ties included; elsewhere
they differ by the rounding of sums, and in features that lie that near to their threshold.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DictionaryError
from innerview.kernels import reference, work
from innerview.kernels.compiled import COMPILED
from innerview.kernels.finite import refuse_not_finite, refuse_weights
from innerview.kernels.fused import FUSED
from innerview.kernels.fused_screen import FUSED_SCREEN
from innerview.kernels.path import Path, Task
from innerview.kernels.rules import Encoder, Sparse
from innerview.kernels.screened import SCREENS

REFERENCE = Path("reference", reference.encode, lambda task: None, work.dense_seconds, "plain torch")
PATHS: tuple[Path, ...] = (REFERENCE, *SCREENS, COMPILED, FUSED, FUSED_SCREEN)
# Below this many products plain torch takes some milliseconds, and nothing is measured or compiled to save them.
SMALL = 1 << 26

_forced: ContextVar[str | None] = ContextVar("innerview_kernel", default=None)


@dataclass(frozen=True)
class Choice:
    """Which path encodes, and why.

    Attributes:
        path: Its name.
        why: Why it, in words.
        task: Sizes, format and device that it was chosen for.
        refused: Why each path that cannot do it cannot, by name.
        seconds: How long each other one will take, by what was measured; empty where nothing was measured.
    """

    path: str
    why: str
    task: Task
    refused: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row a path: whether it is taken, the seconds it is thought to take, and why it cannot."""
        rows = [
            {
                "path": path.name,
                "taken": path.name == self.path,
                "seconds": self.seconds.get(path.name),
                "why": self.why if path.name == self.path else self.refused.get(path.name, ""),
            }
            for path in PATHS
        ]
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        return self.frame().to_html(index=False)


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"], path: str | None = None) -> Sparse:
    """Codes of prepared inputs.

    Args:
        encoder: What encodes.
        x: Inputs in the format and on the device of the weight.
        path: Name of the path; what `using` says, or the fastest, when None.
    Raises:
        DictionaryError: Shape, format or device do not fit, there is NaN or infinity in either, or the path cannot do it.
    """
    weight = encoder.weight
    if x.ndim != 2 or x.shape[1] != encoder.d or x.dtype != weight.dtype or x.device != weight.device:
        raise DictionaryError(
            f"inputs of {x.dtype} {list(x.shape)} on {x.device} do not fit an encoder of {weight.dtype} {list(weight.shape)} on {weight.device}; "
            f"give [tokens, {encoder.d}] in its format, beside it"
        )
    refuse_not_finite(x)
    refuse_weights(encoder)
    choice = choose(Task.of(encoder, len(x)), path)
    with_loops = [choice.seconds[one.name] for one in SCREENS if one.name in choice.seconds]
    if with_loops:
        work.PATIENCE.wait(choice.seconds[choice.path], min(with_loops))
    return named(choice.path).encode(encoder, x)


@contextmanager
def using(path: str) -> Iterator[None]:
    """Inside, codes are computed by this path, such as "reference", in this thread.

    Raises:
        DictionaryError: There is no such path; or, when something is encoded, it cannot do it.
    """
    token = _forced.set(named(path).name)
    try:
        yield
    finally:
        _forced.reset(token)


def named(name: str) -> Path:
    """A path by its name.

    Raises:
        DictionaryError: There is none.
    """
    for path in PATHS:
        if path.name == name:
            return path
    raise DictionaryError(f"no path {name!r} to codes; there are {', '.join(path.name for path in PATHS)}")


def choose(task: Task, path: str | None = None) -> Choice:
    """The path for a task: the one that is told, else the one that `using` tells, else the fastest that can.

    Raises:
        DictionaryError: The path that was told cannot do it, or there is none of that name.
    """
    told = path or _forced.get()
    if told is not None:
        refusal = named(told).refusal(task)
        if refusal is not None:
            raise DictionaryError(
                f"the path {told!r} cannot encode this: {refusal}; leave the choice open, or take 'reference'"
            )
        return Choice(told, "it was told to", task)
    if task.products < SMALL:
        return Choice("reference", f"{task.products:,} products are so few that plain torch is done at once", task)
    refused = {one.name: why for one in PATHS if (why := one.refusal(task)) is not None}
    able = [one for one in PATHS if one.name not in refused]
    seconds = {one.name: one.seconds(task) for one in able}
    best = min(able, key=lambda one: seconds[one.name])
    others = ", ".join(
        f"{name} {took * 1e3:.3g} ms" for name, took in seconds.items() if name != best.name and took < inf
    )
    why = f"{best.why}: {seconds[best.name] * 1e3:.3g} ms by what was measured here" + (f"; {others}" if others else "")
    waking = work.PATIENCE.waking_s()
    if waking and best not in SCREENS and any(one in able for one in SCREENS):
        why += f"; {waking:.1f} s of the screens' are for waking their loops, once, and calls that go without count toward it"
    return Choice(best.name, why, task, refused, seconds)


@runtime_checkable
class HasEncoder(Protocol):
    """What `explain` takes: a dictionary that a kernel can encode, or none where its codes need another way."""

    @property
    def encoder(self) -> Encoder | None: ...

    def n_tokens(self, x: Any) -> int: ...


def explain(dictionary: HasEncoder | Encoder, x: Any) -> Choice:
    """Which path encodes these activations, and why.

    Args:
        dictionary: A dictionary, or an `Encoder`.
        x: Activations, a tensor [..., d], or a number of tokens.
    Raises:
        DictionaryError: Codes of this dictionary come from no kernel.
    """
    encoder = dictionary if isinstance(dictionary, Encoder) else dictionary.encoder
    if encoder is None:
        raise DictionaryError(
            f"{dictionary!r:.80} encodes by its own rule, block by block, and no kernel has a part in it"
        )
    if isinstance(x, int):
        count = x
    elif isinstance(dictionary, Encoder):
        count = x.numel() // max(1, x.shape[-1])
    else:
        count = dictionary.n_tokens(x)
    return choose(Task.of(encoder, count))
