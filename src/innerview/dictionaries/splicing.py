"""Dictionaries spliced into a network: what they reconstruct and what they miss are nodes of its forward, with gradients.

Reference: arXiv:2403.19647 (sparse feature circuits)
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.attachments import editing
from innerview.dictionaries.cross_layer import CrossLayerTranscoder
from innerview.dictionaries.crosscoder import Crosscoder
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.layer_splicing import LayerSplicedIn
from innerview.dictionaries.nodes import Node, Splice, beside, node_of
from innerview.edits import Context, Edit
from innerview.edits.shapes import flat, wide
from innerview.errors import DictionaryError
from innerview.models.model import Model
from innerview.where import Where


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
        made = beside(own.decode(codes, read), whole)
        missed = whole - made
        missed = missed if self.through_error else missed.detach()
        missed = missed if mask is None else missed.masked_fill(~mask, 0.0)
        codes, missed = node_of(codes * self.part), node_of(missed * self.part)
        self.node.kept, self.node.error = codes, missed if self.error else None
        new = beside(own.decode(codes, read), whole)
        return (new + missed if self.error else new).to(x.dtype).view(x.shape)

    def _quick(self, x: Tensor, whole: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
        """Without gradients the codes stay sparse, and the network has its own values where the error is kept whole."""
        own = self.node.dictionary
        codes = own.encode(read if mask is None else read.masked_fill(~mask, 0.0))
        codes = codes if mask is None else codes.within(mask[..., 0])
        made = beside(own.decode(codes, read), whole)
        missed = whole - made
        missed = (missed if mask is None else missed.masked_fill(~mask, 0.0)) * self.part
        if self.part != 1.0:
            codes = codes.with_values(codes.values * self.part)
            made = beside(own.decode(codes, read), whole)
        self.node.kept, self.node.error = codes, missed if self.error else None
        if self.error and self.part == 1.0:
            return x
        return (made + missed if self.error else made).to(x.dtype).view(x.shape)


def listed(dictionaries: Any) -> list[Dictionary]:
    """One dictionary, or several.

    Raises:
        DictionaryError: Something else was given, or two write one site.
    """
    found = [dictionaries] if isinstance(dictionaries, Dictionary) else dictionaries
    several = [found] if isinstance(found, Crosscoder) else found
    if isinstance(several, Sequence) and any(isinstance(one, Crosscoder) for one in several):
        raise DictionaryError(
            "a crosscoder's features are known when its last site has fired, so they cannot stand in place of the earlier ones; "
            "change what they write with crosscoder.on(acts).clamp(...), .scale or .ablate"
        )
    if not isinstance(found, Sequence) or not found or not all(isinstance(one, Dictionary) for one in found):
        raise DictionaryError(
            f"what is spliced in is a Dictionary or a list of them, or one CrossLayerTranscoder, not {dictionaries!r:.80}"
        )
    sites = [one.site_out for one in found]
    if len(set(sites)) < len(sites):
        raise DictionaryError(f"two dictionaries write {max(sites, key=sites.count)!r}; splice one at each site")
    return list(found)


def splice_of(
    dictionaries: Any, where: Where, *, error: bool = True, through_error: bool = True, part: float = 1.0
) -> tuple[Splice, list[Edit]]:
    """The nodes of dictionaries, and the edits that splice them in; of a cross-layer transcoder one a layer.

    Args:
        dictionaries: One, several, or a cross-layer transcoder.
        where: Tokens that they are spliced in at.
        error: Whether what is missed is added.
        through_error: Whether gradients flow back through what is missed.
        part: What codes and errors are multiplied by.
    Raises:
        DictionaryError: They cannot be spliced in.
    """
    if isinstance(dictionaries, CrossLayerTranscoder):
        nodes = tuple(Node(dictionaries.pair(layer)) for layer in range(dictionaries.n_layers))
        return Splice(nodes, is_one=False), [
            LayerSplicedIn(dictionaries, nodes, layer, error, through_error, site=site, where=where)
            for layer, site in enumerate(dictionaries.sites_out)
        ]
    made = Splice(tuple(Node(one) for one in listed(dictionaries)), isinstance(dictionaries, Dictionary))
    return made, [
        SplicedIn(node, error, through_error, part, site=node.dictionary.site_out, where=where) for node in made.nodes
    ]


@contextlib.contextmanager
def spliced(
    model: Model, dictionaries: Dictionary | Sequence[Dictionary] | CrossLayerTranscoder, *, error: bool = True, through_error: bool = True,
    where: Where = Where(), prompt_tokens: Any = None,
) -> Iterator[Splice]:  # fmt: skip
    """Forwards of this thread inside the block pass through the dictionaries: reconstruction and error are nodes with gradients.

    With the error the network computes what it did without. Transcoders read one site and write another; a cross-layer transcoder's
    outputs are each the sum of what its layers so far write.

    Args:
        model: The network.
        dictionaries: One, or one a site; or a cross-layer transcoder, of which codes and errors are lists, one a layer.
        error: Whether what a dictionary misses is added back; without it the network sees the reconstruction alone.
        through_error: Whether gradients flow back through the error too, as in the network itself; otherwise through features alone.
        where: Tokens that they are spliced in at.
        prompt_tokens: As `editing` takes it.
    Raises:
        DictionaryError: Two dictionaries write one site, a site is unknown, or it is a crosscoder, whose features are known too late.
        EditError: A dictionary does not fit its site, or the site never fired.
    Reference: arXiv:2403.19647
    """
    if where.schedule is not None:
        raise DictionaryError(f"a dictionary is spliced in whole, not by the schedule {where.schedule!r}; drop it")
    made, edits = splice_of(dictionaries, where, error=error, through_error=through_error)
    with editing(model, edits, prompt_tokens=prompt_tokens):
        yield made
