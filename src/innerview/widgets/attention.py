"""`Attention`: heads × tokens; pin a head, pin a token."""

from typing import Any, ClassVar

import numpy as np
import traitlets

from innerview.activations import Activations
from innerview.attachments import attached
from innerview.errors import WidgetError
from innerview.models.model import Model
from innerview.widgets import wire
from innerview.widgets.base import Widget, choice, plain, whole
from innerview.widgets.newest import Newest
from innerview.widgets.patterns import Patterns

TRAIT_BYTES = 1_000_000
# Keys of one answer.
MOST_KEYS = 512
SIDES = ("from", "to")
TABLE_HEADS = 64


class Attention(Widget):
    """Attention patterns: what each head of each layer attends to from a token, or who attends to it.

    Args:
        shown: A network together with `text`, or activations that hold `attn.pattern`.
        text: What to read, with a network.
        row: Which of the captured texts, with activations.
        token: The token to begin with; negative ones count from the end.
    Raises:
        WidgetError: There are no patterns in it, or no such row or token.

    A text that it reads itself is read hermetically: without what is attached, and without open blocks.
    """

    bundle: ClassVar[str] = "attention"
    heading: ClassVar[str] = "Attention"
    verbs: ClassVar[tuple[str, ...]] = ("weights",)
    writable: ClassVar[dict[str, str]] = {
        "head": "check_head", "token": "check_token", "side": "check_side", "layer": "check_layer",
    }  # fmt: skip

    about = traitlets.Dict().tag(sync=True)
    patterns = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    pinned = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True, echo_update=False)
    token = traitlets.Int(0).tag(sync=True, echo_update=False)
    side = traitlets.Unicode("from").tag(sync=True, echo_update=False)
    layer = traitlets.Int(-1).tag(sync=True, echo_update=False)

    def __init__(self, shown: Model | Activations, text: Any = None, *, row: int = 0, token: int = -1) -> None:
        self._patterns = Patterns.of(shown, text, row)
        count = len(self._patterns.words)
        if not -count <= token < count:
            raise WidgetError(f"no token {token}; the text has {count}, use {-count} to {count - 1}")
        self._layers = self._patterns.layers
        self._newest = Newest("innerview-attention")
        ignored = [a.name for a in attached(shown) if a.enabled] if isinstance(shown, Model) else []
        super().__init__(about=self._about(ignored), patterns=self._whole(), token=token % count)
        self._pin()
        self.observe(lambda _: self._newest.put(self._repin), ["token", "side", "layer"])

    def check_head(self, value: Any) -> int:
        return whole(value, -1, len(self._patterns.heads) - 1)

    def check_token(self, value: Any) -> int:
        return whole(value, 0, len(self._patterns.words) - 1)

    def check_side(self, value: Any) -> str:
        return choice(value, SIDES)

    def check_layer(self, value: Any) -> int:
        return whole(value, -1, len(self._layers) - 1)

    def do_weights(self, message: dict[str, Any]) -> Any:
        """Weights of a layer's heads, or of all, between one token and a stretch of tokens, shape [head, stretch]."""
        layer = self.check_layer(message.get("layer", -1))
        if layer < 0 and not self._patterns.is_held:
            raise WidgetError("this text is read a layer at a time; ask for one")
        token = self.check_token(message.get("token"))
        side = self.check_side(message.get("side"))
        first = whole(message.get("first"), 0, len(self._patterns.words) - 1)
        last = min(len(self._patterns.words), first + whole(message.get("count"), 1, MOST_KEYS))
        return lambda: {
            "weights": wire.pack(self._patterns.weights(token, side, layer)[:, first:last], "float32"),
            "first": first,
        }

    def html_table(self) -> str:
        layer, words = self._read_layer(), self._patterns.words
        weights = self._patterns.weights(self.token, self.side, layer)
        heads = [self._patterns.heads[i] for i in self._patterns.heads_of(layer)]
        rows = []
        for (site, head), row in list(zip(heads, weights, strict=True))[:TABLE_HEADS]:
            best = np.argsort(-row, kind="stable")[:3]
            rows.append([f"{site} head {head}", *(f"{wire.visible(words[i])} ({i}) {row[i]:.2f}" for i in best)])
        said = "attends most to" if self.side == "from" else "is attended to most by"
        caption = (
            f"Attention · {self._patterns.model_name} · token {self.token} {wire.visible(words[self.token])} {said}"
        )
        return wire.html_table(["", *["1st", "2nd", "3rd"][: len(words)]], rows, caption)

    def plain_text(self) -> str:
        words = self._patterns.words
        return (
            f"Attention of {self._patterns.model_name}: {len(self._patterns.heads)} heads over {len(words)} tokens, "
            f"token {self.token} {wire.visible(words[self.token])} pinned"
        )

    def page_title(self) -> str:
        return f"Attention · {self._patterns.model_name} · {''.join(self._patterns.words)[:80]}"

    def _about(self, ignored: list[str]) -> dict[str, Any]:
        found = self._patterns
        return {
            "model": wire.sendable(found.model_name), "words": [wire.sendable(word) for word in found.words],
            "ids": [int(i) for i in found.ids], "layers": self._layers,
            "heads": [[self._layers.index(site), head] for site, head in found.heads],
            "is_held": found.is_held, "ignored": [wire.sendable(name) for name in ignored],
        }  # fmt: skip

    def _whole(self) -> dict[str, Any] | None:
        """Everything, where it is small: a page without a kernel can then move the pins."""
        numbers = len(self._patterns.heads) * len(self._patterns.words) ** 2
        found = self._patterns.whole() if numbers * 4 <= TRAIT_BYTES else None
        return None if found is None else wire.pack(found, "float32")

    def _read_layer(self) -> int:
        """The layer whose weights are read; -1 where all are held."""
        return -1 if self._patterns.is_held else max(0, self.layer)

    def _repin(self) -> None:
        try:
            self._pin()
        except Exception as error:
            self.tell("error", plain(error))

    def _pin(self) -> None:
        """The pinned token's weights, for the saved state of a text that is not sent whole."""
        token, side, layer = self.token, self.side, self._read_layer()
        heads, tokens = len(self._patterns.heads_of(layer)), len(self._patterns.words)
        if self.patterns is not None or heads * tokens * 4 > TRAIT_BYTES:
            return
        weights = wire.pack(self._patterns.weights(token, side, layer), "float32")
        if (token, side, layer) == (self.token, self.side, self._read_layer()):
            self.push(pinned={"token": token, "side": side, "layer": layer, "weights": weights})
