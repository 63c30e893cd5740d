"""What the table of families is made of: where one site of a block is, and where a network's parts are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from innerview.models.site import Cut, Side

Sizes = Mapping[str, int]
"""Sizes by axis name: d_model, d_mlp, head, kv_head, d_head, vocab, expert."""


@dataclass(frozen=True)
class Part:
    """Where one site of a block is, relative to the block.

    Attributes:
        path: Path of the module inside the block; empty for the block itself.
        side: Its input, its output, or what it computes inside.
        axes: Name of the last axis.
        item: Which item of the module's value, where it is a tuple or a mapping.
        part: Which of `parts` equal pieces of the last axis; None takes all.
        parts: Number of equal pieces of the last axis.
        cut: The cut of a fused projection, from the sizes; None where `part` says it.
        heads: Name of the size that the last axis is viewed as heads of; None leaves it flat.
        drop: Columns at the end of the last axis that belong to no token.
        is_flat: Whether the module sees all tokens of the batch in one axis.
        is_shared: Whether the block's skip connection holds the very tensor that the module receives.
        times: Attribute of the config that the network multiplies the value by.
        derived: `result` (each head through the output projection), `scale` (what a norm divides by), `chosen` or `hidden` (of experts);
            empty for what a module holds.
        is_eager: Whether only the eager attention kernel computes it.
        instead: Site of the block to edit when this one cannot be; empty when it can.
    """

    path: str
    side: Side = "output"
    axes: str = "d_model"
    item: int | str | None = None
    part: int | None = None
    parts: int = 1
    heads: str | None = None
    is_eager: bool = False
    instead: str = ""
    cut: Callable[[Sizes], Cut] | None = None
    drop: int = 0
    is_flat: bool = False
    is_shared: bool = False
    times: str = ""
    derived: Literal["", "result", "scale", "chosen", "hidden"] = ""


@dataclass(frozen=True)
class Variant:
    """What differs in networks of a family whose config says so; a part of None is absent there."""

    when: Callable[[Any], bool]
    block: dict[str, Part | None]


@dataclass(frozen=True)
class Family:
    """Paths of a family's parts, relative to its base model, and of its output head, relative to the root.

    Attributes:
        name: The `model_type` of its configs.
        blocks: Path of the list of blocks.
        embed: Path of the token embedding.
        final_norm: Path of the norm behind the last block; empty where there is none.
        head: Path of the output head; empty where there is none.
        block: Sites of a block by name.
        variants: What differs by config; later ones win.
        sizes: Sizes that the config names in its own way.
        logits_times: Attribute of the config that the head's output is multiplied by.
        logits_over: Attribute of the config that it is divided by.
        logits_cap: Attribute of the config with the bound of the tanh on it.
    """

    name: str
    blocks: str
    embed: str
    final_norm: str
    head: str
    block: dict[str, Part] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    sizes: Callable[[Any], dict[str, int]] | None = None
    logits_times: str = ""
    logits_over: str = ""
    logits_cap: str = ""

    def parts(self, config: Any) -> dict[str, Part]:
        """Sites of a block of a network with this config."""
        found: dict[str, Part | None] = dict(self.block)
        for variant in self.variants:
            if variant.when(config):
                found |= variant.block
        return {name: part for name, part in found.items() if part is not None}

    def named(self, name: str, **changes: Any) -> "Family":
        """A family that differs from this one in a few parts; `block` is laid over this one's."""
        block = {n: p for n, p in (self.block | changes.pop("block", {})).items() if p is not None}
        return replace(self, name=name, block=block, **changes)


def in_a_row(which: Literal["q", "k", "v"]) -> Callable[[Sizes], Cut]:
    """Queries, keys and values one behind the other."""

    def cut(sizes: Sizes) -> Cut:
        heads, groups = sizes["head"], sizes["kv_head"]
        first = {"q": 0, "k": heads, "v": heads + groups}[which]
        return Cut(1, heads + 2 * groups, first, first + (heads if which == "q" else groups))

    return cut


def by_head(which: Literal["q", "k", "v"]) -> Callable[[Sizes], Cut]:
    """A query, a key and a value of each head, head by head."""
    nth = "qkv".index(which)
    return lambda sizes: Cut(sizes["head"], 3, nth, nth + 1)


def by_group(which: Literal["q", "k", "v"]) -> Callable[[Sizes], Cut]:
    """The queries of each group of heads, then its key, then its value, group by group."""

    def cut(sizes: Sizes) -> Cut:
        groups = sizes["kv_head"]
        each = sizes["head"] // groups
        first = {"q": 0, "k": each, "v": each + 1}[which]
        return Cut(groups, each + 2, first, first + (each if which == "q" else 1))

    return cut


def attention(path: str, *, drop: int = 0) -> dict[str, Part]:
    """Scores and pattern, from inside the module that computes the softmax over keys."""
    inside = {"axes": "key", "is_eager": True, "drop": drop}
    return {"attn.scores": Part(path, "scores", **inside), "attn.pattern": Part(path, "pattern", **inside)}


def output_projection(path: str) -> dict[str, Part]:
    """Heads before and behind the output projection."""
    return {
        "attn.heads": Part(path, "input", axes="d_head", heads="head"),
        "attn.result": Part(path, "input", heads="head", derived="result", instead="attn.heads"),
    }


def fused(path: str, cut: Callable[[Literal["q", "k", "v"]], Callable[[Sizes], Cut]]) -> dict[str, Part]:
    """Queries, keys and values of one projection."""
    heads = {"q": "head", "k": "kv_head", "v": "kv_head"}
    return {f"attn.{x}": Part(path, axes="d_head", cut=cut(x), heads=heads[x]) for x in ("q", "k", "v")}


def separate(path: str, q: str = "q_proj", k: str = "k_proj", v: str = "v_proj") -> dict[str, Part]:
    """Queries, keys and values of three projections."""
    heads = {"q": "head", "k": "kv_head", "v": "kv_head"}
    return {
        f"attn.{x}": Part(f"{path}.{name}", axes="d_head", heads=heads[x]) for x, name in (("q", q), ("k", k), ("v", v))
    }


def norm_scale(path: str, instead: str) -> Part:
    """What a norm divides its input by."""
    return Part(path, "input", axes="one", derived="scale", instead=instead)


RESIDUAL = {"resid_in": Part("", "input"), "resid": Part("")}
