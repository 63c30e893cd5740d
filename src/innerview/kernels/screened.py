"""Exact float32 codes on a CPU: a rough product with a bound that cannot lie, and what may pass computed again.

The rough product is of whole numbers (int8, whose sums are exact), of bfloat16, or float32's own. No matrix of tokens × features is
ever held: a tile of rough products is looked through while it is near the processor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerview.kernels import bounds, trust, work
from innerview.kernels.bounds import Kind, Rounded
from innerview.kernels.derived import derived
from innerview.kernels.machine_code import compiled, has_numba, shared
from innerview.kernels.path import Path, Task
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Sparse

# Tokens whose products are held at once, and numbers of a tile of them in one thread: 1 MiB.
ROWS = 512
TILE = 1 << 18
# Features that are worth a thread, and tokens, when the largest of what was listed are chosen.
COLUMNS, CHOSEN = 512, 4
# Share of the features that a guess at the k-th largest is made of, the fewest that are enough for one, and by how many standard deviations
# it is lower than the feature of the same share of k: one row of a thousand is done again.
SAMPLE, SAMPLE_LEAST, SAMPLE_LOWER = 16, 256, 3.0
# How many times the usual miss of a rough product a guess at the k-th allows for.
GUESS = 4.0
# A coordinate this many times as large in square as the middle one is kept in float32, and so many of them at most.
MASSIVE, MASSIVE_MOST = 64.0, 8
# Places of the lists of rows that are computed whole.
WHOLE_ROWS = 1 << 20
# Of a code: its token, its feature, its value.
CODE = (np.int32, np.int32, np.float32)


@dataclass
class Counted:
    """What the screen let through: candidates that were computed again in float32, and rows of which every feature was one."""

    candidates: int = 0
    active: int = 0
    rows: int = 0
    whole_rows: int = 0


def encode(encoder: Encoder, x: Tensor, kind: Kind, counted: Counted | None = None) -> Sparse:
    """Codes of prepared inputs on a CPU, float32 ones as float64 says them outside of its own rounding.

    Args:
        encoder: What encodes.
        x: Finite inputs, shape [tokens, d].
        kind: What the screening product is of.
        counted: Takes what the screen let through.
    """
    screen = Screen(encoder, kind, counted or Counted())
    massive = screen.massive_of(x)
    starts = list(range(0, max(len(x), 1), ROWS))
    parts = [screen.codes(x[start : start + ROWS], massive) for start in starts]
    found = Sparse.joined(parts, starts)
    screen.counted.rows += len(x)
    screen.counted.active += len(found)
    return found


@dataclass(eq=False)
class Screen:
    """One encoder's screen."""

    encoder: Encoder
    kind: Kind
    counted: Counted = field(default_factory=Counted)

    @cached_property
    def weight(self) -> Tensor:
        """The weight in float32."""
        own = self.encoder.weight
        if own.dtype == torch.float32 and own.is_contiguous():
            return own
        return derived(own, "rows", lambda one: one.float().contiguous())

    @cached_property
    def columns(self) -> Rounded:
        """The weight's rows, rounded."""
        if self.kind == "float32":
            # The numbers are the weight itself, which must not be kept beside itself.
            lengths = derived(self.encoder.weight, "lengths", lambda one: bounds.rounded(one.float(), "float32").length)
            return Rounded(self.weight, torch.ones(len(lengths)), lengths, torch.zeros_like(lengths))
        return derived(self.encoder.weight, self.kind, lambda one: bounds.rounded(one.float(), self.kind))

    @cached_property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """What the loops know of each feature: float32 [9, n_features], in the places that `loops` names, and its cut in float64."""
        return self._derived("", self._known)

    def _derived(self, name: str, make: Callable[[], Any]) -> Any:
        """What is made of the weight, its bias and its rule once, and kept beside the weight."""
        rule = self.encoder.rule
        own = tuple(one for one in (self.encoder.bias, *vars(rule).values()) if isinstance(one, Tensor))
        return derived(self.encoder.weight, f"{type(rule).__name__} by {self.kind}{name}", lambda _: make(), own)

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        columns, bias, cuts, rule = self.columns, self.encoder.bias.double(), self._cuts(), self.encoder.rule
        # Beyond the range that the bound was looked at for, a feature is always a candidate.
        length = torch.where(columns.is_in_range(), columns.length, torch.inf) * (1 + bounds.SLACK)
        residual, width = columns.residual * (1 + bounds.SLACK), columns.scale.double()
        cut = cuts - bias - bounds.SLACK * (bias.abs() + cuts.abs()) - bounds.LEAST
        offset = bias + bounds.SLACK * bias.abs() + bounds.LEAST
        is_behind = isinstance(rule, Behind)
        factor, shift = (rule.scale, rule.shift) if is_behind else (torch.ones_like(cuts), torch.zeros_like(cuts))
        rows = (length / width, residual / width, cut / width, width, offset, length, bias, factor, shift)
        return torch.stack([row.float() for row in rows]).numpy(), cuts.numpy()

    def _cuts(self) -> Tensor:
        """What a pre-activation must be above to be a code, float64, shape [n_features]."""
        match self.encoder.rule:
            case Behind(gate=gate, scale=scale, shift=shift):
                return torch.maximum(-gate.double(), -shift.double() / scale.double())
            case Above(threshold=Tensor() as threshold):
                return threshold.double().clamp(min=0.0)
            case _:
                return torch.zeros(self.encoder.n_features, dtype=torch.float64)

    @property
    def gamma(self) -> np.float32:
        """How far a float32 sum of d products, added in any order, may be off, as a share of the two lengths, with room."""
        return np.float32(1.5 * bounds.summing("float32", self.encoder.d + 6))

    def massive_of(self, x: Tensor) -> "Massive":
        """The few coordinates that are far larger than the others, found in some of the rows."""
        some = x[:: max(1, len(x) // ROWS)].float()
        energy = some.square().mean(dim=0) if len(some) else x.new_zeros(x.shape[1]).float()
        largest = energy.topk(min(MASSIVE_MOST, len(energy))).indices
        chosen = largest[energy[largest] > MASSIVE * energy.median()].sort().values
        if not len(chosen) or self.kind == "float32":
            chosen = chosen[:0]
        across = self.weight[:, chosen].T / self.columns.scale
        return Massive(chosen, across.contiguous())

    def codes(self, block: Tensor, massive: "Massive") -> Sparse:
        """Codes of a block of tokens."""
        rows = Rows.of(block, massive, self.kind, self.encoder.d)
        self.counted.whole_rows += int((~rows.fits).sum())
        if isinstance(self.encoder.rule, Largest) and self.encoder.rule.k < self.encoder.n_features:
            return self._largest(rows, self.encoder.rule.k, self._floors(rows))
        return self._above(rows)

    @property
    def whole(self) -> np.ndarray:
        """The weight's whole numbers, which a row's second numbers are multiplied by; of other kinds nothing."""
        return self.columns.numbers.numpy() if self.kind == "int8" else np.empty((self.encoder.n_features, 0), np.int8)

    def _width(self, rows: "Rows") -> int:
        """Features of a tile."""
        return max(TILE // ROWS, TILE // max(1, len(rows.numbers)))

    def _tiles(self, rows: "Rows", span: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """The rough products with a span of features, a tile at a time, with the first of its features."""
        first, behind = (int(edge) for edge in span)
        width = self._width(rows)
        for start in range(first, behind, width):
            columns = self.columns.numbers[start : min(start + width, behind)]
            yield _product(rows.numbers, columns, self.kind), start

    def _known_of(self, rows: "Rows") -> tuple[Any, ...]:
        """What both loops over tiles are told of rows and columns."""
        of_column, massive = self.known[0], (rows.massive_x, rows.massive_w)
        return (rows.of_row, of_column), (*massive, rows.x, self.weight.numpy(), rows.again, self.whole, self.gamma)

    def _above(self, rows: "Rows") -> Sparse:
        loops, cuts, (known, more) = compiled(), self.known[1], self._known_of(rows)
        kind = (self.kind == "bfloat16", np.float32(bounds.half(self.kind)))

        def look(span: np.ndarray) -> tuple[list[tuple[np.ndarray, ...]], int]:
            parts, passed, held = [], 0, 0
            size = len(rows.numbers) * min(self._width(rows), int(span[1] - span[0]))
            # Room for what is held and a whole tile more: parts that stayed between tiles would leave holes in memory.
            tokens, features, values = (np.empty(2 * size, one) for one in CODE)
            for rough, first in self._tiles(rows, span):
                room = (tokens[held:], features[held:], values[held:])
                found, candidates = loops.above(rough, *kind, *known, cuts, *more, first, *room)
                held += found
                passed += candidates
                if held > size:
                    parts.append((tokens[:held].copy(), features[:held].copy(), values[:held].copy()))
                    held = 0
            parts.append((tokens[:held].copy(), features[:held].copy(), values[:held].copy()))
            return parts, passed

        looked = shared(look, self.encoder.n_features, COLUMNS)
        self.counted.candidates += sum(passed for _, passed in looked)
        return self._ordered([part for parts, _ in looked for part in parts], len(rows.numbers))

    def _ordered(self, parts: list[tuple[np.ndarray, ...]], n_rows: int) -> Sparse:
        """Codes by token, of parts in which each token's features grow from part to part."""
        tokens, features, values = (
            np.concatenate(one) if parts else np.empty(0, np.int32) for one in zip(*parts, strict=True)
        )
        counts = np.bincount(tokens, minlength=n_rows)
        starts = np.cumsum(counts) - counts
        sorted_tokens, sorted_features = np.empty(len(tokens), np.int64), np.empty(len(tokens), np.int64)
        sorted_values = np.empty(len(tokens), np.float32)
        compiled().by_token(tokens, features, values, starts, sorted_tokens, sorted_features, sorted_values)
        return self._narrowed(sorted_tokens, sorted_features, sorted_values)

    def _narrowed(self, tokens: np.ndarray, features: np.ndarray, values: np.ndarray) -> Sparse:
        """Codes in the weight's own format; those that round to 0 are none."""
        found = Sparse(torch.from_numpy(tokens), torch.from_numpy(features), torch.from_numpy(values))
        if self.encoder.weight.dtype == torch.float32:
            return found
        narrow = found.values.to(self.encoder.weight.dtype)
        kept = narrow != 0
        return Sparse(found.tokens[kept], found.features[kept], narrow[kept])

    def _floors(self, rows: "Rows") -> np.ndarray:
        """A guess at the k-th largest pre-activation of each row by a sample of the features; where that is too few, none."""
        n, m, k = len(rows.numbers), self.encoder.n_features, getattr(self.encoder.rule, "k", 0)
        floors = np.full(n, -np.inf, np.float32)
        step = min(SAMPLE, m // SAMPLE_LEAST)
        size = -(-m // max(1, step))
        share = k * size / m
        rank = int(share + SAMPLE_LOWER * share**0.5) + 2
        if step < 2 or rank > size // 2:
            return floors
        columns = self._derived(", sampled numbers", lambda: self.columns.numbers[::step].contiguous())
        of_column = self._derived(", sample", lambda: np.ascontiguousarray(self.known[0][:, ::step]))
        massive_w = np.ascontiguousarray(rows.massive_w[:, ::step])

        def look(span: np.ndarray) -> None:
            some = slice(*span)
            rough = _product(rows.numbers[some], columns, self.kind)
            given = (np.ascontiguousarray(rows.of_row[:, some]), of_column, rows.massive_x[some], massive_w)
            compiled().guess(rough, self.kind == "bfloat16", *given, rank, floors[some])

        shared(look, n, CHOSEN)
        return floors

    def _largest(self, rows: "Rows", k: int, floors: np.ndarray, trial: int = 0) -> Sparse:
        """The k largest of each row; what is below `floors` is left out at first. A row whose guesses were wrong is tried again with safer ones."""
        n, m = len(rows.numbers), self.encoder.n_features
        # A rough product misses its bound by some root of d, if its leftovers point anywhere; by twice the bound never.
        usual = min(GUESS / self.encoder.d**0.5, 2.0)
        margin = (usual, usual, 2.0, np.inf)[trial]
        room = min(m, max(16 * k + 1024, m // 16)) if trial == 0 else m
        lists = shared(lambda span: self._listed(rows, k, room, floors, np.float32(margin), span), m, COLUMNS)
        full = np.logical_or.reduce([one.full for one in lists])
        known, more = self._known_of(rows)
        listed = [tuple(getattr(one, name) for one in lists) for name in ("floors", "counts", "listed", "mosts")]
        half = np.float32(bounds.half(self.kind))

        def choose(span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
            size = int(span[1] - span[0]) * k
            tokens, features, values = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
            given = (*listed, full, *known, *more[2:], tokens, features, values)
            found, candidates = compiled().choose_largest(span, k, np.float32(margin), half, *given)
            return tokens[:found], features[:found], values[:found], candidates

        *codes, candidates = zip(*shared(choose, n, CHOSEN), strict=True)
        self.counted.candidates += sum(candidates)
        found = self._narrowed(*(np.concatenate(one) for one in codes))
        if not full.any():
            return found
        # These rows again, a few at a time, at first without the sample's guess: too many lie too near to the k-th, or a guess was wrong.
        self.counted.whole_rows += int(full.sum())
        parts = [(torch.arange(n), found)]
        for again in torch.from_numpy(full.nonzero()[0]).split(max(1, WHOLE_ROWS // m)):
            few = Rows.of(rows.block[again], rows.massive, self.kind, self.encoder.d)
            parts.append((again, self._largest(few, k, np.full(len(again), -np.inf, np.float32), min(trial + 1, 3))))
        return _merged(parts)

    def _listed(
        self, rows: "Rows", k: int, room: int, floors: np.ndarray, margin: np.float32, span: np.ndarray
    ) -> "Lists":
        """Which features of a span may be among the k largest of each row."""
        (known, more), made = self._known_of(rows), Lists.empty(floors, k, room)
        kind = (self.kind == "bfloat16", np.float32(bounds.half(self.kind)))
        for rough, first in self._tiles(rows, span):
            given = (made.floors, made.heaps, made.counts, made.listed, made.mosts, made.full)
            compiled().list_largest(rough, *kind, *known, *more[:2], self.gamma, margin, first, *given)
        return made


@dataclass(frozen=True, eq=False)
class Lists:
    """What may be among the k largest of each row: lists, how long they are, and whether one is full; see `selection.list_largest`."""

    floors: np.ndarray
    heaps: np.ndarray
    counts: np.ndarray
    listed: np.ndarray
    mosts: np.ndarray
    full: np.ndarray

    @classmethod
    def empty(cls, floors: np.ndarray, k: int, room: int) -> "Lists":
        """Lists of as many rows as there are floors."""
        n = len(floors)
        # By torch: numpy asks for pages of 2 MiB, and of a row's room mostly the front is used.
        listed, mosts = torch.empty(n, room, dtype=torch.int32).numpy(), torch.empty(n, room).numpy()
        heaps = np.full((n, k), -np.inf, np.float32)
        return cls(floors.copy(), heaps, np.zeros(n, np.int64), listed, mosts, np.zeros(n, np.bool_))


@dataclass(frozen=True, eq=False)
class Massive:
    """Coordinates that are kept in float32, and the weight's columns there in units of each feature's scale, shape [n, n_features]."""

    coordinates: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of tokens as the loops take it."""

    block: Tensor
    massive: Massive
    numbers: Tensor
    of_row: np.ndarray
    x: np.ndarray
    massive_x: np.ndarray
    massive_w: np.ndarray
    again: np.ndarray
    fits: Tensor

    @classmethod
    def of(cls, block: Tensor, massive: Massive, kind: Kind, d: int) -> "Rows":
        """Tokens, rounded, massive coordinates apart."""
        x = block.float().contiguous()
        rest = x
        if len(massive.coordinates):
            rest = x.clone()
            rest[:, massive.coordinates] = 0.0
        rows = bounds.rounded(rest, kind)
        whole = rows.length if rest is x else bounds.rounded(x, "float32").length
        fits = rows.is_in_range() & ((whole == 0) | ((whole > bounds.RANGE[0]) & (whole < bounds.RANGE[1])))
        again, left = (
            bounds.sharper(rest, rows) if kind == "int8" else (x.new_empty(len(x), 0, dtype=torch.int16), rows.residual)
        )
        # Every feature of a row that does not fit is a candidate.
        more = (bounds.summing(kind, d) + bounds.SLACK) * whole
        p, sharp = (torch.where(fits, one + more, torch.inf) for one in (rows.residual, left))
        lengths = (bounds.single(one) for one in (p, rows.length, whole, sharp))
        of_row = torch.stack([rows.scale.float(), *lengths])
        massive_x = x[:, massive.coordinates].contiguous()
        apart = (massive_x.numpy(), massive.weight.numpy())
        return cls(block, massive, rows.numbers, of_row.numpy(), x.numpy(), *apart, again.numpy(), fits)


def _product(rows: Tensor, columns: Tensor, kind: Kind) -> np.ndarray:
    """Rough products as the loops read them."""
    made = trust.product(rows, columns, kind)
    return (made.view(torch.uint16) if kind == "bfloat16" else made).numpy()


def _merged(parts: list[tuple[Tensor, Sparse]]) -> Sparse:
    """Codes of some rows each, in the order of the rows; each part comes with the numbers of its rows."""
    tokens = torch.cat([rows[part.tokens] for rows, part in parts])
    order = tokens.sort(stable=True).indices
    features, values = torch.cat([part.features for _, part in parts]), torch.cat([part.values for _, part in parts])
    return Sparse(tokens[order], features[order], values[order])


def path(kind: Kind) -> Path:
    """The path of a screen."""

    def codes(encoder: Encoder, x: Tensor) -> Sparse:
        return encode(encoder, x, kind)

    def refusal(task: Task) -> str | None:
        if task.device != "cpu":
            return "it is made for a CPU"
        if task.dtype == torch.float64:
            return "float64 is computed as it is"
        if not has_numba():
            return "numba is not installed (pip install 'innerview[fast]')"
        if not task.is_fixed:
            return "its weight trains, so that nothing can be kept of it"
        if task.d > bounds.WIDEST[kind]:
            return f"its inputs are {task.d} wide, and sums are bounded up to {bounds.WIDEST[kind]}"
        return trust.why_not(kind)

    def seconds(task: Task) -> float:
        return work.screened_seconds(task, kind)

    return Path(
        f"screened_{kind}", codes, refusal, seconds, f"a rough product of {kind} and a bound, what may pass in float32"
    )


SCREENS = tuple(path(kind) for kind in ("int8", "bfloat16", "float32"))
