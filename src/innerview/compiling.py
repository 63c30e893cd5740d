"""Compiled networks whose edits and captures stay live: taps put in before compiling, with what they add as data."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.config
import torch._inductor.config

from innerview.activations import Activations
from innerview.chosen import wanted_sites
from innerview.edits import Edit
from innerview.errors import CaptureError, EditError
from innerview.hooks import refuse_compiled
from innerview.inputs import Call
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.models.stepping import Caches
from innerview.runs import EMPTY, Forward, Plan
from innerview.tap_sets import TapSet
from innerview.taps import Lease, Tap

# Shapes of single tokens that code is compiled for, of all networks together: torch's own limit is 8, behind which it computes uncompiled.
SHAPES = 1024


class Compiled:
    """A network compiled with taps at chosen sites. Made by `compiled`.

    Attributes:
        model: The network, as it was opened; its own forwards are edited alike, and can be captured as ever.
        module: The compiled network, called with the network's own inputs.
        taps: The taps that were put in.
        captured: Sites that are copied.
        plan: The edits in force, by their points.
    """

    def __init__(
        self, model: Model, taps: TapSet, handles: list[Any], captured: list[str], *,
        backend: str | Callable[..., Any], mode: str | None, dynamic: bool | None, freezes: bool = False,
    ) -> None:  # fmt: skip
        self.model = model
        self.module: Any = torch.compile(model.module, backend=backend, mode=mode, dynamic=dynamic)
        # Single tokens come in one shape only, whatever the prompts were.
        self._step: Any = torch.compile(model.module, backend=backend, mode=mode, dynamic=False)
        self._freezes = freezes
        self._weights: list[Any] | None = None
        self.taps = taps
        self.captured = captured
        self.plan = EMPTY
        self.caches = Caches(model.module)
        # Rows and columns of the caches that single tokens were compiled for.
        self.built: set[tuple[int, int]] = set()
        self._handles = handles

    def set(self, edits: Any) -> None:
        """Put other edits in force, in place of those before: data changes, the compiled code stays. An empty list takes them off.

        Raises:
            EditError: An edit is none that taps take, or stands where no tap was put in; or there are more at one site
                than slots.
        """
        plan = Plan.of(self.model, edits)
        load = self.taps.read(plan)
        with self.model.lock:
            self.taps.take_back()
            self.taps.share(load)
            self.plan = plan

    def step(self, **given: Any) -> Any:
        """What the compiled network returns for single tokens.

        Args:
            given: The network's own arguments.
        """
        with torch._dynamo.config.patch(recompile_limit=SHAPES, accumulated_recompile_limit=SHAPES):
            if not self._freezes:
                return self._step(**given)
            with torch._inductor.config.patch(freezing=True):
                return self._step(**given)

    def check_weights(self) -> None:
        """Refuse weights that are not those in the code.

        Raises:
            EditError: They have changed since.
        """
        if not self._freezes:
            return
        root = self.model.module
        now = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in (*root.parameters(), *root.buffers())]
        if self._weights is None:
            self._weights = now
        if self._weights != now:
            raise EditError(
                f"the weights of {self.model.name} have changed since freeze=True made them part of the code; "
                "call torch._dynamo.reset(), and iv.compiled again"
            )

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force."""
        return self.taps.shared.edits

    def __call__(self, inputs: Any) -> Any:
        """What the compiled network returns.

        Args:
            inputs: As `capture` takes them: a text, a list of texts, ids, or the module's own arguments as a mapping.
        Raises:
            CaptureError: There are more rows or tokens than the taps were made for.
        """
        call = Call.of(self.model, inputs)
        with self.model.lock:
            self._locate(call)
            return self.module(*call.args, **call.kwargs)

    def _locate(self, call: Call) -> None:
        """Put the tokens of this call into the taps' data."""
        shape = self.taps.check_size(call.shape)
        self.taps.take_back()
        if self.taps.shared.parts:
            ids = None if call.tokens is None else call.tokens.ids
            self.taps.locate(self.taps.shared, Forward(call.rows(), shape, 0, self.taps.device, ids=ids))

    def capture(self, inputs: Any) -> Activations:
        """Activations at the sites that were compiled in to be captured, behind the edits there. The compiled network runs whole.

        Raises:
            CaptureError: No site was asked for when the network was compiled.
        """
        if not self.captured:
            raise CaptureError("no site is copied in this compiled network; compile it with capture=['blocks.3.resid']")
        call = Call.of(self.model, inputs)
        with self.model.lock:
            self._locate(call)
            with torch.no_grad():
                self.module(*call.args, **call.kwargs)
            values = {name: self.taps.kept(name, call.shape or (0, 0)).clone() for name in self.captured}
        tokens, mask = (call.tokens.ids, call.tokens.mask) if call.tokens is not None else (None, None)
        return Activations(values, tokens, mask, self.model)

    def remove(self) -> None:
        """Take the taps out. The compiled network keeps its code, so it is not to be called any more."""
        while self._handles:
            self._handles.pop().remove()

    def __repr__(self) -> str:
        return f"Compiled({self.model.name!r}, taps at {', '.join(self.taps.taps)}; {len(self.taps.shared.parts)} edits in force)"


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
    freeze: bool = False,
) -> Compiled:
    """The network compiled by `torch.compile`, with taps whose edits and copies stay live: changing them compiles nothing anew.

    Args:
        model: The network.
        sites: Where edits may be put later with `.set([iv.Add(...)])` or `iv.generate(live, ..., edits=...)`: Add, ProjectOut, Scale,
            Cap, and `clamp`, `scale` and `ablate` of one feature of a dictionary whose features do not compete.
        capture: Sites whose activations `.capture(inputs)` gives.
        rows: Most rows of a forward.
        tokens: Most tokens of a row; the network's context when None.
        slots: Most edits at one site; a ProjectOut of several directions takes one for each.
        backend: As `torch.compile` takes it.
        mode: As `torch.compile` takes it.
        dynamic: As `torch.compile` takes it.
        freeze: Make the weights part of the code that `iv.generate` decodes by: on a CPU several rows take half the time then. They take
            as much memory again, and must not change any more.
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
    lease = Lease()
    handles: list[Any] = []
    for site in dict.fromkeys([*edited, *copied]):
        tap: Any = _tap(model, site, (rows, width), slots if site in edited else 0, lease, is_copied=site in copied)
        module, is_input = model.module.get_submodule(site.module), site.side == "input"
        handles.append(module.register_forward_pre_hook(tap) if is_input else module.register_forward_hook(tap))
        taps[site.name] = tap
    captured = [site.name for site in copied]
    return Compiled(
        model, TapSet(taps, lease), handles, captured, backend=backend, mode=mode, dynamic=dynamic, freezes=freeze
    )


def _tap(model: Model, site: Site, size: tuple[int, int], slots: int, lease: Lease, *, is_copied: bool) -> Tap:
    """The tap of a site, its tensors where the site's module has its weights."""
    near = next(model.module.get_submodule(site.module).parameters(), next(model.module.parameters()))
    tap = Tap.at(site, near.detach(), size, slots, is_copied=is_copied, lease=lease)
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
