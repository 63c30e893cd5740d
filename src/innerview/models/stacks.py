"""Stacks of blocks: the repeated modules of a network, found by structure and by the order in which they run."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from innerview.models.tracing import ROWS, TOKENS, Event, Trace


@dataclass(frozen=True)
class Stack:
    """Repeated blocks that run one after another.

    Attributes:
        path: Path of the list of blocks.
        blocks: Paths of its blocks, in their order.
        weights: Number of weights inside.
    """

    path: str
    blocks: tuple[str, ...]
    weights: int


def stacks_in(root: nn.Module) -> list[Stack]:
    """Outermost lists of like modules, the one with most weights first. Experts inside a block are no stack of their own."""
    found: list[Stack] = []
    for path, module in root.named_modules():
        if any(path.startswith(f"{stack.path}.") for stack in found):
            continue
        # A block that is run several times may stand in its list several times.
        children = [(name, child) for name, child in module._modules.items() if child is not None]
        if children and _is_stack(module, [m for _, m in children]):
            names = tuple(f"{path}.{name}".lstrip(".") for name, _ in children)
            found.append(Stack(path, names, sum(p.numel() for p in module.parameters())))
    return sorted(found, key=lambda stack: -stack.weights)


def _is_stack(module: nn.Module, children: list[nn.Module]) -> bool:
    """Whether a module is a list of blocks: modules with parts of their own, of at most a few classes."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or any(not list(m.children()) for m in children):
        return False
    # A Sequential of unlike parts is a network; hybrids put two or three kinds of blocks into one list.
    return isinstance(module, nn.ModuleList) or (len(children) > 1 and len({type(m) for m in children}) == 1)


def refusal(stack: Stack, trace: Trace) -> str:
    """Why the modules of a list are no blocks that run one after another; empty when they are."""
    ended = -1
    for path in stack.blocks:
        calls = trace.of(path)
        if len(calls) != 1:
            return f"{path} runs {len(calls) or 'no'} times in one forward" if calls else f"{path} did not run"
        if calls[0].began < ended:
            return f"{path} runs before the one that stands in front of it"
        ended = calls[0].ended
    return ""


@dataclass(frozen=True)
class Stream:
    """How blocks hand on what they carry.

    Attributes:
        item: Item of a block's output that the next one receives; None for the tensor, or the first.
        is_read: Whether a hook on a block's input reads it.
        axes: Names of its axes.
        sizes: Sizes behind `batch` and `pos`.
    """

    item: int | None
    is_read: bool
    axes: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]


def stream_of(stack: Stack, trace: Trace, *, is_text: bool) -> Stream | str:
    """The stream of a stack, or why there is none that can be named."""
    events = [trace.once(path) for path in stack.blocks]
    blocks = [event for event in events if event is not None]
    items = _items(blocks, trace)
    if not items:
        before, after = _broken(blocks)
        return f"what {before} returns is not what {after} receives"
    item = items[0]
    values = [v for v in (block.item(item) for block in blocks) if v is not None]
    first = blocks[0].first
    is_read = first is not None and _alike(first, values[0]) and all(_same(b.first, v) for b, v in zip(blocks[1:], values, strict=False))  # fmt: skip
    axes = _axes(values[0], is_text=is_text)
    if isinstance(axes, str):
        return axes
    default = blocks[0].returned[0][0]
    # The first tensor is what a site reads unless told.
    return Stream(None if item == default else item, is_read, axes, tuple(tuple(v.shape[2:]) for v in values))


def _items(blocks: list[Event], trace: Trace) -> list[int | None]:
    """Items of the blocks' outputs that hold, in every block, what the next one receives."""
    possible = [item for item, value in blocks[0].returned if value.is_floating_point()]
    if len(blocks) == 1:
        behind = [e for e in trace.events if e.began > blocks[0].ended]
        handed = [i for i in possible if any(_same(e.first, blocks[0].item(i)) for e in behind)]
        return handed or possible[:1]
    for before, after in itertools.pairwise(blocks):
        got = dict(before.returned)
        possible = [i for i in possible if i in got and any(_same(got[i], r) for r in after.received)]
    return possible


def _broken(blocks: list[Event]) -> tuple[str, str]:
    for before, after in itertools.pairwise(blocks):
        if not any(_same(value, r) for _, value in before.returned for r in after.received):
            return before.path, after.path
    return blocks[0].path, blocks[-1].path


def _axes(value: Tensor, *, is_text: bool) -> tuple[str, ...] | str:
    shape = tuple(value.shape)
    if shape[0] != ROWS or value.ndim < 3:
        return f"it carries a tensor of shape {list(shape)}, whose first axis is not the batch of {ROWS}"
    if value.ndim > 4 or (not is_text and value.ndim == 4):
        return f"it carries a tensor of shape {list(shape)}, whose axes have no names here"
    if is_text and shape[1] < TOKENS:
        return f"it carries {shape[1]} positions for {TOKENS} tokens"
    return ("batch", "pos", "stream", "d_model") if value.ndim == 4 else ("batch", "pos", "d_model")


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a, b.to(a.dtype))


def _alike(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.ndim == b.ndim and a.shape[:2] == b.shape[:2] and a.is_floating_point()
