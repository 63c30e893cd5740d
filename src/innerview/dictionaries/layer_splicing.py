"""One layer of a cross-layer transcoder in a network: its output is what its features and those of the layers before it write."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innerview.dictionaries.codes import Codes
from innerview.dictionaries.cross_layer import CrossLayerTranscoder
from innerview.dictionaries.nodes import Node, beside, node_of
from innerview.edits import Context, Edit
from innerview.edits.shapes import flat, wide
from innerview.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class LayerSplicedIn(Edit):
    """Writes what the features of a layer and of those before it make, and what they miss, in place of the layer's output.

    Attributes:
        transcoder: The cross-layer transcoder.
        nodes: One a layer, where codes and errors are left; those of earlier layers are read.
        layer: Which one this is.
        error: Whether what is missed is added.
        through_error: Whether gradients flow back through what is missed.

    Reference: transformer-circuits.pub/2025/attribution-graphs
    """

    transcoder: CrossLayerTranscoder
    nodes: tuple[Node, ...]
    layer: int
    error: bool = True
    through_error: bool = True

    @property
    def width(self) -> int:
        return self.transcoder.weights.decoder_biases[self.layer].numel()

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        return ((self.transcoder.sites[self.layer], self.transcoder.weights.encoders[self.layer].shape[1]),)

    @property
    def label(self) -> str:
        return f"layer {self.layer} of {self.transcoder!r} spliced in"

    def to_code(self) -> str:
        return "iv.spliced(model, transcoder)"

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        assert context is not None
        (given,), node = context.read(x), self.nodes[self.layer]
        whole, read = flat(wide(x), self.width), wide(given)
        mask = None if context.mask is None else context.mask.to(whole.device)
        has_graph = torch.is_grad_enabled()
        node.given = self._codes(node, read, mask, has_graph)
        node.kept = node_of(node.given) if isinstance(node.given, Tensor) else node.given
        # What is missed follows the network, not the nodes: a change of a node's features adds what they write.
        missed = whole - self._made([one.given for one in self.nodes], whole)
        missed = missed if self.through_error else missed.detach()
        missed = missed if mask is None else missed.masked_fill(~mask[..., None], 0.0)
        missed = node_of(missed) if has_graph else missed
        node.error = missed if self.error else None
        if self.error and not has_graph:
            return x
        made = self._made([one.kept for one in self.nodes], whole)
        return (made + missed if self.error else made).to(x.dtype).view(x.shape)

    def _codes(self, node: Node, read: Tensor, mask: Tensor | None, has_graph: bool) -> Tensor | Codes:
        """Features of this layer's input: dense where gradients are on, sparse where not."""
        if has_graph:
            codes = node.dictionary.encode_dense(read)
            return codes if mask is None else codes.masked_fill(~mask.to(codes.device)[..., None], 0.0)
        codes = node.dictionary.encode(read if mask is None else read.masked_fill(~mask[..., None], 0.0))
        return codes if mask is None else codes.within(mask)

    def _made(self, features: Sequence[Tensor | Codes | None], like: Tensor) -> Tensor:
        """What this layer's features, and those of the layers before it, write here."""
        codes = {}
        for source in self.transcoder.weights.sources(self.layer):
            kept = features[source]
            if kept is None:
                raise DictionaryError(
                    f"layer {source} of the transcoder had not fired when layer {self.layer} did, so what it writes here is unknown; "
                    "name the sites in the order in which they fire, with transcoder.at(sites, site_out=...)"
                )
            codes[source] = kept
        return beside(self.transcoder.decode_at(self.layer, codes), like)
