"""Sites that no module holds: computed, when they are asked for, from what a module receives."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from innerview.models.matrix import into_expert, out_of_expert


class _Derived:
    """A function of a module's input. It holds the module weakly: a table of sites must not keep a network alive."""

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)

    @property
    def module(self) -> nn.Module:
        """The module."""
        module = self._module()
        assert module is not None, "the network of this site is gone"
        return module

    def __deepcopy__(self, memo: dict) -> "_Derived":
        return self


class PerHead(_Derived):
    """Each head through the output projection alone, without its bias: [..., head, d_head] to [..., head, d_model].

    The sum over heads is what the projection returns, less its bias.

    Reference: https://transformer-circuits.pub/2021/framework
    """

    def __call__(self, heads: Tensor) -> Tensor:
        module = self.module
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_meta and type(module) in (nn.Linear, Conv1D):
            into = weight if type(module) is Conv1D else weight.T
            each = into.unflatten(0, (heads.shape[-2], -1))
            return torch.einsum("...hd,hdm->...hm", heads, each)
        return self._one_by_one(module, heads)

    def _one_by_one(self, module: nn.Module, heads: Tensor) -> Tensor:
        # Weights that are quantised, or stay elsewhere until the module runs: it is run itself, past its hooks.
        flat = torch.zeros_like(heads)
        bias = module.forward(flat.flatten(-2))
        results = []
        for head in range(heads.shape[-2]):
            alone = flat.clone()
            alone[..., head, :] = heads[..., head, :]
            results.append(module.forward(alone.flatten(-2)) - bias)
        return torch.stack(results, dim=-2)


class ExpertsChosen:
    """Which experts each token goes to, from what the experts are called with, shape [tokens, choice]."""

    def __call__(self, called: tuple) -> Tensor:
        return called[1]


class ExpertsHidden(_Derived):
    """The neurons of the experts that each token goes to, before the router's weights, shape [tokens, choice, d_mlp]."""

    def __call__(self, called: tuple) -> Tensor:
        experts: Any = self.module
        x, chosen = called[0], called[1]
        hidden = x.new_zeros(*chosen.shape, out_of_expert(experts, 0)[0].shape[0])
        for expert in chosen.unique().tolist():
            tokens, choice = torch.where(chosen == expert)
            if expert < experts.num_experts:
                weight, bias = into_expert(experts, expert)
                both = x[tokens] @ weight.to(x) if bias is None else x[tokens] @ weight.to(x) + bias.to(x)
                hidden = hidden.index_put((tokens, choice), experts._apply_gate(both))
        return hidden


class NormScale(_Derived):
    """What a norm divides by: sqrt(mean(x²) + eps), of `x` less its mean where the norm takes the mean off. Shape [..., 1]."""

    def __call__(self, x: Tensor) -> Tensor:
        module = self.module
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if takes_mean_off(module):
            wide = wide - wide.mean(dim=-1, keepdim=True)
        return (wide.square().mean(dim=-1, keepdim=True) + norm_eps(module)).sqrt().to(x.dtype)


def takes_mean_off(norm: nn.Module) -> bool:
    """Whether a norm subtracts the mean: LayerNorm does, RMSNorm does not (and T5's LayerNorm is one)."""
    name = type(norm).__name__
    return isinstance(norm, nn.LayerNorm) or ("LayerNorm" in name and "RMS" not in name and "T5" not in name)


def norm_eps(norm: nn.Module) -> float:
    """What a norm adds to the variance."""
    for name in ("eps", "variance_epsilon", "norm_eps", "epsilon"):
        eps = getattr(norm, name, None)
        if isinstance(eps, float):
            return eps
    return 0.0
