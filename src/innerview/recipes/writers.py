"""Weights that write the residual stream: where they are, and an affine map put behind them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from innerview.edits import Edit
from innerview.errors import RecipeError
from innerview.models.model import Model

# Of the largest number: weights are float32, and what is below is their rounding.
CLEAN = 1e-5


@dataclass(frozen=True, eq=False)
class Writer:
    """A module that writes into the stream, by weights alone.

    Attributes:
        path: Path of the module.
        module: A linear map whose weight has its outputs first (`nn.Linear`) or last (`Conv1D`), or an embedding.
    """

    path: str
    module: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The weight."""
        return self.module.weight  # type: ignore[return-value]

    @property
    def is_table(self) -> bool:
        """Whether it is an embedding, whose rows are written as they are."""
        return isinstance(self.module, nn.Embedding)

    def rows(self) -> Tensor:
        """What each input writes, float64, shape [inputs, d_model]."""
        weight = self.weight.detach().double()
        return weight.T if isinstance(self.module, nn.Linear) else weight

    def bias(self) -> Tensor | None:
        """What is written always, float64, shape [d_model]; None for nothing."""
        found = getattr(self.module, "bias", None)
        return None if found is None else found.detach().double()

    def put_behind(self, edit: Edit) -> None:
        """Change the weights so that what is written is what the edit makes of it; the edit must be affine."""
        rows, bias = self.rows(), self.bias()
        nothing = torch.zeros(1, 1, rows.shape[-1], dtype=torch.float64, device=rows.device)
        added = edit.apply(nothing)[0, 0]
        # Each input's share of what is written, without what the map adds once.
        linear = edit.apply(rows[None])[0] - added
        if self.is_table:
            self._store(linear + added)
            return
        self._store(linear)
        self._store_bias(edit.apply(nothing if bias is None else bias[None, None])[0, 0])

    def _store(self, rows: Tensor) -> None:
        new = rows.T if isinstance(self.module, nn.Linear) else rows
        with torch.no_grad():
            self.weight.copy_(new.to(self.weight.dtype))

    def _store_bias(self, bias: Tensor) -> None:
        if getattr(self.module, "bias", None) is None and not bias.any():
            return
        made = bias.to(self.weight.dtype)
        self.module.bias = nn.Parameter(made, requires_grad=self.weight.requires_grad)

    def is_free_of(self, basis: Tensor) -> bool:
        """Whether nothing it writes has a part along the directions.

        Args:
            basis: Orthonormal, float64, shape [k, d_model].
        """
        bias = self.bias()
        written = self.rows() if bias is None else torch.cat([self.rows(), bias[None]])
        return bool((written @ basis.to(written.device).T).abs().max() <= CLEAN * written.abs().max())


def linear_writer(model: Model, site: str, reads: str) -> Writer:
    """The linear map whose output is a site, found by the site that it reads.

    Raises:
        RecipeError: The network has none there, or its weights are of another kind.
    """
    known = model.table.get(reads)
    if site not in model.table or known is None or known.side != "input":
        raise RecipeError(f"{site!r} is not written by one weight that is known (through {reads!r})")
    return _checked(model, site, known.module)


def _checked(model: Model, site: str, path: str) -> Writer:
    module: Any = model.module.get_submodule(path)
    if not isinstance(module, (nn.Linear, nn.Embedding)) and type(module).__name__ != "Conv1D":
        raise RecipeError(
            f"{site!r} is written by {path!r}, a {type(module).__name__}, which is no plain linear map or embedding"
        )
    weight = module.weight
    if weight.device.type == "meta" or not weight.is_floating_point() or weight.ndim != 2:
        raise RecipeError(
            f"the weight of {path!r} is {weight.dtype} on {weight.device}, which cannot be rewritten; load the network in full"
        )
    return Writer(path, module)


def tables(model: Model) -> list[Writer]:
    """The embeddings of the network's width outside of its blocks: of tokens first, then of positions and others."""
    first = model.table["embed"].module if "embed" in model.table else ""
    inner = model.table["blocks.0.resid_in"].module.rpartition(".")[0] if "blocks.0.resid_in" in model.table else None
    found = []
    for path, module in model.module.named_modules():
        is_inside = inner is not None and path.startswith(f"{inner}.")
        if isinstance(module, nn.Embedding) and module.embedding_dim == model.d_model and not is_inside:
            found.append(path)
    return [_checked(model, "embed", path) for path in sorted(found, key=lambda path: path != first)]


def untie(model: Model, writer: Writer) -> None:
    """Give the network's head a weight of its own where it shares the writer's.

    Raises:
        RecipeError: Something else than the head shares it.
    """
    head = model.table["logits"].module if "logits" in model.table else None
    for path, module in model.module.named_modules(remove_duplicate=False):
        if module is writer.module and path != writer.path:
            raise RecipeError(f"{writer.path!r} is used as {path!r} too, so a change in one is a change in both")
        shared = [name for name, p in module._parameters.items() if p is writer.weight and module is not writer.module]
        if shared and path != head:
            raise RecipeError(f"the weight of {writer.path!r} is that of {path!r} too, so a change in one changes both")
        for name in shared:
            setattr(
                module, name, nn.Parameter(writer.weight.detach().clone(), requires_grad=writer.weight.requires_grad)
            )
            _say_untied(model.module)


def _say_untied(root: Any) -> None:
    for config in (getattr(root, "config", None), getattr(getattr(root, "config", None), "text_config", None)):
        if config is not None and getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
