"""Capture: run a network and keep what passes at chosen sites."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.errors import CaptureError, EditError, TextError
from innerview.hooks import Board, BoardRun, board_of, refuse_compiled
from innerview.interrupts import Uninterrupted
from innerview.models import text
from innerview.models.attention import eager_twin
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import Plan, Rows, check_positions


class _Stop(Exception):
    """Every site that was asked for has fired: the rest of the forward is not needed."""


def capture(
    model: Model, inputs: Any, sites: str | Sequence[str], *, edits: Any = (), grad: bool = False, hermetic: bool = False
) -> Activations:  # fmt: skip
    """Activations at sites, after the edits that apply there. The forward stops behind the last site.

    Args:
        model: The network.
        inputs: A text, a chat, a list of either, ids [batch, pos], or what the module takes: a tensor, a tuple, a mapping of arguments.
        sites: Names, wildcards, aliases or module paths.
        edits: Edits of this run, behind what is attached and the open blocks.
        grad: Keep the graph, so that gradients flow.
        hermetic: Leave out what is attached and the open blocks.
    Raises:
        CaptureError: A site never fired, or fired several times.
        SiteError: There is no such site.
        TextError: The inputs cannot be read.
    """
    wanted = _wanted(model, sites)
    refuse_compiled(model.module, "")
    board = board_of(model)
    plan = Plan.of(model, edits) if hermetic else board.frozen_plan() + Plan.of(model, edits)
    call = Call.of(model, inputs)
    if call.has_cache and any(not edit.where.is_everywhere for edit in plan.edits):
        raise EditError(
            "a capture that goes on from a cache does not know where its tokens stand; drop where=, or give the whole text"
        )
    if call.tokens is not None and plan.edits:
        check_positions(plan, call.tokens.lengths, 0)
    had_gradients = torch.is_grad_enabled()
    try:
        with contextlib.nullcontext() if grad else torch.no_grad():
            values = _values(model, board, plan, call, wanted)
    finally:
        # An interrupt that comes while torch switches gradients off would leave them off.
        with Uninterrupted():
            torch.set_grad_enabled(had_gradients)
    tokens, mask = (call.tokens.ids, call.tokens.mask) if call.tokens else (None, None)
    return Activations({site.name: values[site.name] for site in wanted}, tokens, mask, model)


def _values(model: Model, board: Board, plan: Plan, call: "Call", wanted: list[Site]) -> dict[str, Tensor]:
    plain = [site for site in wanted if not site.is_eager]
    eager = [site for site in wanted if site.is_eager]
    values = _forward(board, plan, call, plain) if plain else {}
    if eager:
        # A board holds its network weakly: the twin must live until its forward is over.
        twin = eager_twin(model)
        values |= _forward(board_of(twin), plan, call, eager)
    return values


def _wanted(model: Model, sites: str | Sequence[str]) -> list[Site]:
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names:
        raise CaptureError("no site was asked for; name at least one, such as 'blocks.*.resid'")
    found: dict[str, Site] = {}
    for name in names:
        for site in model.expand(name):
            found.setdefault(site.name, site)
    return list(found.values())


class Call:
    """How the root module is called: its arguments, and the tokens among them."""

    def __init__(self, model: Model, args: tuple, kwargs: dict[str, Any], tokens: text.Tokens | None) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.tokens = tokens

    @classmethod
    def of(cls, model: Model, inputs: Any) -> "Call":
        """The call for some inputs.

        Raises:
            TextError: They cannot be read.
        """
        if isinstance(inputs, Mapping):
            return cls(model, (), dict(inputs), _tokens_of(inputs))
        is_tensor = isinstance(inputs, Tensor)
        if is_tensor and (inputs.is_floating_point() or not _takes_ids(model)):
            return cls(model, (inputs,), {}, None)
        if isinstance(inputs, tuple) and inputs and all(isinstance(i, Tensor) for i in inputs):
            return cls(model, inputs, {}, None)
        tokens = text.encode(model, inputs)
        return cls(model, (), _arguments(model, tokens), tokens)

    def rows(self) -> Rows | None:
        """The rows of this call, all prompt."""
        if self.tokens is None:
            return None
        lengths = self.tokens.lengths
        is_full = bool(self.tokens.mask.all())
        return Rows(self.tokens.left_pad, lengths, lengths, is_full=is_full, real=self.tokens.mask)

    @property
    def has_cache(self) -> bool:
        """Whether the call goes on from a cache of the caller's."""
        return self.kwargs.get("past_key_values") is not None


def _takes_ids(model: Model) -> bool:
    return "input_ids" in _parameters(model)


def _parameters(model: Model) -> tuple[str, ...]:
    """Names of what the root module's forward takes."""
    forward = model.module.forward
    bound = getattr(forward, "__func__", None)
    return tuple(inspect.signature(forward).parameters) if bound is None else _parameters_of(bound)[1:]


# Reading a signature costs as much as a small network's block. By function: a bound method would keep its network alive.
@lru_cache(maxsize=64)
def _parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _tokens_of(inputs: Mapping[str, Any]) -> text.Tokens | None:
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return None
    mask = inputs.get("attention_mask")
    is_mask = isinstance(mask, Tensor) and mask.shape == ids.shape
    return text.Tokens(ids, mask.bool() if is_mask else torch.ones_like(ids, dtype=torch.bool), False)  # type: ignore[union-attr]


def _arguments(model: Model, tokens: text.Tokens) -> dict[str, Any]:
    """The module's own arguments for rows of ids."""
    takes = _parameters(model)
    if "input_ids" not in takes:
        raise TextError(
            f"{model.name} takes no token ids (its forward has {', '.join(takes)}); give the tensors it takes"
        )
    device, mask = model.device, tokens.mask.long()
    given: dict[str, Any] = {"input_ids": tokens.ids.to(device)}
    if "attention_mask" in takes:
        given["attention_mask"] = mask.to(device)
    if "position_ids" in takes:
        given["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_(min=0).to(device)
    if "use_cache" in takes:
        given["use_cache"] = False
    return given


def _forward(board: Board, plan: Plan, call: Call, sites: list[Site], *, copies: bool = False) -> dict[str, Tensor]:
    """One forward, stopped behind the last of the sites."""
    copies = copies or call.has_cache
    values: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(site: Site, value: Tensor) -> None:
        if site.name in values:
            raise CaptureError(f"site {site.name!r} fired more than once in one forward; name a module that runs once")
        values[site.name] = value.clone() if copies or value.is_inference() else value
        versions[site.name] = 0 if value.is_inference() else values[site.name]._version
        if len(values) == len(sites) and may_stop:
            raise _Stop

    taps: dict[Any, list[Any]] = {}
    for site in sites:
        taps.setdefault(site.point, []).append((site, keep))
    run = BoardRun(board, plan, call.rows() if plan.by_point and not call.has_cache else None, taps=taps)
    # A module that the table does not know may run again; a cache must be filled to the last layer.
    may_stop = not call.has_cache and all(site.name in call.model.table for site in sites)
    with contextlib.suppress(_Stop):
        run.call(call.args, call.kwargs)
    if len(values) == len(sites):
        # A network that works in place writes over what was kept; it runs again, and what passes is copied.
        is_written = not copies and any(not v.is_inference() and v._version != versions[n] for n, v in values.items())
        return _forward(board, plan, call, sites, copies=True) if is_written else values
    missed = [site.name for site in sites if site.name not in values]
    raise CaptureError(
        f"site {missed[0]!r} never fired: the network does not run that module itself; see model.sites() for sites that fire"
    )
