"""Compiled networks whose edits and captures stay live: taps put in before compiling, with what they add as data."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._dynamo

from innerview.activations import Activations
from innerview.chosen import wanted_sites
from innerview.edits import Edit
from innerview.errors import CaptureError, EditError
from innerview.hooks import refuse_compiled
from innerview.inputs import Call
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import Forward, Plan, Planned
from innerview.taps import Tap, laws_of


class Compiled:
    """A network compiled with taps at chosen sites. Made by `compiled`.

    Attributes:
        model: The network, as it was opened; its own forwards are edited alike, and can be captured as ever.
        module: The compiled network, called with the network's own inputs.
    """

    def __init__(
        self, model: Model, taps: dict[str, Tap], handles: list[Any], module: Any, captured: list[str]
    ) -> None:
        self.model = model
        self.module = module
        self._taps = taps
        self._handles = handles
        self._captured = captured
        # What is in force, each with its slots.
        self._plan: list[tuple[Planned, range]] = []
        self._size = next(iter(taps.values())).strength.shape[:2]

    def set(self, edits: Any) -> None:
        """Put other edits in force, in place of those before: data changes, the compiled code stays. An empty list takes them off.

        Raises:
            EditError: An edit is none of Add, ProjectOut, Scale and Cap, or stands where no tap was put in; or there are more at one site
                than slots.
        """
        planned = [p for parts in Plan.of(self.model, edits).by_point.values() for p in parts]
        laws = [
            laws_of(self._checked(one), self._taps[one.site.name].vectors.shape[1], self._taps[one.site.name].dtype)
            for one in planned
        ]
        slots = self._slots(planned, [len(each) for each in laws])
        for tap in self._taps.values():
            tap.clear()
        for one, each, among in zip(planned, laws, slots, strict=True):
            tap = self._taps[one.site.name]
            for slot, (vector, law) in zip(among, each, strict=True):
                tap.put(slot, vector, law)
            if one.is_plain:
                tap.strength[:, :, among.start : among.stop] = 1.0
        self._plan = list(zip(planned, slots, strict=True))

    def _checked(self, one: Planned) -> Edit:
        edit, name = one.edit, one.site.name
        if edit.where.condition is not None or edit.heads is not None or edit.neurons is not None:
            raise EditError(
                f"a compiled network takes edits on no condition and on whole activations, not {edit.label}; "
                "use iv.editing on the network that is not compiled"
            )
        if name not in self._taps or not self._taps[name].slots:
            placed = ", ".join(key for key, tap in self._taps.items() if tap.slots)
            raise EditError(f"no tap was put in at {name!r} before compiling; edits may stand at {placed or 'no site'}")
        return edit

    def _slots(self, planned: list[Planned], needed: list[int]) -> list[range]:
        """Slots of each edit, in the edits' order."""
        filled, found = dict.fromkeys(self._taps, 0), []
        for one, count in zip(planned, needed, strict=True):
            name = one.site.name
            found.append(range(filled[name], filled[name] + count))
            filled[name] += count
        for name, count in filled.items():
            if count > self._taps[name].slots:
                raise EditError(
                    f"{self._taps[name].slots} edits fit at {name!r}, and these take {count} slots; compile with slots={count} or more"
                )
        return found

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force."""
        return tuple(dict.fromkeys(one.edit for one, _ in self._plan))

    def __call__(self, inputs: Any) -> Any:
        """What the compiled network returns.

        Args:
            inputs: As `capture` takes them: a text, a list of texts, ids, or the module's own arguments as a mapping.
        Raises:
            CaptureError: There are more rows or tokens than the taps were made for.
        """
        call = Call.of(self.model, inputs)
        self._locate(call)
        return self.module(*call.args, **call.kwargs)

    def _locate(self, call: Call) -> None:
        """Put the tokens of this call into the taps' data."""
        shape = call.shape
        if shape is None or any(n > most for n, most in zip(shape, self._size, strict=True)):
            raise CaptureError(
                f"these taps were made for {self._size[0]} rows of {self._size[1]} tokens, and the inputs have {list(shape or ())}; "
                "compile with rows= and tokens= as large as they come"
            )
        if not self._plan:
            return
        rows = call.rows()
        forward = Forward(rows, shape, 0, self._device, ids=None if call.tokens is None else call.tokens.ids)
        for one, slots in self._plan:
            tap = self._taps[one.site.name]
            mask, share = forward.mask(one), forward.share(one)
            amount = torch.ones(shape, device=self._device) if mask is None else mask.to(self._device, torch.float32)
            if share is not None:
                amount = amount * share
            tap.strength[: shape[0], : shape[1], slots.start : slots.stop] = amount.to(tap.strength)[..., None]

    @property
    def _device(self) -> torch.device:
        return next(iter(self._taps.values())).strength.device

    def capture(self, inputs: Any) -> Activations:
        """Activations at the sites that were compiled in to be captured, behind the edits there. The compiled network runs whole.

        Raises:
            CaptureError: No site was asked for when the network was compiled.
        """
        if not self._captured:
            raise CaptureError("no site is copied in this compiled network; compile it with capture=['blocks.3.resid']")
        call = Call.of(self.model, inputs)
        self._locate(call)
        with torch.no_grad():
            self.module(*call.args, **call.kwargs)
        rows, q = call.shape or (0, 0)
        values = {}
        for name in self._captured:
            kept = self._taps[name].kept
            assert kept is not None
            values[name] = kept[:rows, :q].clone()
        tokens, mask = (call.tokens.ids, call.tokens.mask) if call.tokens is not None else (None, None)
        return Activations(values, tokens, mask, self.model)

    def remove(self) -> None:
        """Take the taps out. The compiled network keeps its code, so it is not to be called any more."""
        while self._handles:
            self._handles.pop().remove()

    def __repr__(self) -> str:
        return f"Compiled({self.model.name!r}, taps at {', '.join(self._taps)}; {len(self._plan)} edits in force)"


