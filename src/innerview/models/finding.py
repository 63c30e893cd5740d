"""Finding the parts of a network that no table knows: its blocks, what they add to the stream, its embedding, last norm and head."""

import weakref
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from innerview.models.additions import Addition, Inside, Step, close, holds, is_norm, steps_of
from innerview.models.checking import check
from innerview.models.derivable import with_derivable
from innerview.models.families import Family, Part
from innerview.models.projections import finer_parts
from innerview.models.site import Site
from innerview.models.stacks import Stack, Stream, refusal, stacks_in, stream_of
from innerview.models.tracing import Event, Trial, text_config, trace, trial_of, undisturbed

# What feed-forwards call themselves, for blocks in which every part mixes positions.
FEED_FORWARD = ("mlp", "ffn", "feed_forward", "feedforward", "ff", "moe", "experts", "intermediate")
# What configs call the bound of a tanh on the logits.
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_FOUND: "weakref.WeakKeyDictionary[nn.Module, tuple[int, Found]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in a network and checked by running it.

    Attributes:
        family: Paths of the parts, as the table of families has them; None when no blocks were found.
        table: Sites by name.
        n_layers: Blocks of the one stack, or of the decoder.
        d_model: Width of the stream.
        vocab: Number of logits.
        checks: What was seen to hold, in words.
        refused: Names of sites that are not offered, and why, with the module paths to use instead.
    """

    family: Family | None
    table: dict[str, Site]
    n_layers: int | None = None
    d_model: int | None = None
    vocab: int | None = None
    checks: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)


def found_in(root: nn.Module) -> Found:
    """The parts of a network, looked for once in its life."""
    shape = _shape(root)
    if root not in _FOUND or _FOUND[root][0] != shape:
        _FOUND[root] = shape, _find(root)
    return _FOUND[root][1]


def _shape(root: nn.Module) -> int:
    """What a search depends on: a network that got other modules, or weights, is looked through again."""
    modules = tuple((path, type(module)) for path, module in root.named_modules())
    return hash((modules, _is_meta(root), _is_compiled(root)))


def _is_meta(root: nn.Module) -> bool:
    """Whether there is nothing to compute with; offloaded weights come back when they are needed."""
    return any(p.device.type == "meta" for p in root.parameters()) and not hasattr(root, "hf_device_map")


def _is_compiled(root: nn.Module) -> bool:
    return any(
        getattr(m, "_compiled_call_impl", None) is not None or hasattr(m.forward, "_torchdynamo_orig_callable")
        for m in root.modules()
    )


def _find(root: nn.Module) -> Found:
    if _is_compiled(root):
        return _nothing(
            f"{type(root).__name__} is compiled, and compiled code ignores hooks; open it before compiling it"
        )
    if _is_meta(root):
        return _nothing("its weights are meta tensors, so it cannot be run to see which parts it has")
    if not stacks_in(root):
        return _nothing(f"{type(root).__name__} has no list of repeated blocks")
    try:
        trial = trial_of(root)
        if trial is None:
            return _nothing(f"what {type(root).__name__} takes cannot be guessed from its forward")
        with undisturbed(root):
            return _Finding(root, trial).result()
    except Exception as error:  # the network's own, whatever it is: it still opens
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
        return _nothing(f"a trial with a few tokens failed with {type(error).__name__}: {reason}")


def _nothing(reason: str) -> Found:
    return Found(
        None, {}, refused={"blocks.*": f"{reason}; use module paths, such as module:<path>, see model.sites()"}
    )


class _Finding:
    """One search."""

    def __init__(self, root: nn.Module, trial: Trial) -> None:
        self.root = root
        self.trial = trial
        self.trace = trace(root, trial, _watched(root))
        self.refused: dict[str, str] = {}
        self.blocks: dict[str, Part] = {}
        self.sums: dict[str, list[Step]] = {}
        self.is_whole: list[bool] = []
        self.kinds: dict[tuple, dict[Addition, str]] = {}
        self.is_pair = bool(getattr(getattr(root, "config", None), "is_encoder_decoder", False))
        self.events = {event.path: event for event in self.trace.events}

    def result(self) -> Found:
        stacks = self._stacks()
        table: dict[str, Site] = {}
        placed: list[tuple[int, Site]] = []
        width = depth = None
        for prefix, stack in stacks.items():
            stream = refusal(stack, self.trace) or stream_of(stack, self.trace, is_text=self.trial.is_text)
            if isinstance(stream, str):
                self._refuse(prefix, stack, stream)
                continue
            placed += self._stack_sites(prefix, stack, stream)
            width, depth = stream.sizes[-1][-1], len(stack.blocks)
        placed += self._outside(list(stacks.values()))
        for _, site in sorted(placed, key=lambda p: p[0]):
            table[site.name] = site
        if depth is None:
            return Found(None, {}, refused=self.refused)
        checks, failed = check(self.root, self.trial, self.trace, table, self.sums)
        for name, reason in failed.items():
            self.refused[name] = f"{reason}; use module:{table[name].module}"
            del table[name]
        table = with_derivable(self.root, self.trial, table)
        vocab = table["logits"].sizes[-1] if "logits" in table and table["logits"].sizes else None
        return Found(self._family(stacks, table), table, depth, width, vocab, tuple(checks), self.refused)

    def _stacks(self) -> dict[str, Stack]:
        """Stacks that ran, by the prefix of their names."""
        ran = [s for s in stacks_in(self.root) if any(path in self.events for path in s.blocks)]
        if not ran:
            self.refused["blocks.*"] = (
                "no list of blocks ran in a trial with a few tokens; use module paths, see model.sites()"
            )
            return {}
        sides = {side: next((s for s in ran if side in s.path.split(".")), None) for side in ("encoder", "decoder")}
        encoder, decoder = sides["encoder"], sides["decoder"]
        if encoder is not None and decoder is not None and max(encoder.weights, decoder.weights) == ran[0].weights:
            return {"encoder.blocks": encoder, "decoder.blocks": decoder}
        others = [s for s in ran[1:] if s.weights * 2 > ran[0].weights]
        if others:
            paths = ", ".join(f"module:{s.path}.0" for s in [ran[0], *others])
            self.refused["blocks.*"] = f"several stacks of blocks run, and none is the one; use {paths} and so on"
            return {}
        return {"blocks": ran[0]}

    def _refuse(self, prefix: str, stack: Stack, reason: str) -> None:
        self.refused[f"{prefix}.*"] = f"{reason}; use module paths, such as module:{stack.blocks[0]}"

    def _stack_sites(self, prefix: str, stack: Stack, stream: Stream) -> list[tuple[int, Site]]:
        placed: list[tuple[int, Site]] = []
        known: dict[tuple, list[Step] | None] = {}
        for layer, path in enumerate(stack.blocks):
            block, sizes = self.events[path], stream.sizes[layer]
            name = f"{prefix}.{layer}"
            inside = Inside(block, [e for e in self.trace.events if e.path.startswith(f"{path}.")], stream.item)
            if stream.is_read:
                placed.append((block.began, _site(f"{name}.resid_in", path, stream.axes, sizes, layer, side="input")))
            else:
                self.refused[f"{name}.resid_in"] = (
                    f"a hook on the block's input does not see the stream; use module:{path}@input"
                )
            placed.append((block.ended, _site(f"{name}.resid", path, stream.axes, sizes, layer, item=stream.item)))
            make = self._make(inside)
            steps = known.get(make)
            if make not in known or (steps is not None and not holds(steps, inside)):
                steps = known[make] = steps_of(inside, self.root)
            placed += self._added(name, inside, steps, stream, layer, sizes)
        return placed

    def _make(self, inside: Inside) -> tuple:
        """What a block is made of: its modules in the order in which they return."""
        return tuple((inside.relative(e), type(self.root.get_submodule(e.path))) for e in inside.events)

    def _added(
        self, name: str, inside: Inside, steps: list[Step] | None, stream: Stream, layer: int, sizes: tuple[int, ...]
    ) -> list[tuple[int, Site]]:
        """Sites of what a block adds, where the sums hold; refused with the modules' paths otherwise."""
        if steps is None:
            self._refuse_added(name, inside)
            return []
        self.sums[name] = steps
        placed, taken = [], set()
        kinds = self._kinds(inside, steps)
        for addition, (kind, window) in kinds.items():
            event = inside.event(addition.path)
            assert event is not None
            label = kind if kind not in taken else f"{kind}{1 + sum(k.rstrip('0123456789') == kind for k in taken)}"
            taken.add(label)
            placed.append((event.ended, _site(f"{name}.{label}.out", event.path, stream.axes, sizes, layer, item=addition.item, times=addition.scale, is_flat=_is_flat(event.item(addition.item), inside))))  # fmt: skip
            for order, part_name, part in finer_parts(self.root, label, window, event, inside):
                placed.append((order, _from_part(f"{name}.{part_name}", part, inside, layer)))
        placed += self._middle(name, inside, steps, stream, layer, sizes)
        return placed

    def _middle(self, name: str, inside: Inside, steps: list[Step], stream: Stream, layer: int, sizes: tuple) -> list[tuple[int, Site]]:  # fmt: skip
        """The stream between two additions, read where a norm receives it."""
        first = steps[0]
        if len(steps) != 2 or first.is_normed or not first.norm:
            return []
        norm = inside.event(first.norm)
        assert norm is not None
        site = _site(
            f"{name}.resid_mid",
            norm.path,
            stream.axes,
            sizes,
            layer,
            side="input",
            is_flat=_is_flat(norm.first, inside),
        )
        kinds = {kind for kind, _ in self._kinds(inside, steps).values()}
        instead = next((s for s in ("attn", "mixer", "mlp") if s in kinds), "attn")
        return [(norm.began, _uneditable(site, f"{name}.{instead}.out"))]

    def _refuse_added(self, name: str, inside: Inside) -> None:
        children = [e for e in inside.events if "." not in inside.relative(e) and e.out is not None and e.out.shape == inside.end.shape]  # fmt: skip
        mixing = [e for e in children if not is_norm(e, self.root) and mixes(self.root, e)]
        other = [e for e in children if e not in mixing and not is_norm(e, self.root)]
        why = f"what {inside.block.path} adds to its stream is not what one of its modules returns"
        for label, events in (("attn", mixing), ("mlp", other)):
            path = events[-1].path if events else f"{inside.block.path}.<path>"
            self.refused[f"{name}.{label}.out"] = f"{why}; use module:{path}"

    def _kinds(self, inside: Inside, steps: list[Step]) -> dict[Addition, tuple[str, list[Event]]]:
        """What each addition is, `attn`, `cross`, `mixer` or `mlp`, and the modules that ran for it."""
        additions = [(inside.event(a.path), a) for step in steps for a in step.additions]
        listed = sorted(((e, a) for e, a in additions if e is not None), key=lambda pair: pair[0].ended)
        made: dict[Addition, tuple[str, list[Event]]] = {}
        # Blocks of one make are asked once: modules are run again to see what they mix.
        key = (self._make(inside), tuple(steps))
        known = self.kinds.get(key, {})
        since = -1
        for event, addition in listed:
            window = [e for e in inside.events if e.began > since and e.ended <= event.ended]
            around = [e for e in inside.events if e.began > since and event.path.startswith(f"{e.path}.")]
            made[addition] = (known[addition] if known else self._kind(inside, [*window, *around]), window)
            since = event.ended
        if not known and len(made) > 1 and all(kind != "mlp" for kind, _ in made.values()):
            for addition, (_, window) in list(made.items())[1:]:
                if _says(self.root, window, FEED_FORWARD) and not _says(self.root, window, ("attn", "attention")):
                    made[addition] = ("mlp", window)
        self.kinds[key] = {addition: kind for addition, (kind, _) in made.items()}
        return made

    def _kind(self, inside: Inside, window: list[Event]) -> str:
        memory = [r for r in inside.block.received[1:] if r is not None and r.ndim == 3 and r.is_floating_point()]
        if self.is_pair and any(_equal(r, m) for e in window for r in e.received[1:] for m in memory):
            return "cross"
        outermost = [e for e in window if not any(e.path.startswith(f"{o.path}.") for o in window)]
        if not any(mixes(self.root, e) for e in outermost):
            return "mlp"
        return "attn" if _says(self.root, window, ("attn", "attention")) else "mixer"

    def _outside(self, stacks: list[Stack]) -> list[tuple[int, Site]]:
        """The embedding, the last norm and the head."""
        placed: list[tuple[int, Site]] = []
        outer = [e for e in self.trace.events if not any(e.path.startswith(f"{s.path}.") for s in stacks) and e.path]
        axes = ("batch", "pos", "d_model")
        tables = [e for e in outer if isinstance(self.root.get_submodule(e.path), nn.Embedding) and self._reads_ids(e)]
        if len(tables) > 1 and hasattr(self.root, "get_input_embeddings"):
            named = self.root.get_input_embeddings()  # type: ignore[operator]
            tables = [e for e in tables if self.root.get_submodule(e.path) is named]
        if len(tables) == 1 and tables[0].out is not None:
            placed.append((tables[0].began, _site("embed", tables[0].path, axes, tuple(tables[0].out.shape[2:]))))
        ends = [self.events[s.blocks[-1]] for s in stacks if s.blocks[-1] in self.events]
        norms = [
            e
            for e in outer
            if ends
            and any(e.began > b.ended and any(_equal(e.first, v) for _, v in b.returned) for b in ends[-1:])
            and is_norm(e, self.root)
        ]
        norms = [e for e in norms if len(self.trace.of(e.path)) == 1]  # fmt: skip
        if norms and norms[0].out is not None:
            placed.append((norms[0].ended, _site("final_norm", norms[0].path, axes, tuple(norms[0].out.shape[2:]))))
        behind = [e for e in outer if ends and e.began > ends[-1].ended and len(self.trace.of(e.path)) == 1]
        # A network without a head ends in a norm or a dropout; a head has a matrix.
        behind = [e for e in behind if any(p.ndim > 1 for p in self.root.get_submodule(e.path).parameters())]
        return placed + self._logits(behind)

    def _logits(self, behind: list[Event]) -> list[tuple[int, Site]]:
        """The head, with what the network does to its output: a factor, or a cap."""
        logits = self.trace.output
        if logits is None or logits.ndim != 3 or not self.trial.is_text:
            return []
        axes, sizes = ("batch", "pos", "vocab"), tuple(logits.shape[2:])
        for event in sorted(behind, key=lambda e: e.ended):
            if event.out is None or event.out.shape != logits.shape or event.first is None or not bool(event.out.any()):
                continue
            if _equal(event.out, logits):
                return [(event.ended, _site("logits", event.path, axes, sizes))]
            if event.first.shape[-1] != logits.shape[-1] or not any(
                True for _ in self.root.get_submodule(event.path).children()
            ):
                cap = next(
                    (v for n in CAPS if (v := getattr(text_config(getattr(self.root, "config", None)), n, None))), None
                )
                if cap and torch.equal(torch.tanh(event.out / cap) * cap, logits):
                    return [(event.ended, replace(_site("logits", event.path, axes, sizes), cap=float(cap)))]
                times = float((logits.double() * event.out).sum() / event.out.double().square().sum())
                if times and close(logits / times, event.out):
                    return [(event.ended, _site("logits", event.path, axes, sizes, times=times))]
        return []

    def _reads_ids(self, event: Event) -> bool:
        given = [v.cpu() for v in (*self.trial.args, *self.trial.kwargs.values()) if isinstance(v, Tensor)]
        return len(self.trace.of(event.path)) == 1 and any(isinstance(v, Tensor) and not v.is_floating_point() and _equal(event.first, v) and bool((v != 1).any()) for v in given)  # fmt: skip

    def _family(self, stacks: dict[str, Stack], table: dict[str, Site]) -> Family:
        config = getattr(self.root, "config", None)
        prefix, stack = list(stacks.items())[-1]
        parts: dict[str, Part] = {}
        for layer, path in enumerate(stack.blocks):
            for site in (s for n, s in table.items() if n.startswith(f"{prefix}.{layer}.")):
                inner = site.module.removeprefix(path).lstrip(".")
                name = site.name.removeprefix(f"{prefix}.{layer}.")
                parts.setdefault(name, Part(inner, site.side, site.axes[-1], site.item, heads="head" if site.heads else None))  # fmt: skip
        paths = {name: table[name].module if name in table else "" for name in ("embed", "final_norm", "logits")}
        name = getattr(config, "model_type", "") or type(self.root).__name__
        return Family(name, stack.path, paths["embed"], paths["final_norm"], paths["logits"], parts)


