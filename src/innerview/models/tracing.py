"""A short trial forward of a network: what each of its modules received and returned, leaving no trace behind."""

import contextlib
import inspect
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROWS, TOKENS = 2, 7
VOCABS = ("vocab_size", "d_vocab", "n_vocab")


@dataclass(eq=False)
class Event:
    """One call of one module.

    Attributes:
        path: Path of the module.
        began: When it was called, among all beginnings and ends.
        ended: When it returned.
        args: What it was called with, by position.
        kwargs: What it was called with, by name.
        received: Copies of the tensors among these; the first is what a hook on the input reads, None if that is no tensor.
        returned: Copies of the tensors that it returned, with the item of the container, None for the tensor itself.
    """

    path: str
    began: int
    args: tuple
    kwargs: dict[str, Any]
    received: list[Tensor | None]
    ended: int = -1
    returned: list[tuple[int | None, Tensor]] = field(default_factory=list)

    @property
    def first(self) -> Tensor | None:
        """What a hook on the input reads."""
        return self.received[0] if self.received else None

    @property
    def out(self) -> Tensor | None:
        """The tensor it returned, or the first."""
        return self.item(None)

    def item(self, item: int | str | None) -> Tensor | None:
        """One item of what it returned; the first tensor for None."""
        if item is None:
            return self.returned[0][1] if self.returned else None
        return next((value for i, value in self.returned if i == item), None)


@dataclass(eq=False)
class Trace:
    """Calls of modules in one forward, in the order in which they returned, and what the root returned."""

    events: list[Event]
    output: Tensor | None

    def of(self, path: str) -> list[Event]:
        """Calls of one module."""
        return [event for event in self.events if event.path == path]

    def once(self, path: str) -> Event | None:
        """The only call of a module, None if there was none or several."""
        found = self.of(path)
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Trial:
    """How the root module is called for a trial."""

    args: tuple
    kwargs: dict[str, Any]
    is_text: bool


def trial_of(root: nn.Module) -> Trial | None:
    """A short call of a network, made up from its signature and config; None when its inputs cannot be guessed."""
    takes = inspect.signature(root.forward).parameters
    config = getattr(root, "config", None)
    device = next((p.device for p in root.parameters() if p.device.type != "meta"), torch.device("cpu"))
    if "input_ids" in takes and config is not None:
        return _text_trial(root, takes, config, device)
    main = getattr(root, "main_input_name", None)
    if config is not None and main in takes:
        made = _signal(str(main), config)
        if made is None:
            return None
        first = next(root.parameters(), None)
        dtype = first.dtype if first is not None else torch.float32
        kwargs: dict[str, Any] = {str(main): made.to(device, dtype)}
        if "decoder_input_ids" in takes:
            kwargs["decoder_input_ids"] = _ids(root, config, device)
        return Trial((), kwargs | _options(takes), is_text=False)
    needed = [p for p in takes.values() if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]  # fmt: skip
    if len(needed) == 1 and (_tables(root) or _vocab(root) is not None):
        return Trial((_ids(root, None, device),), {}, is_text=True)
    return None


def _vocab(root: nn.Module) -> int | None:
    """Number of ids, as a network of another library says."""
    said = [getattr(getattr(root, where, None), name, None) for where in ("config", "cfg") for name in VOCABS]
    return next((n for n in said if isinstance(n, int)), None)


