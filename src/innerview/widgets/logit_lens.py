"""`LogitLens`: layers × tokens, the top word of each cell, and what stands behind a cell."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import traitlets

from innerview.attachments import attached
from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import WidgetError
from innerview.features.view import Partner
from innerview.lens.logit import Lens, logit_lens
from innerview.models.model import Model
from innerview.models.text import token_word
from innerview.widgets import links, wire
from innerview.widgets.acting import OpensActing, writers
from innerview.widgets.base import choice, text, whole

TRAIT_BYTES = 1_000_000
TEXT_LIMIT = 20_000
TABLE_COLUMNS = 24
SHADES = ("probability", "rank")
SHOWS = ("this", "other", "both", "difference")


class LogitLens(OpensActing):
    """A lens over a text, and over a second one beside it when there is one.

    Args:
        shown: A lens, or a model together with `text`.
        text: What to read, with a model.
        compare: A second text to read beside it, with a model.

    Texts that it reads itself are read hermetically: without what is attached, and without open blocks.
    """

    bundle: ClassVar[str] = "logit_lens"
    heading: ClassVar[str] = "Logit lens"
    verbs: ClassVar[tuple[str, ...]] = ("rank", "cell", "compare", "features", "follow")
    writable: ClassVar[dict[str, str]] = {"shade": "check_shade", "show": "check_show", "pinned": "check_pinned"}

    lens = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    other = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    shade = traitlets.Unicode("probability").tag(sync=True, echo_update=False)
    show = traitlets.Unicode("this").tag(sync=True, echo_update=False)
    pinned = traitlets.List(allow_none=True, default_value=None).tag(sync=True, echo_update=False)

    def __init__(self, shown: Lens | Model, text: str | None = None, *, compare: str | None = None) -> None:
        lens = shown if isinstance(shown, Lens) else _read(shown, text, compare)
        self._lens, self._other = lens, lens.other
        self._comparison = 0
        super().__init__(
            lens=_traits(lens, "unedited" if lens.other_label == "edited" else lens.text)
            | {"ignored": [] if lens is shown else [a.name for a in attached(lens.model) if a.enabled]},
            other=None if lens.other is None else _traits(lens.other, lens.other_label, lens),
            show="this" if lens.other is None else "both",
        )

        links.join(self, model=lens.model)

    @classmethod
    def from_result(cls, result: Lens) -> "LogitLens":
        """The widget that shows a lens."""
        return cls(result)

    def check_shade(self, value: Any) -> str:
        return choice(value, SHADES)

    def check_show(self, value: Any) -> str:
        return choice(value, SHOWS)

    def check_pinned(self, value: Any) -> list[int] | None:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise WidgetError(f"a cell is [layer, token], not {str(value)[:40]!r}")
        return list(_cell(self._lens, *value))

    def do_rank(self, message: dict[str, Any]) -> Any:
        """The ranks of one token, shape [layer, pos]."""
        lens = self._which(message)
        token = whole(message.get("token"), 0, 2**31 - 1)
        return lambda: {"ranks": wire.pack(lens.rank(token), "int32")}

    def do_cell(self, message: dict[str, Any]) -> Any:
        """All top words of one cell, for a lens too large to be sent whole."""
        lens = self._which(message)
        layer, pos = _cell(lens, message.get("layer"), message.get("pos"))
        ids = _array(lens.top_ids)[layer, pos]
        return {
            "ids": wire.pack(ids, "int32"),
            "logprobs": wire.pack(_array(lens.top_logprobs)[layer, pos], "float32"),
            "texts": _texts(lens, ids),
        }

    def do_features(self, message: dict[str, Any]) -> Any:
        """The features that wrote a cell's word: those at the cell's token, of dictionaries that the stream had passed by then.

        Raises:
            WidgetError: The lens was read with edits in force: features are read without.
        """
        lens = self._which(message)
        layer, pos = _cell(lens, message.get("layer"), message.get("pos"))
        given = message.get("token")
        token = int(lens.top_ids[layer, pos, 0]) if given is None else whole(given, 0, 2**31 - 1)
        if lens.edits or lens.attached:
            raise WidgetError("this lens was read with edits in force, and features are read without; make one without")
        return lambda: self.acting_of(lambda known: _written(lens, layer, pos, token, known))

    def linked_model(self) -> Model | None:
        return self._lens.model

    def do_compare(self, message: dict[str, Any]) -> None:
        """Read a second text beside the first; an empty one ends the comparison.

        Raises:
            WidgetError: The first was read with edits in force, which a widget's own reading leaves out.
        """
        second = text(message.get("text"), TEXT_LIMIT)
        self._comparison += 1
        if not second.strip():
            self._other = None
            self.push(show="this", other=None)
            self.tell("ready")
            return
        if self._lens.readout.by_point:
            raise WidgetError(
                f"this lens was read with edits in force ({', '.join(self._lens.attached) or 'an open block'}), and a widget reads without; "
                "compare with iv.logit_lens(model, text, compare=...) instead"
            )
        first, turn = self._lens, self._comparison
        self.tell("loading", "reading the second text…")

        def done(lens: Lens) -> None:
            if turn != self._comparison:
                return
            self._other = lens
            self.push(
                lens=_traits(self._lens, self._lens.text) | {"ignored": self.lens["ignored"]},
                other=_traits(lens, lens.text, self._lens),
                show="both",
            )
            self.tell("ready")

        k = first.top_ids.shape[2]
        self.work(lambda: logit_lens(first.model, second, k=k, sites=first.site, hermetic=True), done)

    def html_table(self) -> str:
        lens = self._lens
        first = max(0, len(lens.words) - TABLE_COLUMNS)
        ids = _array(lens.top_ids)[:, first:, 0]
        shares = np.exp(_array(lens.top_logprobs)[:, first:, 0])
        unique = np.unique(ids)
        shown = dict(zip(unique.tolist(), map(wire.visible, _texts(lens, unique)), strict=True))
        rows = [
            [lens.layers[layer]]
            + [f"{shown[i]} {share:.0%}" for i, share in zip(ids[layer].tolist(), shares[layer].tolist(), strict=True)]
            for layer in reversed(range(len(lens.layers)))
        ]
        caption = f"Logit lens · {lens.model_name} · {lens.site}: the top word in each layer" + (
            f", last {TABLE_COLUMNS} of {len(lens.words)} tokens" if first else ""
        )
        return wire.html_table(["", *map(wire.visible, lens.words[first:])], rows, caption)

    def plain_text(self) -> str:
        lens = self._lens
        ids = _array(lens.top_ids)[:, -1, 0]
        path = " → ".join(map(wire.visible, _texts(lens, ids)))
        return f"LogitLens of {lens.model_name} on {lens.text!r}; top word after the last token, by layer: {path}"

    def page_title(self) -> str:
        return f"Logit lens · {self._lens.model_name} · {self._lens.text}"

    def _which(self, message: dict[str, Any]) -> Lens:
        which = choice(message.get("which", "this"), ("this", "other"))
        lens = self._lens if which == "this" else self._other
        if lens is None:
            raise WidgetError("there is no second lens; compare with a text first")
        return lens


def _read(model: Any, given: str | None, compare: str | None) -> Lens:
    if not isinstance(model, Model):
        raise WidgetError(
            f"LogitLens takes a Lens, or a Model and a text, not {type(model).__name__}; try iv.LogitLens(model, 'some text')"
        )
    if given is None:
        raise WidgetError(f"LogitLens of {model.name} needs a text; try iv.LogitLens(model, 'some text')")
    return logit_lens(model, given, compare=compare, hermetic=True)


def _written(lens: Lens, layer: int, pos: int, token: int, dictionary: Dictionary) -> tuple[Partner, ...]:
    model, label = lens.model, lens.layers[layer]
    written, read = model.site(dictionary.site_out), (int(label) if label.isdecimal() else model.site(label).layer)
    if written.layer is None or read is None or written.layer > read:
        raise WidgetError(
            f"this cell is of layer {read}, and the dictionary writes at {written.name}, which comes behind it; choose a higher cell"
        )
    acts = capture(model, [lens.tokens[: pos + 1]], dictionary.site, hermetic=True, progress=False)
    return writers(model, dictionary, acts[dictionary.site][0, pos], lens.residual[layer, pos], token)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def _texts(lens: Lens, ids: Sequence[int] | np.ndarray) -> list[str]:
    return [token_word(lens.model.tokenizer, int(i)) for i in ids]


def _cell(lens: Lens, layer: Any, pos: Any) -> tuple[int, int]:
    return whole(layer, 0, len(lens.layers) - 1), whole(pos, 0, len(lens.words) - 1)


def _gain(first: Lens, second: Lens) -> dict[str, Any] | None:
    """What the second lens gives its own top words, less what the first gives them, [layer, pos]; None where they do not line up."""
    if first.top_ids.shape[:2] != second.top_ids.shape[:2]:
        return None
    before = [
        torch.log_softmax(first.logits(layer).float(), dim=-1)
        .exp()
        .gather(1, second.top_ids[layer, :, :1].to(first.residual.device))[:, 0]
        for layer in range(len(first.layers))
    ]
    return wire.pack(second.top_logprobs[:, :, 0].exp() - torch.stack(before).cpu(), "float32")


def _traits(lens: Lens, label: str, first: Lens | None = None) -> dict[str, Any]:
    """A lens as the browser gets it, with fewer than k words a cell when all would be too many bytes."""
    layers, tokens, most = lens.top_ids.shape
    k = max(1, min(most, TRAIT_BYTES // (layers * tokens * 8)))
    ids = _array(lens.top_ids)[:, :, :k]
    unique = np.unique(ids)
    return {
        "model": wire.sendable(lens.model_name),
        "text": wire.sendable(lens.text),
        "site": lens.site,
        "label": wire.sendable(label),
        "words": list(lens.words),
        "layers": list(lens.layers),
        "ids": wire.pack(ids, "int32"),
        "logprobs": wire.pack(_array(lens.top_logprobs)[:, :, :k], "float32"),
        "entropy": wire.pack(lens.entropy, "float32"),
        "kl": wire.pack(lens.kl, "float32"),
        "final_rank": wire.pack(lens.final_rank, "int32"),
        "word_ids": wire.pack(unique, "int32"),
        "word_texts": _texts(lens, unique),
        "gain": None if first is None else _gain(first, lens),
        "edits": list(lens.edits),
        "attached": list(lens.attached),
    }
