"""Taps of compiled networks: edits whose every number is data, so that other edits compile nothing anew."""

import math
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from innerview.edits import Add, Cap, Edit, ProjectOut, Scale, SetFeatures
from innerview.edits.set_features import Readings
from innerview.edits.shapes import wide
from innerview.errors import EditError
from innerview.models.site import Site


class Law(NamedTuple):
    """What becomes of an activation `x` with the reading `p = x·r + bias`:
    `whole × x + (plain + times × p + capped × (p held in [low, high] − p) + active × (p above the threshold, else 0)) v`.
    """

    plain: float = 0.0
    times: float = 0.0
    capped: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    whole: float = 1.0
    bias: float = 0.0
    active: float = 0.0
    threshold: float = -math.inf


class Slot(NamedTuple):
    """A law and its vectors; `vector` is `v`, and `reader` is `r`, the same where None."""

    law: Law
    vector: Tensor | None = None
    reader: Tensor | None = None


def slots_of(edit: Edit, width: int, dtype: torch.dtype) -> list[Slot]:
    """Laws that do together what an edit does, one behind the other.

    Args:
        edit: An Add, ProjectOut, Scale or Cap, or one feature that is set.
        width: Size of an activation.
        dtype: The activations' number format.
    Raises:
        EditError: It is another edit, or reads single heads.
    """
    if type(edit) is Add and isinstance(edit.coefficient, float):
        vector = edit.direction.vector.double()
        # A direction as wide as a head is added to each.
        delta = (vector * edit.direction.length(edit.coefficient, edit.unit)).repeat(width // vector.numel())
        return [Slot(Law(plain=1.0), delta.to(dtype))]
    if edit.width not in (None, width):
        raise EditError(
            f"{edit.label} reads each head by itself, which a compiled network cannot; use iv.editing on the network that is not compiled"
        )
    if type(edit) is ProjectOut:
        return [Slot(Law(times=-1.0), vector) for vector in edit.basis()]
    if type(edit) is Scale:
        if edit.direction is None:
            return [Slot(Law(whole=edit.factor))]
        return [Slot(Law(times=edit.factor - 1), edit.direction.vector)]
    if type(edit) is Cap:
        low, high = edit.limits()
        law = Law(capped=1.0, low=-math.inf if low is None else low, high=math.inf if high is None else high)
        return [Slot(law, edit.direction.vector)]
    if type(edit) is SetFeatures and (found := _feature_slot(edit)) is not None:
        return [found]
    raise EditError(
        f"a compiled network takes Add at one strength, ProjectOut, Scale, Cap, and one feature that is set where it is read and competes with "
        f"none, not {edit.label}; use iv.editing on the network that is not compiled"
    )


def _feature_slot(edit: SetFeatures) -> Slot | None:
    """The law of one feature that is set; None where it takes more than one reading at the site."""
    if not isinstance(edit.reader, Readings) or len(edit.reader.readings) != 1:
        return None
    (reading,), factor = edit.reader.readings, edit.reader.factor
    if reading.gate is not None or reading.site != edit.site:
        return None
    law = Law(
        plain=edit.change.offset[0] * factor, bias=reading.bias, active=(edit.change.gain[0] - 1.0) * factor / reading.scale,
        threshold=-math.inf if reading.threshold is None else reading.threshold,
    )  # fmt: skip
    return Slot(law, edit.rows[0], reading.vector)


class Lease:
    """Whose forward the data of taps is for, while it is one job's own.

    Attributes:
        is_out: Whether what the taps hold is one job's, and no longer everybody's.
        thread: The thread whose forward passes now; None between forwards.
    """

    def __init__(self) -> None:
        self.is_out = False
        self.thread: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether a forward of this thread sees what the taps hold."""
        return not self.is_out or self.thread == threading.get_ident()

    def __deepcopy__(self, memo: dict) -> "Lease":
        return Lease()


class Tap:
    """What stands at one site: laws in slots, and a copy of what leaves. All of it reads and writes tensors that stay where they are.

    Attributes:
        strength: How much of each slot's change each token gets, shape [rows, tokens, slots].
        vectors: What the slots write, shape [slots, width].
        readers: What the slots read by, shape [slots, width].
        laws: The slots' laws, shape [slots, 9].
        kept: Where the activation is copied to, shape [rows, tokens, ...]; None where nothing is captured.
        dtype: The activations' number format.
        lease: Whose forward the data is for, one for all taps of a network.
        rest: What everybody's forwards read while the lease is out; None where they are to change nothing.
    """

    def __init__(
        self, site: Site, size: tuple[int, int, int], flat: Tensor, kept: Tensor | None, dtype: torch.dtype, lease: Lease
    ) -> None:  # fmt: skip
        self.site = site
        self.kept = kept
        self.dtype = dtype
        self.lease = lease
        self.rest: Tensor | None = None
        self._size = size
        # All in one, and behind it a count of the forwards of compiled code, which that code writes itself: code that takes weights
        # along as they are takes along whatever it does not write.
        self.flat = flat
        self.strength, self.vectors, self.readers, self.laws = self._parts(flat)

    @classmethod
    def at(cls, site: Site, near: Tensor, size: tuple[int, int], slots: int, *, is_copied: bool, lease: Lease) -> "Tap":
        """The tap of a site, its tensors beside `near`."""
        assert site.sizes is not None
        numbers = slots * (math.prod(size) + 2 * math.prod(site.sizes) + len(Law._fields)) + 1
        # Half precision loses the small projection of a large activation.
        flat = wide(near.new_zeros(0)).new_zeros(numbers)
        kept = near.new_zeros(*size, *site.sizes) if is_copied else None
        return (InputTap if site.side == "input" else OutputTap)(site, (*size, slots), flat, kept, near.dtype, lease)

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Strength, vectors, readers and laws, as parts of one tensor."""
        rows, tokens, slots = self._size
        assert self.site.sizes is not None
        width = math.prod(self.site.sizes)
        among, each = rows * tokens * slots, width * slots
        strength, vectors, readers, laws, _ = flat.split([among, each, each, len(Law._fields) * slots, 1])
        return (
            strength.view(rows, tokens, slots),
            vectors.view(slots, width),
            readers.view(slots, width),
            laws.view(slots, len(Law._fields)),
        )

    @property
    def slots(self) -> int:
        """How many laws fit."""
        return self._size[2]

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that the compiled code reads and writes."""
        return [self.flat, *([] if self.kept is None else [self.kept])]

    def clear(self) -> None:
        """Empty every slot."""
        self.strength.zero_()
        self.vectors.zero_()
        self.readers.zero_()
        self.laws.zero_()

    def put(self, number: int, slot: Slot) -> None:
        """Fill a slot; it acts where its strength is not 0."""
        if slot.vector is not None:
            self.vectors[number] = slot.vector.to(self.vectors)
            self.readers[number] = (slot.vector if slot.reader is None else slot.reader).to(self.readers)
        self.laws[number] = torch.tensor(slot.law).to(self.laws)

    def passed(self, value: Any) -> Any:
        """What leaves the site, of what arrives there."""
        x = self.site.read(value)
        is_compiled = torch.compiler.is_compiling()
        is_mine = is_compiled or self.lease.is_mine
        flat = self.flat if is_mine else self.rest
        if self.slots and flat is not None:
            x = self._changed(x, *self._parts(flat))
            value = self.site.write(value, x)
            if is_compiled:
                flat[-1:].add_(1.0)
        if self.kept is not None and is_mine:
            self.kept[: x.shape[0], : x.shape[1]].copy_(x.detach())
        return value

    def _changed(self, x: Tensor, strength: Tensor, vectors: Tensor, readers: Tensor, laws: Tensor) -> Tensor:
        new = wide(x).flatten(2)
        for slot in range(self.slots):
            share = strength[: x.shape[0], : x.shape[1], slot, None]
            new = _obeyed(new, share, vectors[slot], readers[slot], laws[slot])
        return new.to(x.dtype).view(x.shape)

    def __deepcopy__(self, memo: dict) -> "Tap":
        # A copy of the network is a network of its own, with data of its own.
        kept = None if self.kept is None else self.kept.clone()
        return type(self)(self.site, self._size, self.flat.clone(), kept, self.dtype, Lease())


def _obeyed(x: Tensor, share: Tensor, vector: Tensor, reader: Tensor, law: Tensor) -> Tensor:
    """Activations under one law, shape [rows, tokens, width]; where the share is 0, as they were to the last bit."""
    plain, times, capped, low, high, whole, bias, active, threshold = law.unbind()
    p = (x * reader).sum(dim=-1, keepdim=True) + bias
    held = torch.minimum(torch.maximum(p, low), high)
    # An addition reads nothing: the infinite projection of an infinite activation must not spread.
    read = torch.where((times != 0) | (capped != 0), times * p + capped * (held - p), 0.0)
    read = read + torch.where((active != 0) & (p > threshold), active * p, 0.0)
    factor = torch.where(share == 1, whole, 1 + share * (whole - 1))
    return torch.where(share != 0, x * factor + share * (plain + read) * vector, x)


class OutputTap(Tap):
    """A tap at a module's output."""

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.passed(output)


class InputTap(Tap):
    """A tap at a module's input."""

    def __call__(self, module: nn.Module, args: tuple) -> Any:
        return (self.passed(args[0]), *args[1:])
