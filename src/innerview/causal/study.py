"""The forwards of a patching study: both sides once, then every patch with every pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerview.activations import Activations
from innerview.causal.pairs import Pairs
from innerview.edits import Context, Edit
from innerview.errors import EditError, PatchError
from innerview.metrics import Ledger, Measure
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.outcomes import Outcome, Prompts
from innerview.progress import progress as bar

Way = Literal["denoise", "noise"]
WAYS = ("denoise", "noise")
# Below this share of the metric, the gap between clean and corrupt is rounding, and dividing by it magnifies that.
TINY = 1e-5


def share_of_way(patched: Tensor, clean: Tensor, corrupt: Tensor, direction: Way) -> Tensor:
    """Share of the way from the base's metric to the source's: (patched − corrupt) / (clean − corrupt) where clean is put into corrupt."""
    source, base = (clean, corrupt) if direction == "denoise" else (corrupt, clean)
    return (patched - base) / (source - base)


def sites_of(model: Model, names: str | Sequence[str]) -> list[Site]:
    """The sites that names stand for, each once."""
    found: dict[str, Site] = {}
    for name in [names] if isinstance(names, str) else list(names):
        for site in model.expand(name):
            found.setdefault(site.name, site)
    return list(found.values())


@dataclass(frozen=True, eq=False)
class PutIn(Edit):
    """Put given values in at chosen tokens, and heads, of each row.

    Attributes:
        value: Shape [rows, ...], as the site has it.
        chosen: True where the value is put in, shape [rows], or [rows, ...] with an axis of one for each axis of the site that does
            not matter.
    """

    value: Tensor
    chosen: Bool[Tensor, "..."]

    def apply(self, x: Tensor, share: Tensor | None = None, context: Context | None = None) -> Tensor:
        if x.shape != self.value.shape:
            raise EditError(
                f"{self.site!r} is {list(x.shape)} in the patched forward, and {list(self.value.shape)} was to be put in; "
                "patch a site with a row for each prompt"
            )
        chosen = self.chosen.view(*self.chosen.shape, *(1,) * (x.ndim - self.chosen.ndim)).to(x.device)
        return torch.where(chosen, self.value.to(x.device, x.dtype), x)

    @property
    def label(self) -> str:
        return f"values of the other prompt at {self.site}"


@dataclass(frozen=True, eq=False)
class Cell:
    """One patch: where activations of the other side are put in.

    Attributes:
        sites: Names of the sites.
        positions: Tokens of each pair; None for all.
        head: One head, at sites with heads; None for all.
    """

    sites: tuple[str, ...]
    positions: list[tuple[int, ...]] | None = None
    head: int | None = None


class Study:
    """The forwards of a patching study: both sides once, then every cell with every pair."""

    def __init__(self, pairs: Pairs, measure: Measure, direction: Way, batch_size: int) -> None:
        if direction not in WAYS:
            raise PatchError(f"no direction {direction!r} of patching; it is one of {', '.join(WAYS)}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise PatchError(f"batch_size is a number of rows from 1, not {batch_size!r}")
        self.pairs = pairs
        self.measure = measure
        self.direction: Way = direction
        self.batch_size = batch_size
        self.model = pairs.clean.model
        self.source, self.base = (
            (pairs.clean, pairs.corrupt) if direction == "denoise" else (pairs.corrupt, pairs.clean)
        )

    def ledger(self, cells: int) -> Ledger:
        """An empty ledger of so many cells."""
        return Ledger(self.measure, cells, len(self.pairs))

    def measure_sides(self) -> None:
        """Run clean and corrupt, and refuse a metric that does not tell them apart.

        Raises:
            PatchError: Of a pair, or of their mean, the two are the same but for rounding.
        """
        self.clean, self.corrupt = (self.side(prompts) for prompts in (self.pairs.clean, self.pairs.corrupt))
        for pair, (clean, corrupt) in enumerate(zip(self.clean.tolist(), self.corrupt.tolist(), strict=True)):
            _check_gap(clean, corrupt, f"pair {pair}", self.measure.label)
        _check_gap(float(self.clean.mean()), float(self.corrupt.mean()), "the mean of the pairs", self.measure.label)

    def side(self, prompts: Prompts) -> Float[Tensor, "pair"]:
        """The metric of one side's prompts."""
        ledger = self.ledger(1)
        for rows in self._parts(range(len(prompts))):
            ledger.take(0, Outcome.of(prompts, prompts.run(rows, (*self.measure.sites, prompts.output)), rows))
        return ledger.values[0]

    def put_in(self, cells: Sequence[Cell], ledger: Ledger, progress: bool) -> bool:
        """Measure every cell; False when an interrupt came first, but not before something was measured."""
        count = len(self.pairs)
        rows = [(cell, pair) for cell in range(len(cells)) for pair in range(count)]
        with bar(len(rows), "patch", "row", delay_s=1.0, is_shown=progress) as done:
            try:
                values = self._values([name for cell in cells for name in cell.sites])
                for part in self._parts(rows):
                    self._some(cells, part, values, ledger)
                    done(len(part))
            except KeyboardInterrupt:
                ledger.close()
                if bool(ledger.values.isnan().all()):
                    raise
                return False
        return True

    def _parts(self, rows: Sequence[Any]) -> list[Sequence[Any]]:
        return [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]

    def _values(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What the source has at the sites, shape [pair, ...], its tokens padded right with zeros."""
        sites = list(dict.fromkeys(names))
        if not sites:
            return {}
        parts = [(rows, self.source.run(rows, sites)) for rows in self._parts(range(len(self.pairs)))]
        found = {}
        for name in sites:
            pieces = [acts[name] for _, acts in parts]
            for (rows, _), piece in zip(parts, pieces, strict=True):
                if piece.ndim < 1 or piece.shape[0] != len(rows):
                    raise PatchError(
                        f"{name!r} is {list(piece.shape)} for {len(rows)} prompts: it has no row for each; patch another site"
                    )
            found[name] = pieces[0] if len(pieces) == 1 else torch.cat(_of_one_shape(pieces))
        return found

    def _some(
        self, cells: Sequence[Cell], part: Sequence[tuple[int, int]], values: dict[str, Tensor], ledger: Ledger
    ) -> None:
        """One forward: some cells' pairs as rows."""
        acts = self._patched(cells, part, values)
        since = 0
        while since < len(part):
            cell = part[since][0]
            rows = [pair for other, pair in part[since:] if other == cell]
            ledger.take(cell, Outcome.of(self.base, acts, rows, since))
            since += len(rows)

    def _patched(
        self, cells: Sequence[Cell], part: Sequence[tuple[int, int]], values: dict[str, Tensor]
    ) -> Activations:
        pairs = [pair for _, pair in part]
        width = max(self.base.length(pair) for pair in pairs)
        wanted = list(dict.fromkeys(name for cell, _ in part for name in cells[cell].sites))
        edits = [self._edit(name, cells, part, values[name], width) for name in wanted]
        return self.base.run(pairs, (*self.measure.sites, self.base.output), edits)

    def answers(self, cell: Cell, pair: int) -> list[tuple[Tensor, bool]]:
        """What the network says of one pair: clean, corrupt and patched, each with whether it is logits behind a token."""
        found = []
        for prompts in (self.pairs.clean, self.pairs.corrupt):
            outcome = Outcome.of(prompts, prompts.run([pair], [prompts.output]), [pair])
            found.append((outcome.logits[0], outcome.has_tokens))
        acts = self._patched([cell], [(0, pair)], self._values(cell.sites))
        outcome = Outcome.of(self.base, acts, [pair])
        return [*found, (outcome.logits[0], outcome.has_tokens)]

    def _edit(
        self, name: str, cells: Sequence[Cell], part: Sequence[tuple[int, int]], value: Tensor, width: int
    ) -> PutIn:
        site = self.model.site(name)
        put = value[[pair for _, pair in part]]
        # What the longest pair of all has more than the longest of this forward is padding, on the right.
        spare = max(self.pairs.lengths()) - width
        for axis in token_axes(site):
            if axis < put.ndim and put.shape[axis] > spare:
                put = put.narrow(axis, 0, put.shape[axis] - spare)
        return PutIn(value=put, chosen=_chosen(site, cells, part, put, width), site=name)


def token_axes(site: Site) -> tuple[int, ...]:
    """Which axes of a site go along the tokens: `pos`, and `key` of attention patterns."""
    return tuple(i for i, axis in enumerate(site.axes) if axis in ("pos", "key")) or (1,)


def head_axis(site: Site) -> int | None:
    """Which axis of a site its heads are; None without."""
    return next((i for i, axis in enumerate(site.axes) if axis in ("head", "kv_head")), None)


def _chosen(site: Site, cells: Sequence[Cell], part: Sequence[tuple[int, int]], put: Tensor, width: int) -> Tensor:
    """Where each row of a forward is patched, with axes of one where the site's axis does not matter."""
    pos, head = token_axes(site)[0], head_axis(site)
    needs_pos = any(cells[cell].positions is not None for cell, _ in part)
    needs_head = any(cells[cell].head is not None for cell, _ in part)
    # Prompt positions of the network's own stand before the tokens.
    before = put.shape[pos] - width if put.ndim > pos and "pos" in site.axes else 0
    if needs_pos and (put.ndim <= pos or before < 0 or put.shape[pos] != before + width):
        raise PatchError(
            f"{site.name!r} is {list(put.shape)}, without an axis of {width} tokens; drop positions, or patch another site"
        )
    shape = [1] * put.ndim
    shape[0] = len(part)
    if needs_pos:
        shape[pos] = before + width
    if needs_head and head is not None:
        shape[head] = put.shape[head]
    chosen = torch.zeros(shape, dtype=torch.bool)
    for row, (cell, pair) in enumerate(part):
        one = cells[cell]
        if site.name not in one.sites:
            continue
        index: list[Any] = [row, *(slice(None),) * (put.ndim - 1)]
        if needs_pos and one.positions is not None:
            index[pos] = [before + place for place in one.positions[pair]]
        if one.head is not None and head is not None:
            index[head] = one.head
        chosen[tuple(index)] = True
    return chosen


def _of_one_shape(pieces: list[Tensor]) -> list[Tensor]:
    """The same, with zeros behind where an axis is shorter than another piece's."""
    if len({piece.ndim for piece in pieces}) > 1:
        raise PatchError(
            f"one site has the shapes {sorted({tuple(p.shape[1:]) for p in pieces})}; patch prompts of one length"
        )
    sizes = [max(piece.shape[axis] for piece in pieces) for axis in range(1, pieces[0].ndim)]
    made = []
    for piece in pieces:
        whole = piece.new_zeros((piece.shape[0], *sizes))
        whole[tuple(slice(size) for size in piece.shape)] = piece
        made.append(whole)
    return made


def _check_gap(clean: float, corrupt: float, of: str, metric: str) -> None:
    gap, size = abs(clean - corrupt), max(abs(clean), abs(corrupt))
    if gap <= TINY * size:
        raise PatchError(
            f"the metric {metric!r} does not tell clean from corrupt in {of}: clean {clean + 0.0:.6g}, corrupt {corrupt + 0.0:.6g}; an effect would be "
            "a division by rounding, so give prompts that differ in it, or another metric"
        )
