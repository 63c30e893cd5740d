"""The table of sites of a network of a known family."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from innerview.models.derived import ExpertsChosen, ExpertsHidden, NormScale, PerHead
from innerview.models.families import Family, Part
from innerview.models.site import Cut, Site

_DERIVED: dict[str, Callable[[nn.Module], Callable[[Any], Tensor]]] = {
    "result": PerHead, "scale": NormScale, "hidden": ExpertsHidden, "chosen": lambda _: ExpertsChosen(),
}  # fmt: skip

# The order in which they fire, in most families.
ORDER = (
    "resid_in", "norm1.scale", "attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.heads", "attn.result",
    "attn.out", "resid_mid", "norm2.scale", "mlp.in", "moe.router", "moe.chosen", "moe.hidden", "mlp.gate", "mlp.pre", "mlp.hidden", "mlp.out",
)  # fmt: skip


def family_sites(family: Family, prefix: str, root: str, module: nn.Module, sizes: dict[str, int]) -> dict[str, Site]:
    """The table of sites of a network of a known family, in the order in which they fire. What a network lacks is absent.

    Args:
        family: Row of the table of families.
        prefix: Path of the base model inside the root, with a dot behind unless empty.
        root: Path of the root itself, with a dot behind unless empty (a compiled wrapper).
        module: The root module.
        sizes: Sizes by axis name: d_model, d_mlp, head, kv_head, d_head, vocab.
    """
    modules: dict[str, Any] = dict(module.named_modules(remove_duplicate=False))
    config = getattr(modules[root.removesuffix(".")], "config", None)
    sizes = sizes | {"one": 1} | (family.sizes(config) if family.sizes else {})
    table: dict[str, Site] = {}

    def put(name: str, path: str, part: Part, layer: int | None, **scaling: Any) -> None:
        if path in modules:
            table[name] = _site(name, path, part, layer, modules[path], config, sizes, **scaling)

    put("embed", f"{prefix}{family.embed}", Part(""), None)
    for layer, block in enumerate(modules[f"{prefix}{family.blocks}"]):
        base = f"{prefix}{family.blocks}.{layer}"
        for name, part in _in_order(family.parts(config)):
            path = f"{base}.{part.path}" if part.path else base
            if part.path and not _has(block, part):
                continue
            put(f"blocks.{layer}.{name}", path, part, layer)
    if family.final_norm:
        put("final_norm", f"{prefix}{family.final_norm}", Part(""), None)
    if family.head:
        put("logits", f"{root}{family.head}", Part("", axes="vocab"), None, **_logits(family, config))
    return table


def _in_order(parts: dict[str, Part]) -> list[tuple[str, Part]]:
    place = {name: i for i, name in enumerate(ORDER)}
    last = len(ORDER)
    return sorted(parts.items(), key=lambda one: last + 1 if one[0] == "resid" else place.get(one[0], last))


def _has(block: nn.Module, part: Part) -> bool:
    """Whether a block has a part: in a mixture of experts some blocks have a router, and others neurons."""
    try:
        found = block.get_submodule(part.path)
    except AttributeError:
        return False
    return part.side != "linear" or not isinstance(found, nn.Linear)


def _logits(family: Family, config: Any) -> dict[str, Any]:
    """What the network does to the head's output."""
    times = getattr(config, family.logits_times, None) if family.logits_times else None
    over = getattr(config, family.logits_over, None) if family.logits_over else None
    cap = getattr(config, family.logits_cap, None) if family.logits_cap else None
    return {"times": float(times or 1.0), "over": float(over or 1.0), "cap": None if cap is None else float(cap)}


def _site(
    name: str,
    path: str,
    part: Part,
    layer: int | None,
    module: nn.Module,
    config: Any,
    sizes: dict[str, int],
    **scaling: Any,
) -> Site:
    heads = sizes[part.heads] if part.heads else None
    axes, shape = _axes(part, sizes)
    if part.times:
        scaling = {"times": float(getattr(config, part.times))}
    cut = part.cut(sizes) if part.cut else None
    if part.part is not None:
        cut = Cut(1, part.parts, part.part, part.part + 1)
    derive = _DERIVED[part.derived](module) if part.derived else None
    return Site(
        name=name, module=path, side=part.side, axes=axes, sizes=shape, layer=layer, item=part.item, cut=cut, heads=heads,
        drop=part.drop, is_flat=part.is_flat, is_shared=part.is_shared, derive=derive, is_eager=part.is_eager,
        is_editable=not part.instead, instead=_instead(part, layer), **scaling,
    )  # fmt: skip


def _axes(part: Part, sizes: dict[str, int]) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    if part.is_eager:
        return ("batch", "head", "pos", "key"), None
    middle = (part.heads,) if part.heads else (("choice",) if part.derived == "hidden" else ())
    axes = ("batch", "pos", *middle, part.axes)
    shape = tuple(sizes.get(axis) for axis in axes[2:])
    return axes, None if None in shape else shape  # type: ignore[return-value]


def _instead(part: Part, layer: int | None) -> str:
    return f"blocks.{layer}.{part.instead}" if part.instead and layer is not None else part.instead
