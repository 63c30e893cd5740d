"""Opening a network: by bundled name, hub id, folder, or any module."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from innerview.bundled import bundled_folder, bundled_names
from innerview.errors import ModelError
from innerview.models.adapters import adapter_of, check_base, merge
from innerview.models.families import FAMILIES, Family
from innerview.models.finding import found_in
from innerview.models.loading import load_module
from innerview.models.model import Model, lock_of
from innerview.models.table import family_sites
from innerview.opened import opened


def open_model(
    source: Any,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict[str, Any] | None = None,
) -> Model:
    """An opened network.

    Args:
        source: A bundled name (`"pocket"`), a folder, a hub id, any `torch.nn.Module`, a network opened by TransformerLens or
            nnsight, or a Model (returned as it is).
        tokenizer: Tokenizer of a module that was built by hand; loaded beside the weights otherwise.
        dtype: Numbers to load the weights in; as stored when None, except float16 on a CPU, which becomes float32.
        device: Where to put the weights; a module stays where it is when None.
        device_map: How to spread the weights over devices, such as `"auto"`; needs accelerate.
    Raises:
        ModelError: There is no such network, or its files cannot be read.
    """
    if isinstance(source, Model):
        return source
    if device is not None and device_map is not None:
        raise ModelError(f"device={device!r} and device_map={device_map!r} were both given; give one of them")
    module = _module_of(source)
    if module is not None:
        if device_map is not None:
            raise ModelError(
                f"device_map={device_map!r} spreads weights while they load, and {type(source).__name__} is loaded already; "
                "give a folder or a hub id, or use device="
            )
        _move(module, device, dtype)
        tokenizer = tokenizer or getattr(source, "tokenizer", None)
        model = _from_module(module, tokenizer, getattr(getattr(module, "config", None), "name_or_path", ""))
    elif isinstance(source, (str, Path)):
        model = _from_files(str(source), tokenizer, dtype, device, device_map)
    else:
        raise ModelError(
            f"cannot open {source!r} of type {type(source).__name__}; give a bundled name, a folder, a hub id or a torch.nn.Module"
        )
    opened.add("model", model)
    return model


def _module_of(source: Any) -> nn.Module | None:
    """The torch module of what others opened: of a TransformerLens bridge, of an nnsight model, or the module itself."""
    for name in ("original_model", "_model", "_module"):
        inner = vars(source).get(name) if hasattr(source, "__dict__") else None
        if inner is None and isinstance(source, nn.Module):
            inner = source._modules.get(name)
        is_peer = type(source).__module__.partition(".")[0] in ("transformer_lens", "nnsight")
        if isinstance(inner, nn.Module) and (is_peer or not isinstance(source, nn.Module)):
            return inner
    return source if isinstance(source, nn.Module) else None


def _from_files(source: str, tokenizer: Any, dtype: Any, device: Any, device_map: Any) -> Model:
    folder = _locate(source)
    adapter = adapter_of(folder)
    if adapter is not None:
        check_base(adapter)
        folder = str(adapter.base)
    module = load_module(source, folder, dtype, device_map)
    if adapter is not None:
        merge(module, adapter)
    _move(module, device, None)
    return _from_module(module, tokenizer or _load_tokenizer(folder), source)


def _move(module: nn.Module, device: Any, dtype: torch.dtype | None) -> None:
    if device is None and dtype is None:
        return
    try:
        module.to(device=device, dtype=dtype)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        asked = " and ".join(f"{n}={v!r}" for n, v in (("device", device), ("dtype", dtype)) if v is not None)
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{type(module).__name__} cannot be moved to {asked}: {reason}; leave {asked} out, or load it so"
        ) from error


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
        return _found(
            module, inner, root, Model(module, tokenizer, name, None, {}, context=_context(config), lock=lock)
        )
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


def _found(module: nn.Module, inner: nn.Module, root: str, model: Model) -> Model:
    """The same, with the sites that are found in the network."""
    with model.lock:
        found = found_in(inner)
    table = {name: replace(site, module=(root + site.module).rstrip(".")) for name, site in found.table.items()}
    return replace(
        model,
        family=found.family,
        table=table,
        n_layers=found.n_layers,
        d_model=found.d_model,
        vocab=found.vocab,
        opened_by="finding" if table else "path",
        checks=found.checks,
        refused=found.refused,
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
