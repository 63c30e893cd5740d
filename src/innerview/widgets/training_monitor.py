"""`TrainingMonitor`: a training as it runs, with its curves, a few features' strongest tokens, and a stop button."""

import logging
import time
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import traitlets

from innerview.dictionaries.training.live import Example, LiveTraining
from innerview.errors import WidgetError
from innerview.models import text
from innerview.models.model import Model
from innerview.opened import opened
from innerview.widgets import wire
from innerview.widgets.base import Widget, whole

log = logging.getLogger(__name__)

CURVES = ("loss", "l0", "fvu", "dead")
MOST_POINTS = 400
# Seconds between two pictures of a training: it has better things to do.
GAP_S = 0.25
AROUND = 12


class TrainingMonitor(Widget):
    """Loss, active features a token, unexplained variance, dead share, and a few features' examples, live; the button stops the training.

    Args:
        training: What to watch; when None, the training that runs, or else the next one that starts in this kernel.
    Raises:
        WidgetError: It is no training under way.

    Show it in one cell, and train in the next.
    """

    bundle: ClassVar[str] = "training_monitor"
    heading: ClassVar[str] = "Training"
    verbs: ClassVar[tuple[str, ...]] = ("stop",)
    writable: ClassVar[dict[str, str]] = {"which": "check_which"}

    about = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    progress = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    curves = traitlets.List().tag(sync=True)
    examples = traitlets.List().tag(sync=True)
    which = traitlets.Int(0).tag(sync=True, echo_update=False)

    def __init__(self, training: LiveTraining | None = None) -> None:
        # First of all: a widget that was refused is closed too.
        self._ends: list[Callable[[], None]] = []
        if training is not None and not isinstance(training, LiveTraining):
            raise WidgetError(
                f"TrainingMonitor watches a training under way, not {type(training).__name__}; leave it out to watch the next one that starts"
            )
        super().__init__()
        self._training: LiveTraining | None = None
        self._model: Model | None = None
        self._last_s = 0.0
        running = [one for one in opened.each("training") if isinstance(one, LiveTraining) and one.state == "running"]
        if training is not None or running:
            self._follow(training or running[-1])
        if training is None:
            me = weakref.ref(self)

            def begun(kind: str, thing: object) -> None:
                widget = me()
                if widget is not None and kind == "training" and isinstance(thing, LiveTraining):
                    widget._follow(thing)

            self._ends.append(opened.listen(begun))

    @property
    def training(self) -> LiveTraining | None:
        """What is watched; None before one has begun."""
        return self._training

    def stop(self) -> None:
        """End the training behind the step it is at; what is trained by then is kept."""
        if self._training is not None:
            self._training.stop()

    def close(self) -> None:
        """Watch no more."""
        for end in self._ends:
            end()
        super().close()

    def check_which(self, value: Any) -> int:
        return whole(value, 0, max(0, len(self.curves) - 1))

    def do_stop(self, _: dict[str, Any]) -> dict[str, Any]:
        live = self._training
        if live is None or live.state != "running":
            raise WidgetError("no training runs that could be stopped")
        live.stop()
        return {"step": live.step}

    def html_table(self) -> str:
        head = ["dictionary", "tokens", *CURVES]
        rows = []
        for spec, one in zip((self.about or {}).get("specs", ()), self.curves, strict=True):
            values = wire.unpack(one["values"])
            last = values[:, -1] if values.shape[1] else np.full(len(values), np.nan)
            said = dict(zip(one["names"], last, strict=True))
            rows.append([spec["label"], *(_number(said.get(name, np.nan)) for name in ("tokens", *CURVES))])
        return wire.html_table(head, rows, self.plain_text())

    def plain_text(self) -> str:
        about, now = self.about, self.progress
        if about is None or now is None:
            return "TrainingMonitor: no training has begun"
        return f"Training of {len(about['specs'])} dictionaries on {about['model']}: {now['state']}, step {now['step']:,} of {about['n_steps']:,}"

    def page_title(self) -> str:
        return f"Training · {(self.about or {}).get('model', 'none yet')}"

    def _follow(self, live: LiveTraining) -> None:
        """Watch a training, and show it as it stands."""
        self._training, self._last_s = live, 0.0
        named = [one for one in opened.each("model") if isinstance(one, Model) and one.name == live.model]
        self._model = named[-1] if named else None
        self.push(about=_about(live), which=0)
        me = weakref.ref(self)

        def told(told_of: LiveTraining) -> None:
            widget = me()
            if widget is not None and widget._training is told_of:
                widget._seen(told_of)

        self._ends.append(live.listen(told))
        self._seen(live)

    def _seen(self, live: LiveTraining) -> None:
        """Called in the thread that trains: nothing that goes wrong here may end the training."""
        now = time.monotonic()
        if live.state == "running" and now - self._last_s < GAP_S:
            return
        self._last_s = now
        try:
            self._show(live)
        except Exception as error:
            log.warning("a training's picture was not made", exc_info=error)

    def _show(self, live: LiveTraining) -> None:
        examples = [
            [
                {"feature": feature, "examples": [self._example(one) for one in listed]}
                for feature, listed in found.items()
            ]
            for found in live.examples
        ]
        progress = {"step": live.step, "tokens": live.tokens, "state": live.state, "is_stopping": live.is_stopping}
        self.push(progress=progress, curves=[_curves(points) for points in live.histories], examples=examples)

    def _example(self, one: Example) -> dict[str, Any]:
        first = max(0, one.place - AROUND)
        ids = [int(i) for i in one.ids[first : one.place + AROUND + 1]]
        words = text.words(self._model, ids) if self._model is not None else [f"{i} " for i in ids]
        return {
            "value": float(one.value), "words": [wire.sendable(word) for word in words], "place": one.place - first,
            "tokens_seen": one.tokens_seen,
        }  # fmt: skip

    def _set(self, name: str, value: Any) -> None:
        # A monitor that is not displayed yet, or no more, still knows how it went.
        setattr(self, name, value)


def _about(live: LiveTraining) -> dict[str, Any]:
    specs = [
        {
            "label": wire.sendable(f"{type(spec.architecture).__name__} · {' → '.join(spec.sites)}"),
            "architecture": wire.sendable(repr(spec.architecture)), "n_features": spec.n_features, "seed": spec.seed,
        }
        for spec in live.specs
    ]  # fmt: skip
    return {"model": wire.sendable(live.model), "specs": specs, "n_steps": live.n_steps, "n_tokens": live.n_tokens}


def _curves(points: list[dict[str, float]]) -> dict[str, Any]:
    """The curves' points, evenly fewer of them where they are many; the last is always there. Shape [name, point]."""
    step = -(-len(points) // MOST_POINTS) or 1
    kept = points[::-step][::-1]
    names = ["tokens", *CURVES]
    values = [[float(point.get(name, np.nan)) for point in kept] for name in names]
    return {"names": names, "values": wire.pack(np.array(values, np.float32).reshape(len(names), len(kept)), "float32")}


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:,.4g}"
