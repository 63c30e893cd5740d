"""Dictionaries spliced into a network: what they reconstruct and what they miss are nodes of its forward, with gradients.

Reference: arXiv:2403.19647 (sparse feature circuits)
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.attachments import editing
from innerview.dictionaries.codes import Codes
from innerview.dictionaries.dictionary import Dictionary
from innerview.edits import Context, Edit
from innerview.edits.shapes import flat, wide
from innerview.errors import DictionaryError
from innerview.models.model import Model
from innerview.where import Where


@dataclass(eq=False)
class Node:
    """One dictionary in a network, and what the latest forward left in it.

    Attributes:
        dictionary: The dictionary.
        error: What the dictionary misses, added behind what it reconstructs, shape [batch, pos, d_out]; None before a forward, or where
            the error is left out.
        kept: The features, sparse where no gradients were asked for; `codes` gives them dense.
    """

    dictionary: Dictionary
    error: Float[Tensor, "batch pos d_out"] | None = None
    kept: Tensor | Codes | None = field(default=None, repr=False)

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


@dataclass(frozen=True, eq=False)
class SplicedIn(Edit):
    """Writes what a dictionary reconstructs, and what it misses, in place of what the network has.

    Attributes:
        node: The dictionary, and where codes and error are left.
        error: Whether what is missed is added.
        through_error: Whether gradients flow back through what is missed, so that they are those of the network itself.
        part: What codes and error are multiplied by, for integrated gradients.
    """

    node: Node
    error: bool = True
    through_error: bool = True
    part: float = 1.0

    @property
    def width(self) -> int:
        return self.node.dictionary.d_out

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        return ((self.node.dictionary.site, self.node.dictionary.d_in),)

    @property
    def label(self) -> str:
        return f"{self.node.dictionary!r} spliced in"

    def to_code(self) -> str:
        return "iv.spliced(model, dictionary)"

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        assert context is not None
        own, (given,) = self.node.dictionary, context.read(x)
        whole = flat(wide(x), own.d_out)
        read = own._fitting(wide(given) if given is not x else wide(x))
        mask = None if context.mask is None else context.mask.to(whole.device)[..., None]
        if not torch.is_grad_enabled():
            return self._quick(x, whole, read, mask)
        codes = own.encode_dense(read)
        # What stands at pads is no part of the nodes.
        codes = codes if mask is None else codes.masked_fill(~mask.to(codes.device), 0.0)
        made = _beside(own.decode(codes, read), whole)
        missed = whole - made
        missed = missed if self.through_error else missed.detach()
        missed = missed if mask is None else missed.masked_fill(~mask, 0.0)
        codes, missed = _node(codes * self.part), _node(missed * self.part)
        self.node.kept, self.node.error = codes, missed if self.error else None
        new = _beside(own.decode(codes, read), whole)
        return (new + missed if self.error else new).to(x.dtype).view(x.shape)

    def _quick(self, x: Tensor, whole: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
        """Without gradients the codes stay sparse, and the network has its own values where the error is kept whole."""
        own = self.node.dictionary
        codes = own.encode(read if mask is None else read.masked_fill(~mask, 0.0))
        codes = codes if mask is None else codes.within(mask[..., 0])
        made = _beside(own.decode(codes, read), whole)
        missed = whole - made
        missed = (missed if mask is None else missed.masked_fill(~mask, 0.0)) * self.part
        if self.part != 1.0:
            codes = codes.with_values(codes.values * self.part)
            made = _beside(own.decode(codes, read), whole)
        self.node.kept, self.node.error = codes, missed if self.error else None
        if self.error and self.part == 1.0:
            return x
        return (made + missed if self.error else made).to(x.dtype).view(x.shape)


def _node(x: Tensor) -> Tensor:
    """The same numbers as a node of its own, at which a gradient is kept, and through which it flows on."""
    made = x + torch.zeros_like(x, requires_grad=True)
    made.retain_grad()
    return made


def _beside(x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.device, other.dtype)


def listed(dictionaries: Any) -> list[Dictionary]:
    """One dictionary, or several.

    Raises:
        DictionaryError: Something else was given, or two write one site.
    """
    found = [dictionaries] if isinstance(dictionaries, Dictionary) else dictionaries
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, Dictionary) for one in found):
        raise DictionaryError(f"what is spliced in is a Dictionary or a list of them, not {dictionaries!r:.80}")
    sites = [one.site_out for one in found]
    if len(set(sites)) < len(sites):
        raise DictionaryError(f"two dictionaries write {max(sites, key=sites.count)!r}; splice one at each site")
    return list(found)


@contextlib.contextmanager
def spliced(
    model: Model, dictionaries: Dictionary | Sequence[Dictionary], *, error: bool = True, through_error: bool = True,
    where: Where = Where(), prompt_tokens: Any = None,
) -> Iterator[Splice]:  # fmt: skip
    """Forwards of this thread inside the block pass through the dictionaries: reconstruction and error are nodes with gradients.

    With the error the network computes what it did without. Transcoders read one site and write another.

    Args:
        model: The network.
        dictionaries: One, or one a site.
        error: Whether what a dictionary misses is added back; without it the network sees the reconstruction alone.
        through_error: Whether gradients flow back through the error too, as in the network itself; otherwise through features alone.
        where: Tokens that they are spliced in at.
        prompt_tokens: As `editing` takes it.
    Raises:
        DictionaryError: Two dictionaries write one site, or a site is unknown.
        EditError: A dictionary does not fit its site, or the site never fired.
    Reference: arXiv:2403.19647
    """
    found = listed(dictionaries)
    if where.schedule is not None:
        raise DictionaryError(f"a dictionary is spliced in whole, not by the schedule {where.schedule!r}; drop it")
    made = Splice(tuple(Node(one) for one in found), isinstance(dictionaries, Dictionary))
    edits = [SplicedIn(node, error, through_error, site=node.dictionary.site_out, where=where) for node in made.nodes]
    with editing(model, edits, prompt_tokens=prompt_tokens):
        yield made
