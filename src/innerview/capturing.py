"""Capture: run a network and keep what passes at chosen sites."""

from collections.abc import Sequence
from typing import Any

import torch

from innerview.activations import Activations
from innerview.capture_tasks import Task
from innerview.chosen import Chosen, Positions, head_numbers, wanted_sites
from innerview.chunks import parts, run_chunks
from innerview.direction import Direction
from innerview.hooks import board_of
from innerview.inputs import Call
from innerview.models.model import Model
from innerview.one_site import capture_one
from innerview.reductions import reduction_of
from innerview.runs import EMPTY, Plan
from innerview.sinks import Appendable, Resumable, Sink
from innerview.site_gradients import Objective, checked_objective
from innerview.where import Where


def capture(
    model: Model,
    inputs: Any,
    sites: str | Sequence[str],
    *,
    edits: Any = (),
    grad: bool = False,
    hermetic: bool = False,
    before_edits: bool = False,
    where: Where | None = None,
    positions: Positions = None,
    heads: int | Sequence[int] | None = None,
    reduce: str | Direction | Sequence[Direction] | None = None,
    gradients_of: Objective | None = None,
    firing: int | None = None,
    batch_size: int | None = None,
    to: str | torch.device | torch.dtype | Appendable | None = None,
    progress: bool | None = None,
) -> Activations:
    """Activations at sites, after the edits that apply there. The forward stops behind the last site.

    Args:
        model: The network.
        inputs: A text, a chat, a list of either, ids [batch, pos], or what the module takes: a tensor, a tuple, a mapping of arguments.
            An encoder–decoder reads texts and ids in its encoder, and its decoder gets the token it starts from; to give it more, give a
            mapping with `decoder_input_ids`. Tokens are chosen, and edits placed, among those of the side that a site is on.
        sites: Names, wildcards, aliases or module paths.
        edits: Edits of this run, behind what is attached and the open blocks.
        grad: Keep the graph, so that gradients flow.
        hermetic: Leave out what is attached and the open blocks.
        before_edits: What arrives at a site, before the edits there; those at earlier sites have acted.
        where: Tokens to keep, as edits choose theirs; they come packed to the left, their places in `.positions`.
        positions: Tokens to keep, in this order: numbers, negative from the end, `"last"`, or a list for each row.
        heads: Heads to keep, at sites with heads.
        reduce: `"mean"`, `"max"` or `"last"` of a row's tokens, or directions to project on, in natural steps; on the network's device.
        gradients_of: `"loss"`, or what makes a number (or one a row) of the logits, or of logits and mask; `.gradients` holds its gradients.
            `"loss"` is each row's mean next-token cross-entropy in nats, summed over rows.
        firing: Which firing of a module that runs several times: 0 is the first, -1 the last.
        batch_size: Rows of one forward; about 8192 tokens when None.
        to: `"cpu"`, `"cuda"`, a dtype, or what takes each chunk's Activations with `append`, such as a list or `iv.open_store(folder)`; the
            result holds no tensors then. Rows that a store has already are left out.
        progress: Show how far it is; after two seconds when None.
    Raises:
        CaptureError: A site never fired, or fired several times; or what is asked for excludes itself.
        CaptureInterrupt: An interrupt came between chunks; it holds what was done.
        SiteError: There is no such site.
        TextError: The inputs cannot be read.
    """
    board = board_of(model)
    own = EMPTY if edits == () else Plan.of(model, edits)
    plan = own if hermetic else board.frozen_plan() + own
    is_all = where is None and positions is None and heads is None and reduce is None and firing is None
    if (
        is_all
        and gradients_of is None
        and batch_size is None
        and to is None
        and not (plan.by_point or grad or before_edits or progress)
    ):
        # Of a small network this is a tenth of the time, or more.
        found = capture_one(model, board, inputs, sites)
        if found is not None:
            return found
    wanted = wanted_sites(model, sites)
    call = Call.of(model, inputs)
    task = Task(
        model, board, plan, wanted, Chosen.of(where, positions), head_numbers(heads), reduction_of(reduce),
        checked_objective(gradients_of), firing, before_edits, grad, Sink.of(to),
    )  # fmt: skip
    call = task.seen_by(call)
    task.check(call)
    taker = task.sink.taker if task.sink else None
    # Asking whether something has certain methods takes as long as a small layer.
    store = taker if taker is not None and isinstance(taker, Resumable) else None
    done = store.begin(model, *_asked(task, call)) if store is not None else 0
    listed = parts(call, batch_size, is_sorted=taker is None, first=done)
    had_gradients = torch.is_grad_enabled()
    try:
        try:
            torch.set_grad_enabled((had_gradients and grad) or gradients_of is not None)
            if len(listed) == 1 and taker is None and not progress:
                return task.run(call, listed[0]).activations(model, is_part=False)
            return run_chunks(model, listed, lambda rows: task.of_rows(call, rows), taker=taker, progress=progress)
        finally:
            torch.set_grad_enabled(had_gradients)
            if store is not None:
                store.flush()
    except KeyboardInterrupt:
        # It may have come before gradients were switched back; the second time does it.
        torch.set_grad_enabled(had_gradients)
        raise


def _asked(task: Task, call: Call) -> tuple[str | None, list[bytes]]:
    """Everything that a capture asks for as text, and each of its rows: the same again need not be run. None where it cannot be told."""
    is_plain = not task.plan.by_point and task.reduction is None and task.objective is None
    if call.tokens is None or not call.is_encoded or not is_plain:
        return None, []
    told = ([site.name for site in task.sites], task.chosen, task.heads, task.firing, task.before_edits)
    ids, mask = call.tokens.ids.cpu(), call.tokens.mask.cpu().bool()
    return repr(told), [row[kept].numpy().tobytes() for row, kept in zip(ids, mask, strict=True)]
