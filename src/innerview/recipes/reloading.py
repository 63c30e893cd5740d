"""New biases that a saved network keeps: its config told of them, where it has a word for them."""

import copy
from typing import Any

import torch
from torch import nn

# What configs call biases of the output projections, by a part of the new bias's path.
FLAGS = ("attention_bias", "mlp_bias", "use_bias", "bias")


def make_reloadable(root: Any, added: set[str]) -> bool:
    """Set the config so that the network built from it has the new biases, with zeros for those that come along; whether it could.

    Args:
        root: The root module, of a class that is built from its `config`.
        added: Names of parameters that are new.
    """
    config = getattr(root, "config", None)
    if not added:
        return True
    if config is None:
        return False
    flags = [flag for flag in FLAGS if getattr(config, flag, None) is False]
    for chosen in [*([flag] for flag in flags), flags]:
        told = copy.deepcopy(config)
        for flag in chosen:
            setattr(told, flag, True)
        names = _names(type(root), told)
        if names is None or not set(root.state_dict()) <= set(names):
            continue
        lacking = [name for name in names if name not in root.state_dict()]
        if all(name.endswith(".bias") for name in lacking):
            for name in lacking:
                _add_zeros(root, name, names[name])
            for flag in chosen:
                setattr(config, flag, True)
            return True
    return False


def _names(kind: type, config: Any) -> dict[str, torch.Size] | None:
    """Names and shapes of the parameters of a network built from a config; None where it cannot be built."""
    try:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in kind(config).state_dict().items()}
    except (TypeError, ValueError, AttributeError, RuntimeError, KeyError):
        return None


def _add_zeros(root: nn.Module, name: str, shape: torch.Size) -> None:
    module = root.get_submodule(name.rpartition(".")[0])
    weight: Any = module.weight
    module.bias = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device), weight.requires_grad)
