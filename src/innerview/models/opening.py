"""Opening a network: by bundled name, hub id, folder, or any module."""

import contextlib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from innerview.bundled import bundled_folder, bundled_names
from innerview.errors import ModelError
from innerview.models.adapters import adapter_of, check_base, merge
from innerview.models.families import FAMILIES, Family
from innerview.models.model import Model, lock_of
from innerview.models.table import family_sites
from innerview.opened import opened


def open_model(
    source: Any,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """An opened network.

    Args:
        source: A bundled name (`"pocket"`), a folder, a hub id, any `torch.nn.Module`, or a Model (returned as it is).
        tokenizer: Tokenizer of a module that was built by hand; loaded beside the weights otherwise.
        dtype: Numbers to load the weights in; as stored when None, except float16 on a CPU, which becomes float32.
        device: Where to put the weights; a module stays where it is when None.
    Raises:
        ModelError: There is no such network, or its files cannot be read.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, nn.Module):
        model = _from_module(source, tokenizer, getattr(getattr(source, "config", None), "name_or_path", ""))
    elif isinstance(source, (str, Path)):
        folder = _locate(str(source))
        adapter = adapter_of(folder)
        if adapter is not None:
            check_base(adapter)
            folder = str(adapter.base)
        module = _load_module(str(source), folder, dtype)
        if adapter is not None:
            merge(module, adapter)
        model = _from_module(module, tokenizer or _load_tokenizer(folder), str(source))
    else:
        raise ModelError(
            f"cannot open {source!r} of type {type(source).__name__}; give a bundled name, a folder, a hub id or a torch.nn.Module"
        )
    if device is not None or (dtype is not None and isinstance(source, nn.Module)):
        model.module.to(device=device, dtype=dtype)
    opened.add("model", model)
    return model


def _locate(source: str) -> str:
    """Folder of a bundled network, or the source itself when it is a folder or looks like a hub id."""
    if source in bundled_names():
        return str(bundled_folder(source))
    if source and Path(source).expanduser().is_dir():
        return str(Path(source).expanduser())
    near = get_close_matches(source, bundled_names(), n=1, cutoff=0.8)
    if near:
        raise ModelError(f"no model {source!r}; did you mean {near[0]!r}? bundled are {', '.join(bundled_names())}")
    if not source or source.startswith((".", "/", "~")) or source.count("/") > 1 or " " in source:
        raise ModelError(f"no model {source!r}: there is no such folder; bundled are {', '.join(bundled_names())}")
    return source


def _load_module(source: str, folder: str, dtype: torch.dtype | None) -> nn.Module:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with _quietly(source in bundled_names()):
            module = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype or "auto", trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {source!r} could not be opened: {reason}. "
            f"Bundled are {', '.join(bundled_names())}; else give a folder with config.json and weights, a hub id, or a module"
        ) from error
    # Half precision is emulated on a CPU: slow, and several kernels lack it.
    return module.float() if dtype is None and module.dtype == torch.float16 else module


@contextlib.contextmanager
def _quietly(is_small: bool) -> Iterator[None]:
    """No progress bar for weights that load in an instant."""
    was_shown = logging.is_progress_bar_enabled()
    if is_small:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_small and was_shown:
            logging.enable_progress_bar()


def _load_tokenizer(folder: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return None


def _from_module(module: nn.Module, tokenizer: Any, name: str) -> Model:
    inner: Any = getattr(module, "_orig_mod", module)
    root = "_orig_mod." if inner is not module else ""
    config = getattr(inner, "config", None)
    family = FAMILIES.get(getattr(config, "model_type", "")) if isinstance(inner, PreTrainedModel) else None
    name, lock = name or type(inner).__name__, lock_of(module)
    if family is None or config is None or not _fits(family, inner):
        return Model(module, tokenizer, name, None, {}, context=_context(config), lock=lock)
    sizes = _sizes(config)
    return Model(
        module=module,
        tokenizer=tokenizer,
        name=name,
        family=family,
        table=family_sites(family, root + _prefix(inner), root, module, sizes),
        n_layers=config.num_hidden_layers,
        d_model=sizes["d_model"],
        vocab=sizes["vocab"],
        context=_context(config),
        lock=lock,
    )


def _prefix(module: PreTrainedModel) -> str:
    return "" if module.base_model is module else f"{module.base_model_prefix}."


def _fits(family: Family, module: PreTrainedModel) -> bool:
    """Whether the module has the blocks that the table names (a bare or a headed model of the family)."""
    return f"{_prefix(module)}{family.blocks}" in dict(module.named_modules())


def _context(config: Any) -> int | None:
    return getattr(config, "max_position_embeddings", None)


def _sizes(config: Any) -> dict[str, int]:
    """Sizes by axis name."""
    heads = config.num_attention_heads
    d_model = config.hidden_size
    return {
        "d_model": d_model,
        "d_mlp": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * d_model,
        "head": heads,
        "kv_head": getattr(config, "num_key_value_heads", None) or heads,
        "d_head": getattr(config, "head_dim", None) or d_model // heads,
        "vocab": config.vocab_size,
    }