def mixes(root: nn.Module, event: Event) -> bool:
    """Whether a module carries something from one position to another: the first position is changed, and the others compared."""
    if event.first is None or event.first.ndim < 3 or event.first.shape[1] < 2 or event.out is None:
        return False
    changed = event.first.clone()
    changed[:, 0] = changed[:, 0].flip(-1) + 1
    try:
        values = [_replayed(root, event, value) for value in (event.first.clone(), changed)]
    except Exception:  # a module that cannot be called again alone tells its kind by its name
        return _says(root, [event], ("attn", "attention", "mixer", "mamba", "conv", "recurrent", "temporal"))
    before, after = values
    if before is None or after is None or before.shape != after.shape or before.ndim < 3:
        return False
    # Experts see other tokens beside theirs, and round a little differently then.
    moved = (before - after).abs()
    return bool(moved[:, 1:].max() > 1e-3 * moved[:, 0].max())


def _replayed(root: nn.Module, event: Event, hidden: Tensor) -> Tensor | None:
    hidden = hidden.to(next(v.device for v in (*event.args, *event.kwargs.values()) if isinstance(v, Tensor)))
    # A cache would show the module the tokens of the first call.
    named = {k: None if hasattr(v, "get_seq_length") else v for k, v in event.kwargs.items()}
    if event.args:
        # Queries, keys and values of a plain attention are one value given three times.
        given = event.args[0]
        args, kwargs = tuple(hidden if _equal(v, given) else v for v in event.args), named
    else:
        key = next(k for k, v in named.items() if isinstance(v, Tensor))
        given, args = named[key], ()
        kwargs = {k: hidden if _equal(v, given) else v for k, v in named.items()}
    output = root.get_submodule(event.path)(*args, **kwargs)
    if isinstance(output, (tuple, list)):
        output = next((v for v in output if isinstance(v, Tensor)), None)
    return output.cpu() if isinstance(output, Tensor) else None


