"""`TokenStrip`: text, each token shaded by a value."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import traitlets

from innerview.errors import WidgetError
from innerview.widgets import wire
from innerview.widgets.base import Widget, whole

TABLE_TOKENS = 200


class TokenStrip(Widget):
    """Tokens shaded by one or more series of values; hover for the number, the id and the bytes.

    Args:
        words: Each token's own text.
        values: One value a token, or several series of them, shape [pos] or [series, pos].
        labels: A name for each series.
        ids: Each token's id, when known.
        unit: What the values count, such as `"steps"`.
        what: What is shown, for the title line.
        starts: Tokens that begin a new text.
    Raises:
        WidgetError: Words, values, labels and ids do not go together.
    """

    bundle: ClassVar[str] = "token_strip"
    heading: ClassVar[str] = "Tokens"
    writable: ClassVar[dict[str, str]] = {"series": "check_series"}

    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    ids = traitlets.List(traitlets.Int()).tag(sync=True)
    about = traitlets.Dict().tag(sync=True)
    series = traitlets.Int(0).tag(sync=True, echo_update=False)

    def __init__(
        self, words: Sequence[str], values: Any, labels: Sequence[str] = (), *, ids: Sequence[int] = (), unit: str = "", what: str = "",
        starts: Sequence[int] = (),
    ) -> None:  # fmt: skip
        rows = _rows(values, len(words))
        given = [labels] if isinstance(labels, str) else list(labels)
        names = given or [f"value {i}" for i in range(len(rows))]
        for text in (*words, *names, unit, what):
            if not isinstance(text, str):
                raise WidgetError(f"words, labels, unit and what are texts, not {text!r} of type {type(text).__name__}")
        if len(names) != len(rows):
            raise WidgetError(f"{len(rows)} series of values, but {len(names)} labels: {', '.join(names)}")
        if ids and len(ids) != len(words):
            raise WidgetError(f"{len(words)} words, but {len(ids)} ids")
        self._rows = rows
        super().__init__(
            words=[wire.sendable(word) for word in words],
            values=wire.pack(rows, "float32"),
            labels=[wire.sendable(name) for name in names],
            ids=[int(i) for i in ids],
            about={"unit": wire.sendable(unit), "what": wire.sendable(what), "starts": [int(i) for i in starts]},
        )

    @classmethod
    def from_result(cls, result: Any) -> "TokenStrip":
        """The widget that shows a projection, its texts one after another."""
        words = [word for row in result.words for word in row]
        ids = [token for row in result.tokens for token in row]
        values = np.concatenate(
            [row[: len(said)].numpy() for row, said in zip(result.values, result.words, strict=True)]
        )
        # Special tokens are outliers of the residual stream: their projection says nothing of the text.
        values[[special for row in result.special for special in row]] = np.nan
        name = result.direction.name
        starts = np.cumsum([0, *map(len, result.words[:-1])]).tolist()
        return cls(
            words, values, [name], ids=ids, unit="steps", what=f"{name} · {result.direction.site}", starts=starts
        )

    def check_series(self, value: Any) -> int:
        return whole(value, 0, len(self.labels) - 1)

    def html_table(self) -> str:
        head = ["token", *self.labels]
        rows = [
            [wire.visible(word), *(_said(series[i]) for series in self._rows)]
            for i, word in enumerate(self.words[:TABLE_TOKENS])
        ]
        return wire.html_table(head, rows, f"{self.about['what']} · {len(self.words)} tokens")

    def plain_text(self) -> str:
        said = " ".join(
            f"{wire.visible(word)} {_said(value)}" for word, value in zip(self.words, self._rows[0], strict=True)
        )
        return f"{self.labels[0]}: {said}"


def _said(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3g}"


def _rows(values: Any, length: int) -> np.ndarray:
    """Values as [series, pos].

    Raises:
        WidgetError: There are none, not one a token, or no numbers.
    """
    try:
        # numpy has no bfloat16.
        plain = values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
        array = np.asarray(plain, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WidgetError(
            f"{length} words take numbers of shape [{length}] or [series, {length}], not {str(values)[:60]}: {error}"
        ) from error
    rows = array[None] if array.ndim == 1 else array
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != length:
        raise WidgetError(
            f"{length} words take values of shape [{length}] or [series, {length}], not {list(array.shape)}"
        )
    return rows
