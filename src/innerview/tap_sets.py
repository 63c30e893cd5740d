"""All taps of a compiled network: whose edits they hold, and the tokens that those change."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.edits import Edit
from innerview.errors import CaptureError, EditError
from innerview.plans import Plan, Planned
from innerview.runs import Forward
from innerview.taps import Lease, Slot, Tap, slots_of


@dataclass(frozen=True, eq=False)
class Load:
    """Edits as taps hold them: each with the numbers of its slots, and what is in them."""

    parts: tuple[tuple[Planned, range, list[Slot]], ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits, each once."""
        return tuple(dict.fromkeys(one.edit for one, _, _ in self.parts))


NOTHING = Load(())


class TapSet:
    """Taps by site. They hold everybody's edits, those of `.set`, or for a while those of one job.

    Attributes:
        taps: Taps by the names of their sites.
        shared: Everybody's edits.
        lease: Whose forward passes.
    """

    def __init__(self, taps: dict[str, Tap], lease: Lease) -> None:
        self.taps = taps
        self.shared = NOTHING
        self.lease = lease
        self._held = NOTHING
        # Slots whose strength is not 1 for every token.
        self._cut: set[tuple[str, int]] = set()

    @property
    def size(self) -> tuple[int, int]:
        """Most rows of a forward, and most tokens of a row."""
        rows, tokens = next(iter(self.taps.values())).strength.shape[:2]
        return rows, tokens

    @property
    def device(self) -> torch.device:
        """Where the taps are."""
        return next(iter(self.taps.values())).strength.device

    def check_size(self, shape: tuple[int, int] | None) -> tuple[int, int]:
        """The rows and tokens of a forward, which the taps have room for.

        Raises:
            CaptureError: They have not.
        """
        if shape is None or any(n > most for n, most in zip(shape, self.size, strict=True)):
            raise CaptureError(
                f"these taps were made for {self.size[0]} rows of {self.size[1]} tokens, and the inputs have {list(shape or ())}; "
                "compile with rows= and tokens= as large as they come"
            )
        return shape

    # What is held.

    def read(self, plan: Plan) -> Load:
        """The edits of a plan as the taps hold them.

        Raises:
            EditError: An edit is none that taps take, or stands where no tap was put in; or there are more at one site
                than slots.
        """
        planned = [one for parts in plan.by_point.values() for one in parts]
        filled = [slots_of(self._checked(one), *self._shape(one)) for one in planned]
        return Load(tuple(zip(planned, self._slots(planned, [len(each) for each in filled]), filled, strict=True)))

    def _shape(self, one: Planned) -> tuple[int, torch.dtype]:
        tap = self.taps[one.site.name]
        return tap.vectors.shape[1], tap.dtype

    def _checked(self, one: Planned) -> Edit:
        edit, name = one.edit, one.site.name
        if edit.where.condition is not None or edit.heads is not None or edit.neurons is not None:
            raise EditError(
                f"a compiled network takes edits on no condition and on whole activations, not {edit.label}; "
                "use iv.editing on the network that is not compiled"
            )
        if name not in self.taps or not self.taps[name].slots:
            placed = ", ".join(key for key, tap in self.taps.items() if tap.slots)
            raise EditError(f"no tap was put in at {name!r} before compiling; edits may stand at {placed or 'no site'}")
        return edit

    def _slots(self, planned: list[Planned], needed: list[int]) -> list[range]:
        """Slots of each edit, in the edits' order."""
        filled, found = dict.fromkeys(self.taps, 0), []
        for one, count in zip(planned, needed, strict=True):
            name = one.site.name
            found.append(range(filled[name], filled[name] + count))
            filled[name] += count
        for name, count in filled.items():
            if count > self.taps[name].slots:
                raise EditError(
                    f"{self.taps[name].slots} edits fit at {name!r}, and these take {count} slots; compile with slots={count} or more"
                )
        return found

    def share(self, load: Load) -> None:
        """Hold edits for everybody, from now on."""
        self.shared = load
        self.hold(load)

    def hold(self, load: Load) -> None:
        """Hold these edits, those of before taken off; nothing is done where they are held already."""
        if load is self._held:
            return
        self._held = NOTHING
        for tap in self.taps.values():
            tap.clear()
        self._cut.clear()
        for one, among, slots in load.parts:
            tap = self.taps[one.site.name]
            for number, slot in zip(among, slots, strict=True):
                tap.put(number, slot)
            if one.is_plain:
                tap.strength[:, :, among.start : among.stop] = 1.0
        self._held = load

    def locate(self, load: Load, forward: Forward) -> None:
        """Put the tokens of a forward into the taps' data, for edits that they hold."""
        for one, among, _ in load.parts:
            mask, share = forward.mask(one), forward.share(one)
            key, strength = (
                (one.site.name, among.start),
                self.taps[one.site.name].strength[:, :, among.start : among.stop],
            )
            if one.is_plain and mask is None:
                # As it is already, all but always.
                if key in self._cut:
                    strength.fill_(1.0)
                    self._cut.discard(key)
                continue
            rows, q = forward.shape or (0, 0)
            amount = torch.ones((rows, q), device=self.device) if mask is None else mask.to(self.device, torch.float32)
            if share is not None:
                amount = amount * share
            strength[:rows, :q] = amount.to(strength)[..., None]
            self._cut.add(key)

    # Lending.

    def lend(self, load: Load, forward: Forward) -> None:
        """Hold a job's edits for one forward of this thread. Forwards of others see everybody's edits meanwhile."""
        if not self.lease.is_out:
            shared = self.shared.parts
            for tap in self.taps.values():
                tap.rest = tap.flat.clone() if shared else None
            self.lease.is_out = True
        self.hold(load)
        self.locate(load, forward)
        self.lease.thread = threading.get_ident()

    def pause(self) -> None:
        """The job's forward is over; its edits may stay until somebody else's are wanted."""
        self.lease.thread = None

    def take_back(self) -> None:
        """Hold everybody's edits again."""
        if self.lease.is_out:
            self.hold(self.shared)
            self.lease.is_out = False

    def kept(self, name: str, shape: tuple[int, int]) -> Tensor:
        """What was copied at a site in the last forward, shape [rows, tokens, ...]; the next forward writes over it."""
        held: Any = self.taps[name].kept
        return held[: shape[0], : shape[1]]
