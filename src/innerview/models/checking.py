"""Checking found sites by running: what is added there changes what it should, and adding nothing changes nothing."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from innerview.models.additions import Inside, Step, holds
from innerview.models.site import Site
from innerview.models.tracing import Trace, Trial, trace

HANDED_ON = "each block's output is what the next one receives"
ZERO = "adding zero anywhere leaves the output bitwise as it was"
MOVES = "a vector added behind the first block, or the last, moves every row of the output"
REACHES = "a vector added behind every block reaches the next one"
SUMS = "resid = resid_in + what the sites of the block add"
SUMS_NORMED = "resid = norms of sums of resid_in and what the sites of the block add"


def check(root: nn.Module, trial: Trial, before: Trace, table: dict[str, Site], sums: dict[str, list[Step]]) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """What holds, in words, and the sites that do not, with the reason.

    Args:
        root: The network, undisturbed.
        trial: How it is called.
        before: The trial without edits.
        table: Sites by name; the ones that fail are named, and left in it.
        sums: How each block's stream comes about, by the block's name.
    """
    failed: dict[str, str] = {}
    checks = [HANDED_ON]
    editable = [site for site in table.values() if site.is_editable]
    zeros = trace(root, trial, (), _adding(editable, 0.0))
    if _same(before.output, zeros.output):
        checks.append(ZERO)
    else:
        for site in editable:
            if not _same(before.output, trace(root, trial, (), _adding([site], 0.0)).output):
                failed[site.name] = "adding zero there changes the output"
    resid = [site for site in editable if site.name.endswith(".resid") and site.name not in failed]
    ends = {site.name.rpartition("blocks.")[0]: [] for site in resid}
    for site in resid:
        ends[site.name.rpartition("blocks.")[0]].append(site)
    chosen = [site for stack in ends.values() for site in (stack[0], stack[-1])]
    for site in dict.fromkeys(chosen):
        if not _moves_every_row(before.output, trace(root, trial, (), _adding([site], 1.0)).output):
            failed[site.name] = "a vector added there does not move every row of the output"
    if chosen and not any(site.name in failed for site in chosen):
        checks.append(MOVES)
    missed = _not_reached(root, trial, ends.values())
    failed |= {name: "a vector added there does not reach the next block" for name in missed if name not in failed}
    if not missed:
        checks.append(REACHES)
    return _check_sums(root, trial, table, sums, checks, failed), failed


def _check_sums(
    root: nn.Module, trial: Trial, table: dict[str, Site], sums: dict[str, list[Step]], checks: list[str], failed: dict[str, str]
) -> list[str]:  # fmt: skip
    """Add vectors to what the blocks add: the sums must hold again, with what was added in them."""
    added = [site for name, site in table.items() if name.endswith(".out") and name not in failed]
    if not added or not sums:
        return checks
    blocks = {name: table[f"{name}.resid"] for name in sums if f"{name}.resid" in table}
    watched = {site.module for site in blocks.values()}
    inner = {f"{blocks[name].module}.{path}" for name in blocks for path in _paths(sums[name])}
    again = trace(root, trial, [*watched, *inner], _adding(added, 1.0))
    held = 0
    for name, site in blocks.items():
        block = again.once(site.module)
        events = [e for e in again.events if e.path.startswith(f"{site.module}.")]
        if block is not None and holds(sums[name], Inside(block, events, site.item)):
            held += 1
            continue
        for other in added:
            if other.name.startswith(f"{name}."):
                failed[other.name] = "a vector added there is not what the block then adds to its stream"
    if held:
        plain = [name for name in blocks if not any(step.is_normed for step in sums[name])]
        words = SUMS if len(plain) == len(blocks) else SUMS_NORMED
        checks.append(words if held == len(blocks) else f"{words} (in {held} of {len(blocks)} blocks)")
    return checks


def _paths(steps: list[Step]) -> list[str]:
    return [a.path for step in steps for a in step.additions] + [step.norm for step in steps if step.norm]


def _adding(sites: Iterable[Site], size: float) -> dict[Any, Callable[[Any], Any]]:
    """Edits that add a fixed vector at sites, one a point."""
    by_point: dict[Any, list[Site]] = {}
    for site in sites:
        by_point.setdefault(site.point, []).append(site)

    def edit(found: list[Site]) -> Callable[[Any], Any]:
        def apply(value: Any) -> Any:
            for site in found:
                x = site.read(value)
                value = site.write(value, x + _vector(x, size))
            return value

        return apply

    return {point: edit(found) for point, found in by_point.items()}


def _vector(x: Tensor, size: float) -> Tensor:
    """A vector of unlike numbers as long as what it is added to, times `size`; along one direction it would vanish in a norm."""
    wave = torch.cos(torch.arange(x.shape[-1], device=x.device, dtype=torch.float32) * 1.7 + 0.3)
    scale = max(float(x.detach().float().abs().mean()), 1e-3)
    return (size * scale * wave).to(x.dtype)


def _not_reached(root: nn.Module, trial: Trial, stacks: Iterable[list[Site]]) -> list[str]:
    listed = [stack for stack in stacks if stack]
    sites = [site for stack in listed for site in stack]
    if not sites:
        return []
    seen = trace(root, trial, [site.module for site in sites], _adding(sites, 1.0))
    missed = []
    for stack in listed:
        for site, after in itertools.pairwise(stack):
            block, other = seen.once(site.module), seen.once(after.module)
            value = None if block is None else block.item(site.item)
            if other is None or not any(_same(value, r) for r in other.received):
                missed.append(site.name)
    return missed


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and torch.equal(a, b)


def _moves_every_row(before: Tensor | None, after: Tensor | None) -> bool:
    if before is None or after is None or before.shape != after.shape:
        return False
    return bool((before != after).flatten(1).any(dim=1).all())