def _watched(root: nn.Module) -> list[str]:
    """Modules to watch: all but single experts and the like, of which a block may hold hundreds."""
    crowds = [path for path, m in root.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 4]
    crowds = [path for path in crowds if any(path.startswith(f"{s.path}.") for s in stacks_in(root))]
    return [path for path, m in root.named_modules() if not isinstance(m, nn.ModuleList) and not any(path.startswith(f"{c}.") for c in crowds)]  # fmt: skip


def _says(root: nn.Module, events: list[Event], words: tuple[str, ...]) -> bool:
    """Whether one of some modules has one of the words in its name or class."""
    for event in (e for e in events if not is_norm(e, root)):
        name = f"{event.path.rpartition('.')[2]} {type(root.get_submodule(event.path)).__name__}".lower()
        if any(word in name for word in words):
            return True
    return False


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)


def _site(name: str, path: str, axes: tuple, sizes: tuple, layer: int | None = None, *, side: Any = "output", item: int | None = None, times: float = 1.0, is_flat: bool = False) -> Site:  # fmt: skip
    return Site(name, path, side, axes, sizes, layer, item, times=times, is_flat=is_flat)


def _is_flat(value: Tensor | None, inside: Inside) -> bool:
    """Whether a module sees all tokens of the batch in one axis."""
    return value is not None and value.ndim < inside.end.ndim


def _uneditable(site: Site, instead: str) -> Site:
    return replace(site, is_editable=False, instead=instead)


def _from_part(name: str, part: tuple, inside: Inside, layer: int) -> Site:
    path, side, axes, sizes, heads = part
    return Site(name, path, side, axes, sizes, layer, heads=heads)
