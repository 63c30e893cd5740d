"""Activation patching place by place: sites × positions, or sites × heads.

Reference: arXiv:2202.05262 (causal tracing); arXiv:2309.16042 (best practices)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.attachments import attached
from innerview.causal.pairs import Pairs, positions_of
from innerview.causal.rerun import Rerun, rerun_cell
from innerview.causal.study import Cell, Study, Way, head_axis, share_of_way, sites_of
from innerview.errors import PatchError
from innerview.metrics import Measure
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.plots import DIVERGING, caption, drawn, said
from innerview.shows import ShowsItself

Over = Literal["pos", "head"]
LABEL = 20


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a grid.

    Attributes:
        label: What it is called.
        positions: Tokens that it patches in each pair; None for all.
        head: The head that it patches; None for all.
        tokens: Clean and corrupt text of the token in each pair; empty where it is not one token.
    """

    label: str
    positions: list[tuple[int, ...]] | None = None
    head: int | None = None
    tokens: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class PatchGrid(ShowsItself):
    """What each place's patch did; shows itself, and runs a cell again. NaN where an interrupt came first, or a site has no such head.

    Attributes:
        model_name: The network's name.
        sites: Site of each row, from bottom to top.
        layers: Block of each row, None outside of blocks.
        columns: The columns, from left to right.
        over: What the columns are: `"pos"`, `"head"`, or None for one column of everything.
        metric: What was measured, in words.
        direction: `"denoise"`: clean activations in the corrupt forward; `"noise"`: the other way round.
        prompts: Clean and corrupt text of each pair.
        clean: The metric of the clean prompts, shape [pair].
        corrupt: The metric of the corrupt prompts, shape [pair].
        patched: The metric of the patched forwards, shape [site, column, pair].
        is_whole: Whether everything was measured; False when an interrupt came first.
        attached: Names of what was attached and in force throughout.
        study: The forwards that measured it; None where it was put together otherwise.
    """

    model_name: str
    sites: list[str]
    layers: list[int | None] = field(repr=False)
    columns: list[Column] = field(repr=False)
    over: Over | None
    metric: str
    direction: Way
    prompts: list[tuple[str, str]] = field(repr=False)
    clean: Float[Tensor, "pair"] = field(repr=False)
    corrupt: Float[Tensor, "pair"] = field(repr=False)
    patched: Float[Tensor, "site column pair"] = field(repr=False)
    is_whole: bool = True
    attached: list[str] = field(default_factory=list)
    study: Study | None = field(default=None, repr=False)

    @property
    def effect(self) -> Float[Tensor, "site column"]:
        """Share of the way to the other side's metric: 0 nothing, 1 all. Means over the pairs, divided."""
        return share_of_way(self.patched.mean(dim=-1), self.clean.mean(), self.corrupt.mean(), self.direction)

    def rerun(self, row: int, column: int, pair: int = 0, k: int = 10) -> Rerun:
        """Run one cell again, and read what the network answers to the clean, the corrupt and the patched prompt.

        Args:
            row: Row of the cell, from the bottom, as in `sites`.
            column: Its column.
            pair: The pair whose answers are read.
            k: How many words of each answer.
        Raises:
            PatchError: There is no such cell or pair, or nothing to run it by.
        """
        if self.study is None:
            raise PatchError("this grid does not know its forwards any more; make it with iv.patch_grid")
        for what, given, count in (
            ("row", row, len(self.sites)),
            ("column", column, len(self.columns)),
            ("pair", pair, len(self.prompts)),
        ):
            if not 0 <= given < count:
                raise PatchError(f"no {what} {given}; the grid has {count}, counted from 0")
        one = self.columns[column]
        measured = torch.stack([self.clean, self.corrupt, self.patched[row, column]])
        return rerun_cell(self.study, Cell((self.sites[row],), one.positions, one.head), pair, measured, k)

    def row_labels(self) -> tuple[str, list[str]]:
        """What the rows are, and a label for each."""
        return _row_labels(self.sites, self.layers)

    def frame(self) -> pd.DataFrame:
        """One row a site, column and pair: the three raw numbers, and the pair's own effect."""
        effects = share_of_way(self.patched, self.clean, self.corrupt, self.direction)
        rows = []
        for i, (site, layer) in enumerate(zip(self.sites, self.layers, strict=True)):
            for j, column in enumerate(self.columns):
                for pair in range(len(self.prompts)):
                    place = [column.head] if self.over == "head" else []
                    if self.over == "pos":
                        assert column.positions is not None
                        place = [column.positions[pair][0], *column.tokens[pair]]
                    numbers = (self.clean[pair], self.corrupt[pair], self.patched[i, j, pair], effects[i, j, pair])
                    rows.append([site, layer, *place, pair, *map(float, numbers)])
        places = {"head": ["head"], "pos": ["pos", "clean_token", "corrupt_token"], None: []}[self.over]
        names = ["site", "layer", *places, "pair", "clean", "corrupt", "patched", "effect"]
        return pd.DataFrame(rows, columns=names).astype({"layer": "Int64"})

    def summary(self) -> pd.DataFrame:
        """The effects as a table: sites × columns, the last site on top."""
        labels = [column.label for column in self.columns]
        table = pd.DataFrame(self.effect.tolist(), index=pd.Index(self.sites, name="site"), columns=labels)
        return table.iloc[::-1]

    def figure(self) -> go.Figure:
        """Heat map of the effects, layers upward, with the tokens or heads below."""
        effect = self.effect
        limit = float(effect[~effect.isnan()].abs().max()) or 1.0
        hover = [[self._hover(i, j) for j in range(len(self.columns))] for i in range(len(self.sites))]
        # Rows and columns by number: two tokens of one text are two columns.
        heat = go.Heatmap(
            z=effect.tolist(), x=list(range(len(self.columns))), y=list(range(len(self.sites))), text=hover,
            hovertemplate="%{text}<extra></extra>", colorscale=[list(stop) for stop in DIVERGING], zmin=-limit, zmax=limit,
            xgap=1, ygap=1, colorbar={"title": {"text": "effect"}, "thickness": 12, "outlinewidth": 0},
        )  # fmt: skip
        title = f"Patching ({self.direction}) · {caption(self.model_name)} · {caption(self.metric)}"
        if len(self.prompts) > 1:
            title += f" · mean of {len(self.prompts)} pairs"
        if not self.is_whole:
            title += f" · stopped: {self.measured_cells()} measured"
        kind, labels = self.row_labels()
        names = {"head": "head", "pos": "token", None: ""}
        return drawn(
            heat,
            title,
            height=max(240, 130 + 26 * len(self.sites)),
            xaxis={
                **_ticks([_tick(column.label) for column in self.columns]),
                "title": {"text": names[self.over]},
                "tickangle": 0 if self.over == "head" else -50,
            },
            yaxis={**_ticks([caption(label) for label in labels]), "title": {"text": caption(kind)}},
        )

    def _hover(self, row: int, column: int) -> str:
        patched = float(self.patched[row, column].mean())
        return (
            f"{caption(self.sites[row])} · {_tick(self.columns[column].label)}<br>effect {float(self.effect[row, column]):.3g}"
            f"<br>patched {patched:.4g}, clean {float(self.clean.mean()):.4g}, corrupt {float(self.corrupt.mean()):.4g}"
        )

    def measured_cells(self) -> str:
        """How many cells were measured, in words."""
        measured = int((~self.patched.isnan().any(dim=-1)).sum())
        return f"{measured} of {len(self.sites) * len(self.columns)} cells"

    def __repr__(self) -> str:
        stopped = "" if self.is_whole else f", stopped: {self.measured_cells()} measured"
        return (
            f"PatchGrid({self.direction} of {self.model_name}, {len(self.sites)} sites × {len(self.columns)} {self.over or 'column'}, "
            f"{len(self.prompts)} pair{'s' * (len(self.prompts) > 1)}, metric {self.metric}{stopped})\n"
            f"{self.summary().to_string(float_format=lambda x: f'{x:.3g}')}"
        )


