"""What a block adds to its stream: found by comparing what its modules return with what the stream becomes."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor, nn

from innerview.models.tracing import Event


@dataclass(frozen=True)
class Addition:
    """One module's output that is added to the stream.

    Attributes:
        path: Path of the module, relative to the block.
        item: Item of its output.
        scale: What it is multiplied by before it is added.
    """

    path: str
    item: int | None
    scale: float = 1.0


@dataclass(frozen=True)
class Step:
    """The stream after some additions: at the input of a norm, or behind the block.

    Attributes:
        additions: What is added to the stream.
        norm: Path of the norm whose input is the sum, relative to the block; empty for the block's output.
        is_normed: Whether the norm's output, not the sum, is the stream from here on (a post-norm block).
    """

    additions: tuple[Addition, ...]
    norm: str = ""
    is_normed: bool = False


@dataclass(eq=False)
class Inside:
    """Calls of the modules inside one block, by path relative to it."""

    block: Event
    events: list[Event]
    item: int | str | None

    @property
    def start(self) -> Tensor | None:
        """The stream before the block."""
        return self.block.first

    @property
    def end(self) -> Tensor:
        """The stream behind the block."""
        found = self.block.item(self.item)
        assert found is not None
        return found

    def relative(self, event: Event) -> str:
        """A module's path inside the block."""
        return event.path.removeprefix(f"{self.block.path}.")

    @cached_property
    def single(self) -> dict[str, Event]:
        """Modules that ran once, by path relative to the block."""
        counts = Counter(self.relative(e) for e in self.events)
        return {self.relative(e): e for e in self.events if counts[self.relative(e)] == 1}

    def value(self, addition: Addition) -> Tensor | None:
        """What a module adds, in this forward."""
        event = self.event(addition.path)
        value = None if event is None else event.item(addition.item)
        return value if value is None or addition.scale == 1.0 else value * addition.scale

    def event(self, path: str) -> Event | None:
        """The only call of a module inside the block."""
        return self.single.get(path)


def is_norm(event: Event, root: nn.Module) -> bool:
    """Whether a module is a norm: a leaf that keeps the shape, with a vector of weights at the most, and says so."""
    module = root.get_submodule(event.path)
    name = f"{type(module).__name__} {event.path.rpartition('.')[2]}".lower()
    is_leaf = not any(True for _ in module.children())
    keeps = event.first is not None and event.out is not None and event.first.shape == event.out.shape
    return is_leaf and keeps and ("norm" in name or "ln" in name) and all(p.ndim <= 1 for p in module.parameters())


def steps_of(inside: Inside, root: nn.Module) -> list[Step] | None:
    """How the stream comes out of the block, sum by sum; None when that cannot be told from its modules."""
    stream, start = inside.start, -1
    if stream is None or not fits(stream, inside.end):
        return None
    steps: list[Step] = []
    streams: list[tuple[Tensor, bool, str]] = [(stream, False, "")]
    for event in sorted(inside.single.values(), key=lambda e: e.began):
        if not is_norm(event, root) or event.first is None or event.out is None or not fits(event.first, stream):
            continue
        if not any(close(event.first, s) for s, _, _ in streams):
            found = _sum(inside, streams, event.first, start, event.began)
            if found is None:
                continue
            _settle(steps, streams, found[0])
            steps.append(Step(found[1], inside.relative(event)))
            streams, start = [(event.first, False, "")], event.began
        streams.append((event.out, True, inside.relative(event)))
    return _last(inside, steps, streams, start)


def _last(inside: Inside, steps: list[Step], streams: list, start: int) -> list[Step] | None:
    for stream in reversed(streams):
        if close(inside.end, stream[0]):
            if not steps:
                return None
            _settle(steps, streams, stream)
            return steps
    found = _sum(inside, streams, inside.end, start, inside.block.ended)
    if found is None:
        return None
    _settle(steps, streams, found[0])
    return [*steps, Step(found[1])]


def _settle(steps: list[Step], streams: list, base: tuple[Tensor, bool, str]) -> None:
    """Note whether the stream went on from the last sum itself, or from a norm of it."""
    if not base[1]:
        return
    if steps and base[2] == steps[-1].norm:
        steps[-1] = Step(steps[-1].additions, steps[-1].norm, is_normed=True)
    else:
        steps.append(Step((), base[2], is_normed=True))


def _sum(inside: Inside, streams: list, total: Tensor, since: int, until: int) -> tuple | None:
    """The stream and the one or two modules whose outputs make up `total`: the last that returned each value."""
    parts: list[tuple[Addition, Tensor]] = []
    for path, event in reversed(inside.single.items()):
        if not since < event.ended < until:
            continue
        for item, value in event.returned:
            is_part = fits(value, total) and value.is_floating_point() and bool(value.any())
            if is_part and not any(torch.equal(_flat(value), _flat(kept)) for _, kept in parts):
                parts.append((Addition(path, None if item == event.returned[0][0] else item), value))
    for stream in streams:
        rest = _flat(total).double() - _flat(stream[0]).double()
        for addition, value in parts:
            if close(total, stream[0], value):
                return stream, (addition,)
        for addition, value in parts:
            scale = float((rest * _flat(value).double()).sum() / value.double().square().sum())
            if abs(scale) > 1e-3 and close(total, stream[0], value, scale):
                return stream, (Addition(addition.path, addition.item, scale),)
        for (a, x), (b, y) in combinations(parts, 2):
            if close(total, stream[0], _flat(x).double() + _flat(y).double()):
                return stream, (b, a)
    return None


def holds(steps: list[Step], inside: Inside) -> bool:
    """Whether the stream of a block comes out of the same sums."""
    stream = inside.start
    for step in steps:
        values = [inside.value(a) for a in step.additions]
        norm = inside.event(step.norm) if step.norm else None
        total = inside.end if not step.norm else (norm.first if norm else None)
        if stream is None or total is None or any(v is None or not fits(v, total) for v in values):
            return False
        if not close(total, stream, sum(_flat(v).double() for v in values) if values else None):  # type: ignore[union-attr]
            return False
        stream = norm.out if step.is_normed and norm else total
    return stream is not None and close(inside.end, stream)


def close(total: Tensor, stream: Tensor, value: Tensor | None = None, scale: float = 1.0) -> bool:
    """Whether `total` is `stream`, or `stream` plus `scale` times `value`, to the rounding of their numbers.

    A value too small to be told from rounding is no addition.
    """
    if not fits(stream, total):
        return False
    a, s = _flat(total).double(), _flat(stream).double()
    step = 8 * torch.finfo(total.dtype).eps
    if value is None:
        return bool(((a - s).abs() <= step * s.abs().clamp(min=s.abs().mean())).all())
    added = _flat(value).double() * scale
    bound = step * torch.maximum(s.abs(), added.abs()).clamp(min=(s.abs() + added.abs()).mean())
    return bool(((a - s - added).abs() <= bound).all()) and bool(((a - s).abs() > bound).any())


def fits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold as many vectors of one width: some modules see all tokens of the batch in one axis."""
    return a.ndim > 1 and b.ndim > 1 and a.shape[-1] == b.shape[-1] and a.numel() == b.numel()


def _flat(value: Tensor) -> Tensor:
    return value.reshape(-1, value.shape[-1])
