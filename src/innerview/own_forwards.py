"""Forwards of the user's own: which edits they take, and where their tokens are."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from innerview.calls import cache_length, cache_of, ids_shape, token_ids
from innerview.errors import EditError
from innerview.models.site import Point
from innerview.models.writing import prompts_being_continued
from innerview.rows import Memory
from innerview.runs import Forward, Plan, Rows, apply, listen
from innerview.sides import Pair

UNCOUNTED = (
    "this forward goes on from a recurrent state whose beginning was not seen, so where its tokens stand is unknown; "
    "open the block before the prompt, or use iv.generate"
)


class Block:
    """One open `editing` block of a thread, or one attachment: a plan that edits the user's own forwards."""

    def __init__(self, plan: Plan, prompt_tokens: Any = None, name: str = "") -> None:
        self.plan = plan
        self.prompt_tokens = prompt_tokens
        self.name = name
        self.is_enabled = True
        self.forwards = 0
        self.fired: set[Point] = set()
        self.longest = 0


class OwnForward:
    """A forward of the user's own: the attached edits, then the thread's blocks."""

    def __init__(
        self, blocks: list[Block], forward: Forward | None, *, outer: "OwnForward | None" = None, frame: Any = None
    ) -> None:
        self.blocks = blocks
        self.forward = forward
        self.outer = outer
        self.frame = frame
        self.cache: Any = None
        self.pair: Pair | None = None
        # What the memory of its prompts is kept by: the cache, or the call of `generate` that it is part of.
        self.kept_by: Any = None

    def visit(self, point: Point, value: Any) -> Any:
        """Apply every block's edits at a point; None when nothing changed."""
        changed, forward = None, self.forward if self.pair is None else self.pair.at(point, self.forward)
        for block in self.blocks:
            block.fired.add(point)
            new = apply(block.plan.by_point.get(point, ()), forward, value if changed is None else changed, block)
            changed = changed if new is None else new
        for block in self.blocks:
            if block.plan.reads:
                listen(block.plan, point, forward, value if changed is None else changed, block)
        return changed