def patch_grid(
    model: Model, clean: Any, corrupt: Any, sites: str | Sequence[str] = "blocks.*.resid", *, metric: Any, over: Over | None = None,
    positions: Any = None, direction: Way = "denoise", batch_size: int = 32, progress: bool = True,
) -> PatchGrid:  # fmt: skip
    """Patch one place at a time: each site at each token, or each head of each site. Places and pairs are the rows of batches.

    Args:
        model: The network; what is attached, and open blocks, are in force in every forward.
        clean: Prompts, as in `patch`.
        corrupt: A prompt for each clean one, with as many tokens.
        sites: The rows: names, wildcards, module paths.
        metric: As in `patch`.
        over: The columns: `"pos"` for tokens, `"head"` for heads. None takes heads where every site has them, else tokens.
        positions: Over tokens, which ones; over heads, the tokens to patch in each. All when None; negative ones count from the end.
        direction: As in `patch`.
        batch_size: Rows of a forward at most.
        progress: Whether to show a bar, where it takes longer than a second.
    Raises:
        PatchError: The prompts do not line up, or the metric does not tell clean from corrupt.
    Reference: arXiv:2202.05262, arXiv:2309.16042

    An interrupt leaves what was measured: the result says `is_whole=False` and holds NaN elsewhere.
    """
    pairs = Pairs.of(model, clean, corrupt)
    chosen = sites_of(model, sites)
    if not chosen:
        raise PatchError("no site to patch: the list is empty; name at least one, such as 'blocks.*.resid'")
    kind = _over(over, chosen, pairs)
    columns = _columns(kind, chosen, pairs, positions)
    study = Study(pairs, Measure.of(model, metric, len(pairs)), direction, batch_size)
    study.measure_sides()
    ledger = study.ledger(len(chosen) * len(columns))
    cells = [Cell((site.name,), column.positions, column.head) for site in chosen for column in columns]
    is_whole = study.put_in(cells, ledger, progress)
    return PatchGrid(
        model_name=model.name,
        sites=[site.name for site in chosen],
        layers=[site.layer for site in chosen],
        columns=columns,
        over=kind,
        metric=study.measure.label,
        direction=direction,
        prompts=[(pairs.clean.said(pair), pairs.corrupt.said(pair)) for pair in range(len(pairs))],
        clean=study.clean,
        corrupt=study.corrupt,
        patched=ledger.values.view(len(chosen), len(columns), len(pairs)),
        is_whole=is_whole,
        attached=[one.name for one in attached(model) if one.enabled],
        study=study,
    )


