"""A function of the user's own as an edit."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from innerview.edits.calling import code_of_function, is_same_function, name_of
from innerview.edits.code import code_of
from innerview.edits.context import Context
from innerview.edits.edit import Edit
from innerview.edits.shapes import per_token
from innerview.errors import EditError


@dataclass(frozen=True, eq=False)
class Custom(Edit):
    """Put `function(x, context)` in place of the activation; a share `s` of a schedule goes part of the way, `x + s × (new − x)`.

    The function gets a copy of the activation [batch, pos, ...] and a `Context` (site, positions, steps, mask; None outside of a run),
    and returns a tensor of the same shape, dtype and device.

    Attributes:
        function: The function.
        name: What to call it; its own name when empty.
    """

    function: Callable[[Tensor, Context | None], Tensor]
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self._set(name=name_of(self.function, self.name, "Custom"))
        super().__post_init__()

    @property
    def label(self) -> str:
        return f"{self.name}{self._behind}"

    def is_same(self, other: Edit) -> bool:
        """Whether the other edit does the same: it calls the same function."""
        return super().is_same(other) and is_same_function(self.function, other.function)  # type: ignore[attr-defined]

    def _said(self) -> list[str]:
        kept = [f"{n}={code_of(v)}" for n, v in (("heads", self.heads), ("neurons", self.neurons)) if v is not None]
        return [code_of_function(self.name), f"site={self.site!r}", f"where={self.where.to_code()}", *kept]

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        # A copy: a function that writes in place would write over the network's own numbers.
        new = self.function(x.clone(), context)
        if not isinstance(new, Tensor):
            raise EditError(f"{self.name} returned a {type(new).__name__} at {self.site!r}; return the edited tensor")
        for what in ("shape", "dtype", "device"):
            got, wanted = getattr(new, what), getattr(x, what)
            if got != wanted:
                told = (list(got), list(wanted)) if what == "shape" else (got, wanted)
                raise EditError(
                    f"{self.name} returned {what} {told[0]} at {self.site!r}, where the activation has {told[1]}; return it unchanged"
                )
        return new if share is None else x + (new - x) * per_token(share.to(x.dtype), x)
