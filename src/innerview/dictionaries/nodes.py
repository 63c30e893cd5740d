"""Nodes that dictionaries are in a network's forward: what the latest one left in them, and gradients by them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.codes import Codes
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import DictionaryError


@dataclass(eq=False)
class Node:
    """One dictionary in a network, and what the latest forward left in it.

    Attributes:
        dictionary: The dictionary.
        error: What the dictionary misses, added behind what it reconstructs, shape [batch, pos, d_out]; None before a forward, or where
            the error is left out.
        kept: The features, sparse where no gradients were asked for; `codes` gives them dense.
        given: The features before they became a node, where later layers read them again.
    """

    dictionary: Dictionary
    error: Float[Tensor, "batch pos d_out"] | None = None
    kept: Tensor | Codes | None = field(default=None, repr=False)
    given: Tensor | Codes | None = field(default=None, repr=False)

    @property
    def codes(self) -> Float[Tensor, "batch pos n_features"]:
        """Every feature at every token, 0 where nothing was spliced in.

        Raises:
            DictionaryError: No forward has passed.
        """
        if self.kept is None:
            raise DictionaryError(
                f"no forward has passed {self.dictionary.site_out!r} yet, so there are no codes; run the network inside the block"
            )
        return self.kept.dense() if isinstance(self.kept, Codes) else self.kept

    @property
    def leaves(self) -> list[Tensor]:
        """What gradients are taken by: the codes, and the error where it is kept."""
        return [self.codes] if self.error is None else [self.codes, self.error]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of a number with respect to one dictionary's nodes.

    Attributes:
        codes: Shape [batch, pos, n_features].
        error: Shape [batch, pos, d_out]; None where the error is left out.
    """

    codes: Float[Tensor, "batch pos n_features"]
    error: Float[Tensor, "batch pos d_out"] | None


@dataclass(frozen=True, eq=False)
class Splice:
    """Dictionaries in a network, and what its latest forward left in them. Made by `spliced`.

    Attributes:
        nodes: One a dictionary, in their order.
        is_one: Whether one dictionary was given, not a list.
    """

    nodes: tuple[Node, ...]
    is_one: bool = True

    @property
    def codes(self) -> Any:
        """The features of the latest forward, shape [batch, pos, n_features]; of a list of dictionaries a list."""
        return self._each([node.codes for node in self.nodes])

    @property
    def error(self) -> Any:
        """What is missed in the latest forward, shape [batch, pos, d_out], or None; of a list of dictionaries a list."""
        return self._each([node.error for node in self.nodes])

    def gradients(self, number: Tensor, *, retain_graph: bool = False) -> Any:
        """Gradients of a number made from the latest forward, taking codes and error each as it stands; of a list a list.

        A change of an early dictionary's codes acts through the later ones, whose codes and errors follow.

        Args:
            number: One number, made while gradients were on.
            retain_graph: Whether other gradients will be taken of the same forward.
        Raises:
            DictionaryError: The number does not hang on the forward.
        """
        leaves = [leaf for node in self.nodes for leaf in node.leaves]
        if not isinstance(number, Tensor) or not number.requires_grad or not all(leaf.requires_grad for leaf in leaves):
            raise DictionaryError(
                "the number does not hang on this forward; call the network with gradients on, inside the block, and make the number from "
                "what it returns"
            )
        before = [leaf.grad for leaf in leaves]
        # Weighed with ones, not summed: inside `torch.no_grad()` a sum would not hang on the forward.
        found = iter(
            torch.autograd.grad(number, leaves, torch.ones_like(number), retain_graph=retain_graph, allow_unused=True)
        )
        for leaf, grad in zip(leaves, before, strict=True):
            # What is taken here adds nothing to what a backward of the user's own leaves.
            leaf.grad = grad
        made = []
        for node in self.nodes:
            each = [_or_zero(next(found), leaf) for leaf in node.leaves]
            made.append(Gradients(each[0], each[1] if len(each) > 1 else None))
        return self._each(made)

    def _each(self, found: list[Any]) -> Any:
        return found[0] if self.is_one else found


def _or_zero(gradient: Tensor | None, of: Tensor) -> Tensor:
    return torch.zeros_like(of) if gradient is None else gradient


def node_of(x: Tensor) -> Tensor:
    """The same numbers as a node of its own, at which a gradient is kept, and through which it flows on."""
    made = x + torch.zeros_like(x, requires_grad=True)
    made.retain_grad()
    return made


def beside(x: Tensor, other: Tensor) -> Tensor:
    """The same on another tensor's device, in its number format."""
    return x.to(other.device, other.dtype)
