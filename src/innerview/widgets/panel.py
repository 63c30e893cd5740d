"""`Panel`: what this kernel has open, and the edits that are live in it."""

import dataclasses
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import traitlets

from innerview.attachments import Attachment, attached
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.training.live import LiveTraining
from innerview.direction import Direction
from innerview.edits import Edit
from innerview.errors import EditError, WidgetError
from innerview.features.dashboards import Dashboard
from innerview.generation import Generation
from innerview.models.model import Model
from innerview.opened import opened
from innerview.widgets import links, wire
from innerview.widgets.base import Widget, number, text, whole
from innerview.widgets.strengths import moved, strength_of

NAME_LIMIT = 10_000
MOST = 200
# Named features of one dashboard.
MOST_NAMED = 12
# Memory moves with every forward; a change below this is none.
GRAIN = 10_000_000
# What happens together is looked at once, and a training that tells of every step no more often than this.
GATHER_S = 0.2

log = logging.getLogger(__name__)


class Panel(Widget):
    """Models, dictionaries, their dashboards and named features, directions, live edits and memory of this kernel.

    It switches edits, slides them, and takes them off. It asks for nothing by itself: it is told of what is opened, attached, moved, done
    or gone, and that a cell has ended.
    """

    bundle: ClassVar[str] = "panel"
    heading: ClassVar[str] = "Open in this kernel"
    verbs: ClassVar[tuple[str, ...]] = ("refresh", "switch", "slide", "detach", "detach_all", "open")

    seen = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        self._keys: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next = 0
        self._looking = threading.Lock()
        super().__init__()
        self.seen = self._now()
        told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ends = [opened.watch(told.put), _after_cells(told), lambda: told.put(None)]
        threading.Thread(target=_follow, args=(weakref.ref(self), told), name="innerview-panel", daemon=True).start()

    def refresh(self) -> "Panel":
        """Look again; returns the panel."""
        with self._looking:
            now = self._now()
        if now != self.seen:
            self.push(seen=now)
        return self

    def close(self) -> None:
        """Look no more."""
        for end in getattr(self, "_ends", ()):
            end()
        super().close()

    # What the browser asks.

    def do_refresh(self, _: dict[str, Any]) -> None:
        self.refresh()

    def do_switch(self, message: dict[str, Any]) -> None:
        """Switch what is attached under a name on or off."""
        is_on = message.get("on")
        if not isinstance(is_on, bool):
            raise WidgetError(f"a switch is on or off, true or false, not {str(is_on)[:40]!r}")
        _, found = self._attachment(message)
        found.enabled = is_on
        self.refresh()

    def do_slide(self, message: dict[str, Any]) -> Any:
        """Move the strength of one edit of an attachment."""
        model, found = self._attachment(message)
        edits = list(found.edits)
        nth = whole(message.get("edit"), 0, len(edits) - 1)
        edits[nth] = moved(edits[nth], number(message.get("value"), -1e6, 1e6))

        # The lock of the network may be held for a forward: never waited for here.
        def slide() -> dict[str, Any]:
            found.update(model, edits)
            self.refresh()
            return {}

        return slide

    def do_detach(self, message: dict[str, Any]) -> Any:
        """Take off what is attached under a name."""
        _, found = self._attachment(message)

        def take_off() -> dict[str, Any]:
            found.detach()
            self.refresh()
            return {}

        return take_off

    def do_detach_all(self, _: dict[str, Any]) -> Any:
        """Take everything off every network."""

        def take_off() -> dict[str, Any]:
            every = [one for model in self._models() for one in attached(model)]
            for one in every:
                one.detach()
            self.refresh()
            return {"detached": len(every)}

        return take_off

    def do_open(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open the page of a named feature."""
        key = whole(message.get("dashboard"), 0, 2**31)
        found = next((one for one in _dashboards() if self._keys.get(one) == key), None)
        if found is None:
            raise WidgetError("that dashboard is gone; run its cell again")
        feature = whole(message.get("feature"), 0, len(found) - 1)
        links.open_feature(found.model, links.key_of(found.dictionary, found), feature)
        return {"feature": feature}

    # What is shown where no JavaScript runs.

    def html_table(self) -> str:
        rows = [[one["kind"], one["name"], one["said"]] for one in self._lines()]
        return wire.html_table(["", "name", ""], rows, self.plain_text().partition("\n")[0])

    def plain_text(self) -> str:
        lines = self._lines()
        used = self.seen["memory"]["process"]
        return "\n".join(
            [f"Open in this kernel: {len(lines)} things" + (f", {_size(used)} in use" if used else "")]
            + [f"  {one['kind']}: {wire.visible(one['name'])} · {one['said']}" for one in lines]
        )

    # What there is.

    def _models(self) -> list[Model]:
        return [one for one in opened.each("model") if isinstance(one, Model)][-MOST:]

    def _attachment(self, message: dict[str, Any]) -> tuple[Model, Attachment]:
        key, name = whole(message.get("model"), 0, 2**31), text(message.get("name"), NAME_LIMIT)
        model = next((one for one in self._models() if self._keys.get(one.module) == key), None)
        if model is None:
            raise WidgetError("that network is not open any more")
        found = next((one for one in attached(model) if wire.sendable(one.name) == name), None)
        if found is None:
            raise EditError(f"nothing named {name[:60]!r} is attached to {model.name} any more")
        return model, found

    def _key(self, thing: Any) -> int:
        if thing not in self._keys:
            self._keys[thing] = self._next
            self._next += 1
        return self._keys[thing]

    def _now(self) -> dict[str, Any]:
        models = self._models()
        dictionaries = _dictionaries()
        # The same direction under the same name is one, such as a feature's that several widgets hold.
        directions = {(one.name, one.site): one for one in opened.each("direction") if isinstance(one, Direction)}
        runs = [one for one in opened.each("run") if isinstance(one, Generation) and not one.done][-MOST:]
        trainings = [one for one in opened.each("training") if isinstance(one, LiveTraining) and one.state == "running"]
        said = wire.sendable
        # One network opened twice is one: its edits belong to its module.
        each = {id(model.module): model for model in models}
        return {
            "models": [self._model(model) for model in each.values()],
            "dictionaries": [_dictionary(one) for one in dictionaries],
            "directions": [{"name": said(one.name), "site": said(one.site), "said": said(_step(one))} for one in list(directions.values())[-MOST:]],
            "dashboards": [self._dashboard(one) for one in _dashboards()],
            "runs": [{"model": said(run.model.name), "said": f"{len(run.texts_so_far)} texts being written"} for run in runs],
            "trainings": [{"model": said(one.model), "said": f"step {one.step:,} of {one.n_steps:,}"} for one in trainings],
            "memory": _memory(models, dictionaries),
        }  # fmt: skip

    def _model(self, model: Model) -> dict[str, Any]:
        weights = list(model.module.parameters())
        kinds = dict.fromkeys(str(one.dtype).removeprefix("torch.") for one in weights)
        return {
            "key": self._key(model.module), "name": wire.sendable(model.name), "n_layers": model.n_layers, "d_model": model.d_model,
            "said": f"{sum(one.numel() for one in weights):,} weights, {', '.join(kinds) or 'none'}, {model.device}",
            "edits": [_attached(one) for one in attached(model)],
        }  # fmt: skip

    def _dashboard(self, one: Dashboard) -> dict[str, Any]:
        about, read = one.dictionary, one.statistics
        named = sorted(one.labels.values(), key=lambda label: (-(label.score or 0.0), label.feature))
        return {
            "key": self._key(one),
            "name": "from files" if about is None else wire.sendable(_name(about)),
            "said": f"{len(one):,} features, {f'{read.n_tokens:,} tokens read' if read else 'no texts read'}"
            + (f", {len(named):,} named" if named else ""),
            "named": [{"feature": label.feature, "text": wire.sendable(label.text[:200])} for label in named[:MOST_NAMED]],
        }  # fmt: skip

    def _lines(self) -> list[dict[str, str]]:
        found = []
        for model in self.seen["models"]:
            found.append({"kind": "model", "name": model["name"], "said": model["said"]})
            for one in model["edits"]:
                said = f"{'on' if one['on'] else 'off'}: {', '.join(edit['label'] for edit in one['edits'])}"
                found.append({"kind": "edit", "name": one["name"], "said": said})
        kinds = {
            "dictionaries": "dictionary", "dashboards": "dashboard", "directions": "direction", "runs": "run", "trainings": "training",
        }  # fmt: skip
        for name, kind in kinds.items():
            found += [
                {"kind": kind, "name": one.get("name", one.get("model", "")), "said": one["said"]}
                for one in self.seen[name]
            ]
        return found


def _attached(one: Attachment) -> dict[str, Any]:
    return {"name": wire.sendable(one.name), "on": one.enabled, "edits": [_edit(edit) for edit in one.edits]}


def _edit(edit: Edit) -> dict[str, Any]:
    slider = strength_of(edit)
    return {"label": wire.sendable(edit.label), "slider": None if slider is None else dataclasses.asdict(slider)}


def _follow(me: "weakref.ref[Panel]", told: "queue.SimpleQueue[str | None]") -> None:
    """Look again when something was told, until None is."""
    while told.get() is not None:
        time.sleep(GATHER_S)
        while not told.empty():
            if told.get() is None:
                return
        panel = me()
        if panel is None:
            return
        try:
            panel.refresh()
        except Exception as error:
            # A network that is being moved or freed right now may be looked at again when that is done.
            log.warning("the panel could not look", exc_info=error)
        del panel


def _after_cells(told: "queue.SimpleQueue[str | None]") -> Callable[[], None]:
    """Be told when a cell has ended: memory has moved by then, and what no longer has a name may be gone."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return lambda: None

    def ended(_: Any) -> None:
        told.put("cell")

    shell.events.register("post_run_cell", ended)

    def stop() -> None:
        if ended in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", ended)

    return stop


def _dictionaries() -> list[Any]:
    """Of several that share their weights, such as one before and after it was measured, the newest alone."""
    found: dict[int, Any] = {}
    for one in opened.each("dictionary"):
        weights = getattr(one, "weights", None)
        if weights is not None:
            found.pop(id(weights), None)
            found[id(weights)] = one
    return list(found.values())[-MOST:]


def _dashboards() -> list[Dashboard]:
    """Of several over the same reading of a corpus, such as one before and after its features were named, the newest alone."""
    found: dict[int, Dashboard] = {}
    for one in opened.each("dashboard"):
        if isinstance(one, Dashboard):
            key = id(one.statistics if one.statistics is not None else links.key_of(one.dictionary))
            found.pop(key, None)
            found[key] = one
    return list(found.values())[-MOST:]


def _dictionary(one: Any) -> dict[str, Any]:
    kind = type(one.architecture).__name__ if isinstance(one, Dictionary) else type(one).__name__
    return {"name": wire.sendable(_name(one)), "said": f"{one.n_features:,} features, {kind}, {_size(_bytes(one))}"}


def _name(one: Any) -> str:
    """Network and site; several sites of a crosscoder are named one after another."""
    site = one.manifest.site
    return f"{one.manifest.model} · {site if isinstance(site, str) else ', '.join(map(str, site))}"


def _bytes(one: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in one.weights.tensors().values())


def _step(one: Direction) -> str:
    return (
        "no natural step" if one.scale is None else f"1 step = {one.scale:.3g}, {one.scale_kind}, n = {one.scale_n:,}"
    )


def _memory(models: list[Model], dictionaries: list[Any]) -> dict[str, Any]:
    """Bytes in use, rounded, so that a panel at rest sends nothing."""
    weights = {
        (tensor.data_ptr() or id(tensor)): tensor.numel() * tensor.element_size()
        for model in models
        for tensor in model.module.parameters()
    }
    gpus = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        free, total = torch.cuda.mem_get_info(i)
        gpus.append({"name": torch.cuda.get_device_name(i), "used": _rounded(total - free), "total": total})
    return {
        "process": _rounded(_resident()), "models": sum(weights.values()), "dictionaries": sum(map(_bytes, dictionaries)), "gpus": gpus,
    }  # fmt: skip


def _rounded(size: int) -> int:
    return round(size / GRAIN) * GRAIN


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


_made: list[Panel] = []
_making = threading.Lock()


def panel() -> Panel:
    """The panel of this kernel, inline: one for all, however often it is shown."""
    with _making:
        if not _made or _made[0].comm is None:
            _made[:] = [Panel()]
        return _made[0].refresh()
