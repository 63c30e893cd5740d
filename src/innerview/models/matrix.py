"""The matrix of one module, wherever and however its weight is kept: transposed, offloaded, quantised, or one expert of many."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from innerview.errors import ModelError


def matrix_of(module: nn.Module) -> Float[Tensor, "into out"]:
    """The matrix that a linear map multiplies rows by, shape [in, out], wherever and however its weight is kept.

    Raises:
        ModelError: It cannot be had.
    """
    weight = getattr(module, "weight", None)
    if type(module) is Conv1D:
        return held(module, "weight")
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
        return held(module, "weight").T
    width = getattr(module, "in_features", None)
    if not isinstance(width, int):
        raise ModelError(
            f"no matrix in {type(module).__name__}: it keeps no weight of two axes; read its parameters yourself"
        )
    # Quantised weights: what the module does to each unit vector is its matrix.
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    bias = bias_of(module)
    with torch.no_grad():
        made = module.forward(torch.eye(width, dtype=dtype, device=device))
    return made if bias is None else made - bias


def bias_of(module: nn.Module) -> Tensor | None:
    """The bias of a linear map, None without one."""
    return None if getattr(module, "bias", None) is None else held(module, "bias")


def held(module: nn.Module, name: str) -> Tensor:
    """A parameter of a module, from where offloading keeps it if the module itself has only its shape."""
    tensor = getattr(module, name)
    if not tensor.is_meta:
        return tensor.detach()
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", None) or (hook,):
        kept = getattr(one, "weights_map", None)
        if kept is not None:
            return kept[name].detach()
    raise ModelError(
        f"the {name} of {type(module).__name__} is on the meta device, and nothing says where its numbers are; load it first"
    )


def are_known_experts(module: Any) -> bool:
    """Whether a module holds the gated experts of a mixture in the way in which transformers keeps them."""
    told = ("gate_up_proj", "down_proj", "is_transposed", "is_concatenated", "has_bias", "num_experts")
    return module is not None and all(hasattr(module, name) for name in told)


def into_expert(experts: Any, expert: int) -> tuple[Float[Tensor, "d_model both"], Tensor | None]:
    """What one expert multiplies its input by, gates and values together, and its bias."""
    weight = held(experts, "gate_up_proj")[expert]
    bias = held(experts, "gate_up_proj_bias")[expert] if experts.has_bias else None
    return weight if experts.is_transposed else weight.T, bias


def out_of_expert(experts: Any, expert: int) -> tuple[Float[Tensor, "d_mlp d_model"], Tensor | None]:
    """What one expert multiplies its neurons by, and its bias."""
    weight = held(experts, "down_proj")[expert]
    bias = held(experts, "down_proj_bias")[expert] if experts.has_bias else None
    return weight if experts.is_transposed else weight.T, bias