def _over(asked: Over | None, sites: list[Site], pairs: Pairs) -> Over | None:
    headless = [site.name for site in sites if head_axis(site) is None]
    if asked is None:
        return "head" if not headless else "pos" if pairs.clean.has_tokens else None
    if asked not in ("pos", "head"):
        raise PatchError(f"no columns {asked!r}; over= is 'pos' or 'head'")
    if asked == "head" and headless:
        raise PatchError(f"{headless[0]!r} has no heads to go over; patch 'blocks.*.attn.heads', or over='pos'")
    if asked == "pos" and not pairs.clean.has_tokens:
        raise PatchError("this network reads no tokens to go over; leave out over=")
    return asked


def _columns(over: Over | None, sites: list[Site], pairs: Pairs, positions: Any) -> list[Column]:
    if over == "head":
        places = positions_of(pairs, positions)
        counts = {_heads(site, pairs) for site in sites}
        if len(counts) > 1:
            raise PatchError(
                f"the sites have {' and '.join(map(str, sorted(counts)))} heads; make a grid for each kind"
            )
        return [Column(str(head), places, head) for head in range(counts.pop())]
    if over is None:
        return [Column("all", positions_of(pairs, positions))]
    lengths = pairs.lengths()
    if positions is None and len(set(lengths)) > 1:
        raise PatchError(
            f"pairs of {min(lengths)} to {max(lengths)} tokens share no positions; give some, such as positions=range(-{min(lengths)}, 0), "
            "which count from the end, or pairs of one length"
        )
    places = positions_of(pairs, range(lengths[0]) if positions is None else positions)
    assert places is not None
    counts = {len(one) for one in places}
    if len(counts) > 1 or counts == {0}:
        raise PatchError(
            f"each pair has the same columns, at least one, not {sorted(counts)} positions; give lists of one length"
        )
    return [_column([one[nth] for one in places], pairs) for nth in range(len(places[0]))]


def _heads(site: Site, pairs: Pairs) -> int:
    axis = head_axis(site)
    assert axis is not None
    if site.sizes is not None and axis >= 2:
        return site.sizes[axis - 2]
    return pairs.clean.run([0], [site.name])[site.name].shape[axis]


def _column(positions: list[int], pairs: Pairs) -> Column:
    """A column of one token in each pair, labelled by what stands there."""
    tokens = tuple(
        (pairs.clean.words(pair)[place], pairs.corrupt.words(pair)[place]) for pair, place in enumerate(positions)
    )
    numbers, words = list(dict.fromkeys(positions)), list(dict.fromkeys(tokens))
    number = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}…"
    clean, corrupt = words[0]
    word = _bare(clean) if clean == corrupt else f"{_bare(clean)}|{_bare(corrupt)}"
    return Column(f"{number} {word}" + ("…" if len(words) > 1 else ""), [(place,) for place in positions], None, tokens)


def _row_labels(sites: list[str], layers: list[int | None]) -> tuple[str, list[str]]:
    """What the rows are, and a label for each: the layer's number where one kind of site is read in each layer."""
    kinds = {name.partition(".")[2].partition(".")[2] for name in sites}
    if None in layers or len(kinds) > 1 or len(set(layers)) < len(layers):
        return "site", sites
    return f"layer, {kinds.pop()}", [str(layer) for layer in layers]


def _bare(token: str) -> str:
    """A token without the space in front that most words have."""
    return token[1:] if token.startswith(" ") and len(token) > 1 else token


def _tick(label: str) -> str:
    number, _, word = label.partition(" ")
    return f"{number} {said(word if len(word) <= LABEL else word[: LABEL - 1] + '…')}" if word else number


def _ticks(labels: list[str]) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": labels,
        "showgrid": False,
        "zeroline": False,
    }