def _text_trial(root: nn.Module, takes: Mapping[str, Any], config: Any, device: torch.device) -> Trial:
    ids = _ids(root, config, device)
    kwargs: dict[str, Any] = {"input_ids": ids}
    if "attention_mask" in takes:
        kwargs["attention_mask"] = torch.ones_like(ids)
    if "decoder_input_ids" in takes and getattr(config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = ids.flip(1)
    return Trial((), kwargs | _options(takes), is_text=True)


def _options(takes: Mapping[str, Any]) -> dict[str, Any]:
    is_open = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    return {"use_cache": False} if "use_cache" in takes or is_open else {}


def _tables(root: nn.Module) -> list[nn.Embedding]:
    return [m for m in root.modules() if isinstance(m, nn.Embedding) and m.num_embeddings > 1]


def _ids(root: nn.Module, config: Any, device: torch.device) -> Tensor:
    """Plain ids, none of them special, all different where the vocabulary allows."""
    text = text_config(config)
    vocab = getattr(text, "vocab_size", None) if config is not None else None
    if not isinstance(vocab, int):
        vocab = _vocab(root) or min((table.num_embeddings for table in _tables(root)), default=8)
    settings = getattr(config, "to_dict", None)
    special = _specials(settings()) if settings is not None else set()
    usable = [i for i in range(min(vocab, 4096)) if i not in special] or [0]
    # From the middle: the first and the last ids of a vocabulary are special more often than named so.
    start, count = len(usable) // 2, ROWS * TOKENS * _codebooks(root)
    picked = [usable[(start + i) % len(usable)] for i in range(count)]
    return torch.tensor(picked, device=device).view(-1, TOKENS)


def text_config(config: Any) -> Any:
    """The config of a network's language model, the config itself where there is only one."""
    inner = getattr(config, "get_text_config", None)
    return config if inner is None else inner(decoder=True)


def _codebooks(root: nn.Module) -> int:
    """Rows of ids that make one row of the network (music)."""
    found = getattr(root, "num_codebooks", 1)
    return found if isinstance(found, int) else 1


def _specials(settings: Mapping[Any, Any]) -> set[int]:
    found: set[int] = set()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _specials(value)
        elif str(name).endswith(("_token_id", "_token_index")):
            found |= {i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return found


def _signal(name: str, config: Any) -> Tensor | None:
    """Random pictures or sound of the size that a config asks for; None for other inputs."""
    generator = torch.Generator().manual_seed(0)
    if name == "pixel_values":
        config = getattr(config, "vision_config", None) or config
        size = getattr(config, "image_size", None)
        if not size:
            return None
        sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
        return torch.randn(ROWS, getattr(config, "num_channels", 3), *sides, generator=generator)
    if name == "input_features" and hasattr(config, "max_source_positions"):
        return torch.randn(ROWS, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)
    if name == "input_values" and hasattr(config, "conv_stride"):
        return torch.randn(ROWS, 12 * int(np.prod(config.conv_stride)) + 400, generator=generator)
    return None


@contextlib.contextmanager
def undisturbed(root: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; modes and every generator of random numbers are then as they were."""
    modes = {module: module.training for module in root.modules()}
    devices = sorted({p.device.index or 0 for p in root.parameters() if p.device.type == "cuda"})
    kept = random.getstate(), np.random.get_state()
    try:
        for module in modes:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, was in modes.items():
            module.training = was
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def _forward(root: nn.Module, trial: Trial) -> Tensor | None:
    """What the root returns for a trial: logits, or else its first tensor."""
    # Hashing attention and the like draw numbers: two forwards are compared, so they draw the same.
    torch.random.default_generator.manual_seed(0)
    for device in sorted({p.device.index or 0 for p in root.parameters() if p.device.type == "cuda"}):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(0)
    return _main(root(*trial.args, **trial.kwargs))


def trace(root: nn.Module, trial: Trial, paths: Iterable[str], edits: Mapping[Any, Any] | None = None) -> Trace:
    """Calls of some modules in one forward.

    Args:
        root: The network, undisturbed.
        trial: How it is called.
        paths: Modules to watch.
        edits: Functions by point, applied before what passes is noted.
    """
    events: list[Event] = []
    clock = iter(range(1 << 62))
    with contextlib.ExitStack() as hooks:
        for (path, side), edit in (edits or {}).items():
            hooks.enter_context(_edited(root.get_submodule(path), side, edit))
        for path in paths:
            before, after = _watchers(path, events, clock)
            module = root.get_submodule(path)
            hooks.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(after))
        output = _forward(root, trial)
        return Trace(events, None if output is None else _copy(output))


def _edited(module: nn.Module, side: str, edit: Any) -> Any:
    """A hook that changes what passes; the edit takes what a module handles and returns its copy."""
    if side == "output":
        return module.register_forward_hook(lambda m, args, output: edit(output))
    return module.register_forward_pre_hook(_input_hook(edit), with_kwargs=True)


def _input_hook(edit: Any) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        key = next(k for k, v in kwargs.items() if isinstance(v, Tensor))
        return args, {**kwargs, key: edit(kwargs[key])}

    return hook


def _watchers(path: str, events: list[Event], clock: Iterator[int]) -> tuple[Any, Any]:
    """Hooks that note a module's calls."""
    open_calls: list[Event] = []

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        open_calls.append(Event(path, next(clock), args, kwargs, _received(args, kwargs)))

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        event = open_calls.pop()
        event.ended, event.returned = next(clock), _returned(output)
        events.append(event)

    return before, after


def _received(args: tuple, kwargs: Mapping[str, Any]) -> list[Tensor | None]:
    named = [v for v in kwargs.values() if isinstance(v, Tensor)]
    listed = [*args, *named]
    head = [_copy(listed[0]) if isinstance(listed[0], Tensor) else None] if listed else []
    return head + [_copy(v) for v in listed[1:] if isinstance(v, Tensor)]


def _returned(output: Any) -> list[tuple[int | None, Tensor]]:
    if isinstance(output, Tensor):
        return [(None, _copy(output))]
    if isinstance(output, (tuple, list)):
        return [(i, _copy(v)) for i, v in enumerate(output) if isinstance(v, Tensor)]
    found = _main(output)
    return [] if found is None else [(None, _copy(found))]


def _copy(value: Tensor) -> Tensor:
    # Later modules may write over what passes; and a network may be spread over several devices.
    return value.detach().to("cpu", copy=True)


def _main(output: Any) -> Tensor | None:
    """The logits, or the first tensor of floats, of what a module returned."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return next((v for v in output if isinstance(v, Tensor) and v.is_floating_point()), None)
    return (
        next((v for v in vars(output).values() if isinstance(v, Tensor)), None) if hasattr(output, "__dict__") else None
    )
