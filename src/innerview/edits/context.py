"""What an edit is told about the tokens in its hands."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from innerview.errors import EditError
from innerview.models.site import Site


@dataclass(frozen=True, eq=False)
class Context:
    """Where an activation belongs: its site, and its tokens.

    Attributes:
        site: The site that the activation is read at.
        n_pos: Tokens of each row in the activation.
        mask: True where the edit applies, shape [batch, pos]; None for everywhere.
    """

    site: Site
    n_pos: int
    mask: Tensor | None = None
    _forward: Any = field(default=None, repr=False)
    _sources: tuple[Site, ...] = field(default=(), repr=False)
    _value: Any = field(default=None, repr=False)
    _share: tuple[int, int] | None = field(default=None, repr=False)

    def read(self, x: Tensor) -> tuple[Tensor, ...]:
        """The activations at the edit's `sources`, each shape [batch, pos, ...]: `x` itself at its own site, else what has passed there.

        Raises:
            EditError: A source has not fired in this forward.
        """
        return tuple(x if source.name == self.site.name else self._mine(source) for source in self._sources)

    def part(self, nth: int, of: int, mask: Tensor | None) -> "Context":
        """What is told about an equal share of the rows."""
        return replace(self, mask=mask, _share=(nth, of))

    def _mine(self, source: Site) -> Tensor:
        return self._rows_of(self._passed(source))

    def _passed(self, source: Site) -> Tensor:
        if source.point == self.site.point:
            return source.read(self._value, None if self._forward is None else self._forward.shape)
        found = None if self._forward is None else self._forward.taken(source)
        if found is None:
            raise EditError(
                f"an edit at {self.site.name!r} reads {source.name!r}, which had not fired in this forward; "
                "read at the edited site or before it, and call the network through its root module"
            )
        return found

    @property
    def has_positions(self) -> bool:
        """Whether the positions of the tokens are known."""
        return self._forward is not None and self._forward.shape is not None and self._forward.rows is not None

    @property
    def pos(self) -> Tensor:
        """Position of each token in its row, negative for left pads, shape [batch, pos].

        Raises:
            EditError: The network was not called with token ids, or without a mask that says where rows begin.
        """
        if not self.has_positions:
            raise EditError(
                f"positions at {self.site.name!r} are unknown: the network was not called with ids through its root module; "
                "use iv.generate or iv.capture, or an edit that does not ask for them"
            )
        if not self._forward.rows.has_positions:
            raise EditError(self._forward.rows.why_unknown)
        return self._rows_of(self._forward.pos)[:, -self.n_pos :]

    @property
    def ids(self) -> Tensor:
        """Id of each token, shape [batch, pos].

        Raises:
            EditError: The network was not called with token ids.
        """
        if self._forward is None or self._forward.shape is None:
            raise EditError(
                f"tokens at {self.site.name!r} are unknown: the network was not called with ids through its root module"
            )
        return self._rows_of(self._forward.token_ids())[:, -self.n_pos :]

    @property
    def step(self) -> Tensor:
        """Number of each generated token, negative for the prompt's, shape [batch, pos].

        Raises:
            EditError: The positions, or the prompts' lengths, are unknown.
        """
        return self.pos - self._rows_of(self._forward.prompt_len())

    def _rows_of(self, found: Tensor) -> Tensor:
        """What is told row by row, of this share's rows."""
        return found if self._share is None else found.chunk(self._share[1])[self._share[0]]
