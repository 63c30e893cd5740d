"""Plans: edits by the point at which a hook applies them, and the readings that their conditions need."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from innerview.edits import Edit, checked
from innerview.errors import EditError
from innerview.models.model import Model
from innerview.models.site import Point, Site
from innerview.readings import OverPrompt, Reading
from innerview.where import Where
from innerview.where.spans import Reader

# The order in which the parts of a block run, where it is the same in every network: (group, place in it).
_PLACES = {
    name: place
    for place, names in enumerate(
        (
            ("resid_in",), ("attn.in",), ("attn.q", "attn.k", "attn.v"), ("attn.scores",), ("attn.pattern",), ("attn.heads",),
            ("attn.result",), ("attn.out",),
        )
    )
    for name in names
}  # fmt: skip
_PLACES_BEHIND = {"mlp.in": 0, "mlp.gate": 1, "mlp.pre": 1, "mlp.hidden": 2, "mlp.out": 3, "resid": 4}


@dataclass(frozen=True, eq=False)
class Read:
    """A reading that a condition needs, and the site that it is read at."""

    reading: Reading
    site: Site
    is_over_prompt: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """A site whose activations an edit at another one needs."""

    site: Site


@dataclass(frozen=True, eq=False)
class Planned:
    """An edit at one site. `since` and `until` bound the columns it covers, for runs that recompute old tokens.

    `reader` knows the network's tokenizer, where texts are asked for; `reads` are what the edit's condition needs; `slot` tells edits at
    one point apart; `sources` are the sites that the edit itself reads.
    """

    edit: Edit
    site: Site
    since: int = 0
    until: int | None = None
    reader: Reader | None = None
    reads: tuple[Read, ...] = ()
    slot: int = 0
    sources: tuple[Site, ...] = ()
    is_plain: bool = field(init=False, default=False)
    key: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        where = self.edit.where
        is_plain = where.is_everywhere and where.schedule is None and where.condition is None
        object.__setattr__(self, "is_plain", is_plain and self.since == 0 and self.until is None)
        # Hashed once: a Where has many fields, and is asked about at every token.
        object.__setattr__(self, "key", _Key((where, self.since, self.until)))

    @classmethod
    def of(cls, model: Model, edit: Edit, site: Site) -> "Planned":
        """An edit at one of its sites.

        Raises:
            EditError: The edit, or its condition, does not fit.
        """
        _check_fit(edit, site)
        where = edit.where
        reader = Reader.of(model.tokenizer) if where.needs_reader else None
        if where.tokens is not None:
            where.token_ids(reader)
        return cls(edit, site, reader=reader, reads=reads_of(model, where, site), sources=sources_of(model, edit, site))


class _Key(tuple):
    """A tuple that is hashed once."""

    def __hash__(self) -> int:
        found = self.__dict__.get("hashed")
        if found is None:
            found = self.__dict__["hashed"] = super().__hash__()
        return found


@dataclass(frozen=True, eq=False)
class Plan:
    """Edits by the point at which a hook applies them, in their order, and what is read for their conditions at other points."""

    edits: tuple[Edit, ...]
    by_point: dict[Point, tuple[Planned, ...]]
    reads: dict[Point, tuple[Read | Source, ...]]

    @classmethod
    def of(cls, model: Model, edits: Any) -> "Plan":
        """The plan of some edits on a network.

        Raises:
            EditError: An edit does not fit its site.
        """
        listed = checked(edits)
        return cls.joined(
            listed, [Planned.of(model, edit, site) for edit in listed for site in model.expand(edit.site)]
        )

    @classmethod
    def joined(cls, edits: tuple[Edit, ...], planned: Iterable[Planned]) -> "Plan":
        """A plan of ready parts."""
        by_point: dict[Point, list[Planned]] = {}
        reads: dict[Point, dict[Any, Read | Source]] = {}
        for one in planned:
            at = by_point.setdefault(one.site.point, [])
            at.append(one if one.slot == len(at) else replace(one, slot=len(at)))
            for read in one.reads:
                if read.site.point != one.site.point:
                    asked = (read.reading, read.site.name, read.is_over_prompt)
                    reads.setdefault(read.site.point, {}).setdefault(asked, read)
            for source in one.sources:
                if source.point != one.site.point:
                    reads.setdefault(source.point, {}).setdefault(source.name, Source(source))
        return cls(
            edits,
            {point: tuple(parts) for point, parts in by_point.items()},
            {point: tuple(found.values()) for point, found in reads.items()},
        )

    def __add__(self, other: "Plan") -> "Plan":
        if not other.by_point:
            return self
        if not self.by_point:
            return other
        parts = [p for plan in (self, other) for planned in plan.by_point.values() for p in planned]
        return Plan.joined(self.edits + other.edits, parts)

    def between(self, since: int, until: int | None) -> list[Planned]:
        """The same edits, bounded to columns from `since` up to `until`."""
        bounded = []
        for planned in self.by_point.values():
            for p in planned:
                last = until if p.until is None else p.until
                bounded.append(replace(p, since=max(since, p.since), until=last))
        return bounded

    def for_rows(self, rows: Sequence[int], of: int) -> "Plan":
        """The plan for some rows of a job of `of` rows: what an edit says row by row goes with its rows."""
        made = {id(edit): edit.for_rows(rows, of) for edit in self.edits}
        if all(made[id(edit)] is edit for edit in self.edits):
            return self
        parts = [replace(p, edit=made[id(p.edit)]) for planned in self.by_point.values() for p in planned]
        return Plan.joined(tuple(made[id(edit)] for edit in self.edits), parts)

    @property
    def points(self) -> set[Point]:
        """Where hooks are needed."""
        return set(self.by_point) | set(self.reads)

    @property
    def over_prompt(self) -> set[Reading]:
        """Readings that are wanted over the prompt."""
        planned = [p for parts in self.by_point.values() for p in parts]
        return {read.reading for p in planned for read in p.reads if read.is_over_prompt}


EMPTY = Plan((), {}, {})


def _check_fit(edit: Edit, site: Site) -> None:
    """Refuse an edit that does not fit a site.

    Raises:
        EditError: The site cannot be edited, or the widths differ.
    """
    if not site.is_editable:
        raise EditError(f"a change at {site.name!r} would not reach all that reads it; edit {site.instead!r} instead")
    if edit.width is not None:
        check_width(edit.width, site)
    edit.check(site)


def check_width(width: int, site: Site) -> None:
    """Refuse a direction that does not fit a site of known sizes.

    Raises:
        EditError: The widths differ.
    """
    if site.sizes and width not in (site.sizes[-1], math.prod(site.sizes)):
        raise EditError(
            f"a direction {width} wide does not fit {site.name!r}, which is {site.shape}; find it at that site"
        )


def reads_of(model: Model, where: Where, edited: Site) -> tuple[Read, ...]:
    """What the condition of a Where needs to be read before a site.

    Raises:
        EditError: A reading does not fit its site, or its site comes behind the edited one.
    """
    if where.condition is None:
        return ()
    found = []
    for term in where.condition.terms:
        is_over = isinstance(term, OverPrompt)
        reading: Reading = term.reading if is_over else term
        site = model.site(reading.site)
        if site.is_eager:
            raise EditError(
                f"{site.name!r} is computed in a second forward only, so no condition can read it; read another site"
            )
        check_width(reading.vector.numel(), site)
        # What was read over the prompt is known when tokens are generated, wherever it was read.
        is_known = is_over and (where.scope == "generated" or where.steps is not None)
        if is_behind(site, edited) and not is_known:
            raise EditError(
                f"the condition on {reading.name!r} reads {site.name!r}, which comes behind {edited.name!r}, where the edit is; "
                "read at the edited site or before it"
            )
        found.append(Read(reading, site, is_over))
    return tuple(found)


def sources_of(model: Model, edit: Edit, edited: Site) -> tuple[Site, ...]:
    """The sites that an edit reads, for one of the sites that it changes.

    Raises:
        EditError: One has another width, or comes behind the edited one.
    """
    found = []
    for name, width in edit.sources:
        site = model.site(name)
        check_width(width, site)
        if site.is_eager:
            raise EditError(
                f"{site.name!r} is computed in a second forward only, so no edit can read it; read another site"
            )
        if is_behind(site, edited):
            raise EditError(
                f"{edit.label} reads {site.name!r}, which comes behind {edited.name!r}, where it writes; "
                f"read at the edited site or before it{edit.otherwise}"
            )
        found.append(site)
    return tuple(found)


def is_behind(site: Site, other: Site) -> bool:
    """Whether a site fires behind another in every network; False where that is not known."""
    if site.point == other.point:
        return False
    one, two = _depth(site), _depth(other)
    if one is None or two is None:
        return False
    if one != two or site.layer is None:
        return one > two
    return _is_behind_in_block(site.name.split(".", 2)[2], other.name.split(".", 2)[2])


def _depth(site: Site) -> float | None:
    """How deep a named site lies: the embedding, the blocks, the last norm, the head; None for module paths."""
    if site.layer is not None and site.name.startswith("blocks."):
        return site.layer
    return {"embed": -1.0, "final_norm": math.inf, "logits": math.inf}.get(site.name)


def _is_behind_in_block(name: str, other: str) -> bool:
    # Attention and feed-forward may run side by side, so their order is left to the forward itself.
    for places in (_PLACES, _PLACES_BEHIND):
        if name in places and other in places:
            return places[name] > places[other]
    return name == "resid" or other == "resid_in"