class Prompts:
    """Where the tokens of the user's own forwards are; prompts are remembered by the cache that goes on from them."""

    def __init__(self) -> None:
        # By identity: a generation config compares by its content.
        self._memories = WeakIdKeyDictionary()
        # Tokens that have passed, for recurrent states, which do not count them.
        self._columns = WeakIdKeyDictionary()

    def locate(self, root: nn.Module, own: OwnForward, args: tuple, kwargs: dict) -> None:
        """Count the tokens of a forward of the user's own that starts: from the `generate` it belongs to, else from its mask."""
        if not any(block.plan.by_point for block in own.blocks):
            return
        shape, device = ids_shape(args, kwargs)
        told = next((b.prompt_tokens for b in reversed(own.blocks) if b.prompt_tokens is not None), None)
        own.pair = Pair.of(root, kwargs, told)
        if own.pair is not None:
            for block in own.blocks:
                block.longest = max(block.longest, own.pair.longest)
        if shape is None:
            # No tokens are counted, but what passes at one site may be read at another.
            own.forward = Forward(None, None, 0, device)
            return
        cache = cache_of(kwargs)
        # A list of states can be held weakly by nobody.
        cache = cache if hasattr(cache, "__weakref__") else None
        written = prompts_being_continued(root, own.frame) if told is None else None
        counted = 0 if own.pair is not None else self._columns_before(kwargs, shape[1], written and written.call, cache)
        col0 = counted or 0
        known = None if written is None else _written_rows(written.mask, shape, col0)
        own.cache = cache
        if known is not None and written is not None:
            own.kept_by = written.call
            memory = self._memories.get(written.call) or Memory(written.ids, written.mask, written.mask.sum(dim=1))
        else:
            own.kept_by = cache
            memory = (self._memories.get(cache) if cache is not None and col0 else None) or Memory()
        if counted is None:
            known = Rows(
                torch.zeros(shape[0], dtype=torch.long), torch.full((shape[0],), shape[1]), None, UNCOUNTED, False, True
            )
        rows = known or self._rows(shape, col0, memory, kwargs, told if own.pair is None else None)
        own.forward = Forward(rows, shape, col0, device, ids=token_ids(args, kwargs), memory=memory)
        for block in own.blocks:
            block.longest = max(block.longest, col0 + shape[1])

    def _columns_before(self, kwargs: dict, q: int, call: Any, cache: Any) -> int | None:
        """Tokens before a forward of `q`; None where it goes on from a state of which nobody knows."""
        length, mask = cache_length(kwargs), kwargs.get("attention_mask")
        if length is not None:
            return length
        for kept_by in (call, cache):
            if kept_by is not None and kept_by in self._columns:
                return self._columns[kept_by]
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > q:
            return mask.shape[1] - q
        given = cache_of(kwargs)
        is_used = getattr(given, "has_previous_state", lambda: True)
        # In a call of `generate` the first forward is the prompt's.
        return 0 if call is not None or not is_used() else None

    def _rows(self, shape: tuple[int, int], col0: int, memory: Memory, kwargs: dict, told: Any) -> Rows:
        rows, q = shape
        mask = kwargs.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= col0 + q:
            real = mask[:, : col0 + q].bool()
            length = real.sum(dim=1)
            has_positions, is_full = True, False
        elif isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[-1] >= col0 + q:
            # What the last token may attend to is real: numbers below zero and False hide the pads.
            seen = mask[:, 0, -1, : col0 + q]
            real = (seen if seen.dtype == torch.bool else seen >= 0).expand(rows, -1)
            length = real.sum(dim=1)
            has_positions, is_full = told is not None, False
        else:
            real, length = None, torch.full((rows,), col0 + q)
            has_positions, is_full = told is not None, True
        prompt, why = self._prompt_of(rows, q, col0, memory, kwargs, length, told, has_positions)
        return Rows(torch.zeros(rows, dtype=torch.long), length, prompt, why, has_positions, is_full, real)

    def _prompt_of(
        self, rows: int, q: int, col0: int, memory: Memory, kwargs: dict, length: Tensor, told: Any, has_mask: bool
    ) -> tuple[Tensor | None, str]:  # fmt: skip
        """Lengths of the prompts, or why they are unknown."""
        way = "pass editing(..., prompt_tokens=<length of the prompt>), or use iv.generate"
        if told is not None:
            told = torch.as_tensor(told).long().flatten()
            if told.numel() not in (1, rows) and rows % told.numel():
                raise EditError(f"prompt_tokens has {told.numel()} numbers for {rows} rows; give one, or one a row")
            return told.repeat_interleave(rows // told.numel()), ""
        if not has_mask:
            return None, f"this forward carries no 2-D attention mask, so where its tokens stand is unknown; {way}"
        if kwargs.get("use_cache") is False:
            return None, f"a forward without a cache does not say where its prompt ends; {way}"
        if col0 == 0:
            return length, ""
        known = memory.prompt_len
        if known is None:
            return (
                None,
                f"this forward continues a cache whose beginning was not seen, so where its prompt ended is unknown; {way}",
            )
        if q > 1:
            return None, f"this forward adds {q} tokens to a cache at once, which may be prompt or generated; {way}"
        return known.repeat_interleave(rows // known.numel()) if rows % known.numel() == 0 else known, ""

    def remember(self, own: OwnForward, output: Any) -> None:
        """Keep what is known of the prompts for the forwards that go on with the same cache, or in the same `generate`."""
        forward = own.forward
        if forward is None or forward.shape is None:
            return
        state = own.kept_by if own.kept_by is not None else getattr(output, "cache_params", None)
        if state is not None and hasattr(state, "__weakref__"):
            self._columns[state] = forward.col0 + forward.q
        if (forward.rows is not None and forward.rows.why_unknown is UNCOUNTED) or (
            forward.col0 != 0 and own.kept_by is own.cache
        ):
            return
        kept_by = own.kept_by if own.kept_by is not None else getattr(output, "past_key_values", state)
        rows, memory = forward.rows, forward.memory
        if kept_by is None or rows is None or rows.prompt_len is None or kept_by in self._memories:
            return
        memory.prompt_len = rows.prompt_len if memory.prompt_len is None else memory.prompt_len
        self._memories[kept_by] = memory


def _written_rows(prompts: Tensor, shape: tuple[int, int], col0: int) -> Rows | None:
    """Rows of a forward inside the user's own `generate`; None when its rows are not the prompts', repeated.

    Args:
        prompts: True where a prompt's token is real, shape [prompts, width].
        shape: Rows and tokens a row of the forward.
        col0: Tokens in the cache before it.
    """
    rows, q = shape
    if rows % prompts.shape[0]:
        return None
    behind = prompts.new_ones(prompts.shape[0], max(0, col0 + q - prompts.shape[1]))
    real = torch.cat([prompts, behind], dim=1)[:, : col0 + q].repeat_interleave(rows // prompts.shape[0], dim=0)
    length = prompts.sum(dim=1).repeat_interleave(rows // prompts.shape[0])
    return Rows(torch.zeros(rows, dtype=torch.long), real.sum(dim=1), length, is_full=bool(real.all()), real=real)


def raise_unmet(block: Block, what: str, *, with_positions: bool = True) -> None:
    """Refuse a block that did not do what it says, once its forwards are over.

    Raises:
        EditError: A site never fired, or a position never came.
    """
    if not block.forwards:
        return
    missed = [p[0].site.name for point, p in block.plan.by_point.items() if point not in block.fired]
    if missed:
        raise EditError(
            f"{what} edits {missed[0]!r}, which never fired in {block.forwards} forward(s): the network does not run that module itself; "
            "edit a site that fires, see model.sites()"
        )
    if not with_positions:
        return
    for edit in block.plan.edits:
        past = [p for p in edit.where.positions or () if p >= block.longest]
        if past and block.longest:
            raise EditError(
                f"position {past[0]} is past the end: the longest row of {what} had {block.longest} tokens; count from 0"
            )