def compiled(
    model: Model,
    sites: str | Sequence[str] = (),
    *,
    capture: str | Sequence[str] = (),
    rows: int = 1,
    tokens: int | None = None,
    slots: int = 1,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    dynamic: bool | None = None,
) -> Compiled:
    """The network compiled by `torch.compile`, with taps whose edits and copies stay live: changing them compiles nothing anew.

    Args:
        model: The network.
        sites: Where edits may be put later with `.set([iv.Add(...)])`: Add, ProjectOut, Scale and Cap.
        capture: Sites whose activations `.capture(inputs)` gives.
        rows: Most rows of a forward.
        tokens: Most tokens of a row; the network's context when None.
        slots: Most edits at one site; a ProjectOut of several directions takes one for each.
        backend: As `torch.compile` takes it.
        mode: As `torch.compile` takes it.
        dynamic: As `torch.compile` takes it.
    Raises:
        EditError: A site cannot be edited, or the network is compiled already.
        CaptureError: No site is given, or the size of one is unknown.
    """
    edited, copied = (wanted_sites(model, names) if names else [] for names in (sites, capture))
    width = tokens or model.context
    if not edited and not copied:
        raise CaptureError("no site to put taps at; name at least one, such as 'blocks.3.resid'")
    if width is None:
        raise CaptureError(f"how many tokens a row of {model.name} may have is unknown; give tokens=")
    for site in [*edited, *copied]:
        _check(model, site, is_edited=site in edited)
    taps: dict[str, Tap] = {}
    handles: list[Any] = []
    for site in dict.fromkeys([*edited, *copied]):
        tap: Any = _tap(model, site, (rows, width), slots if site in edited else 0, is_copied=site in copied)
        module, is_input = model.module.get_submodule(site.module), site.side == "input"
        handles.append(module.register_forward_pre_hook(tap) if is_input else module.register_forward_hook(tap))
        taps[site.name] = tap
    made = torch.compile(model.module, backend=backend, mode=mode, dynamic=dynamic)
    return Compiled(model, taps, handles, made, [site.name for site in copied])


def _tap(model: Model, site: Site, size: tuple[int, int], slots: int, *, is_copied: bool) -> Tap:
    """The tap of a site, its tensors where the site's module has its weights."""
    near = next(model.module.get_submodule(site.module).parameters(), next(model.module.parameters()))
    tap = Tap.at(site, near.detach(), size, slots, is_copied=is_copied)
    for tensor in tap.tensors:
        # Their contents change between calls and their places never do, which is what replayed graphs rely on.
        torch._dynamo.mark_static_address(tensor)
    return tap


def _check(model: Model, site: Site, *, is_edited: bool) -> None:
    if site.side not in ("input", "output") or site.pos_axis != 1 or site.sizes is None or site.is_flat:
        raise CaptureError(
            f"a tap at {site.name!r} needs to know its size and stand at a module's input or output; choose one of model.sites() that does"
        )
    if is_edited and not site.is_editable:
        raise EditError(f"a change at {site.name!r} would not reach all that reads it; edit {site.instead!r} instead")
    refuse_compiled(model.module, site.module)
