"""Sites that follow from others where no table knows: scores, patterns, results of heads, scales of norms, an editable middle."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from innerview.models.attention import eager_copy
from innerview.models.derived import NormScale, PerHead
from innerview.models.inside import SOFTMAX
from innerview.models.site import Site
from innerview.models.tracing import Trial, trace

NORMS = (("attn.in", "norm1.scale"), ("mlp.in", "norm2.scale"))


def derivable(root: nn.Module, trial: Trial, table: dict[str, Site]) -> dict[str, Site]:
    """Further sites of a network, each tried on it, by name.

    Args:
        root: The network, undisturbed.
        trial: How it is called.
        table: The sites that were found.
    """
    return (
        _results(root, table)
        | _scales(root, trial, table)
        | _patterns(root, trial, table)
        | _middles(root, trial, table)
    )


def _middles(root: nn.Module, trial: Trial, table: dict[str, Site]) -> dict[str, Site]:
    """The streams between, as sites that can be edited, where the skip connections hold the very tensors that the norms receive."""
    middles = {n: s for n, s in table.items() if n.endswith(".resid_mid") and s.side == "input" and s.instead in table}
    if not middles:
        return {}
    shared = {n: replace(s, side="received", is_shared=True, is_editable=True, instead="") for n, s in middles.items()}
    moved = [
        trace(
            root,
            trial,
            (),
            {(site.module, "output" if site.side == "output" else "input"): _moving(site) for site in sites},
        ).output
        for sites in ((), shared.values(), [table[s.instead] for s in middles.values()])
    ]
    still, found, wanted = (None if out is None else out.double() for out in moved)
    if still is None or found is None or wanted is None:
        return {}
    off, size = (found - wanted).abs().max(), (wanted - still).abs().max()
    return shared if bool(torch.isfinite(size)) and bool(off <= 1e-3 * size) and bool(size > 0) else {}


def _moving(site: Site) -> Any:
    """An edit that adds the same to the stream wherever it is made."""

    def edit(value: Any) -> Any:
        x = site.read(value)
        step = 0.3 * torch.sin(torch.arange(x.shape[-1], device=x.device) + 1.0)
        return site.write(value, x + step.to(x.dtype))

    return edit


def _results(root: nn.Module, table: dict[str, Site]) -> dict[str, Site]:
    found = {}
    for name, site in table.items():
        module: Any = root.get_submodule(site.module)
        if name.endswith(".attn.heads") and site.side == "input" and site.heads and type(module) in (nn.Linear, Conv1D):
            block = name.removesuffix("attn.heads")
            width = module.weight.shape[1 if type(module) is Conv1D else 0]
            sizes = (site.heads, int(width))
            axes = ("batch", "pos", "head", "d_model")
            found[f"{block}attn.result"] = Site(
                f"{block}attn.result", site.module, "input", axes, sizes, site.layer, heads=site.heads, derive=PerHead(module),
                is_editable=False, instead=name,
            )  # fmt: skip
    return found


def _scales(root: nn.Module, trial: Trial, table: dict[str, Site]) -> dict[str, Site]:
    norms = {name: s for name, s in table.items() if s.side == "output" and name.endswith(tuple(n for n, _ in NORMS))}
    events = trace(root, trial, {s.module for s in norms.values()})
    found = {}
    for name, site in norms.items():
        event, module = events.once(site.module), root.get_submodule(site.module)
        if event is None or event.first is None or event.out is None or not _is_divided(module, event.first, event.out):
            continue
        part, scale = next((part, scale) for part, scale in NORMS if name.endswith(part))
        own = name.removesuffix(part) + scale
        found[own] = Site(
            own, site.module, "input", ("batch", "pos", "one"), (1,), site.layer, derive=NormScale(module), is_flat=event.first.ndim == 2,
            is_editable=False, instead=name,
        )  # fmt: skip
    return found


def _is_divided(norm: nn.Module, x: Tensor, out: Tensor) -> bool:
    """Whether a norm's output times its scale is, channel by channel, a multiple of its input and one of the scale (its bias)."""
    if x.shape != out.shape:
        return False
    rows, wide = x.flatten(0, -2).double(), out.flatten(0, -2).double()
    scale = NormScale(norm)(rows)
    for read in (rows, rows - rows.mean(-1, keepdim=True)):
        known = torch.stack([read, scale.expand_as(read)], dim=-1).transpose(0, 1)
        wanted = (wide * scale).T[..., None]
        solved = torch.linalg.lstsq(known, wanted).solution
        if bool((known @ solved - wanted).abs().max() <= 1e-4 * wanted.abs().max()):
            return True
    return False


def _patterns(root: nn.Module, trial: Trial, table: dict[str, Site]) -> dict[str, Site]:
    blocks = {n.removesuffix(".resid"): s for n, s in table.items() if n.endswith(".resid")}
    try:
        calls, is_eager = _softmaxes(root, trial)
    except (
        Exception
    ):  # an eager kernel that a network does not have fails in whatever way it likes; then it has no patterns
        return {}
    found: dict[str, Site] = {}
    for block, site in blocks.items():
        inside = [(path, shape) for path, shape in calls if path == site.module or path.startswith(f"{site.module}.")]
        labels = [label for label in ("attn", "cross") if f"{block}.{label}.out" in table]
        paths = [path for path, _ in inside]
        if len(inside) != len(labels) or len(set(paths)) != len(paths):
            continue
        for label, (path, _) in zip(labels, inside, strict=True):
            for side in ("scores", "pattern"):
                name = f"{block}.{label}.{side}"
                axes = ("batch", "head", "pos", "key")
                found[name] = Site(name, path, side, axes, None, site.layer, is_eager=is_eager)
    return found


def _softmaxes(root: nn.Module, trial: Trial) -> tuple[list[tuple[str, torch.Size]], bool]:
    """Modules inside which a softmax over keys runs, in their order, under the eager kernel where there are several."""
    twin = eager_copy(root)
    runs = root if twin is None else twin
    calls: list[tuple[str, torch.Size]] = []
    with _paths(runs) as stack, _Noting(stack, calls), torch.no_grad():
        runs(*trial.args, **trial.kwargs)
    tokens = next(v.shape for v in (*trial.args, *trial.kwargs.values()) if isinstance(v, Tensor))
    square = [c for c in calls if len(tokens) < 2 or not trial.is_text or c[1][-2:] == (tokens[1], tokens[1])]
    return square, twin is not None


@contextlib.contextmanager
def _paths(root: nn.Module) -> Iterator[list[str]]:
    """The modules that are under way, the innermost last."""
    stack: list[str] = []
    with contextlib.ExitStack() as hooks:
        for path, module in root.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(lambda m, args, path=path: stack.append(path)))
            hooks.enter_context(module.register_forward_hook(lambda m, args, out: _nothing(stack.pop())))
        yield stack


def _nothing(_: Any) -> None:
    """Nothing: a hook that returns something changes what passes."""


class _Noting(TorchFunctionMode):
    def __init__(self, stack: list[str], calls: list[tuple[str, torch.Size]]) -> None:
        super().__init__()
        self._stack = stack
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in SOFTMAX and args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            # A softmax module of its own stands inside the attention.
            own = [path for path in self._stack if not path.endswith("softmax")]
            self._calls.append((own[-1], args[0].shape))
        return func(*args, **(kwargs or {}))


def with_derivable(root: nn.Module, trial: Trial, table: dict[str, Site]) -> dict[str, Site]:
    """The table with its further sites, each beside what it follows from."""
    further = derivable(root, trial, table)
    made: dict[str, Site] = {}
    for name, site in table.items():
        block = name.rpartition(".")[0]
        before = [own for own, more in further.items() if name in (more.instead, f"{own.rpartition('.')[0]}.out")]
        for own in (o for o in before if not o.endswith(("result", "resid_mid"))):
            made[own] = further[own]
        made[name] = further.get(name, site)
        if f"{block}.result" in before:
            made[f"{block}.result"] = further[f"{block}.result"]
    return made
