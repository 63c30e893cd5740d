"""`Panel`: what this kernel has open, and the edits that are live in it."""

import dataclasses
import os
import threading
import weakref
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
from innerview.generation import Generation
from innerview.models.model import Model
from innerview.opened import opened
from innerview.widgets import wire
from innerview.widgets.base import Widget, number, text, whole
from innerview.widgets.strengths import moved, strength_of

NAME_LIMIT = 10_000
MOST = 200
# Memory moves with every forward; a change below this is none.
GRAIN = 10_000_000


class Panel(Widget):
    """Models, dictionaries, directions, live edits and memory of this kernel; switches edits, slides them, takes them off."""

    bundle: ClassVar[str] = "panel"
    heading: ClassVar[str] = "Open in this kernel"
    verbs: ClassVar[tuple[str, ...]] = ("refresh", "switch", "slide", "detach", "detach_all")

    seen = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        self._keys: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next = 0
        self._looking = threading.Lock()
        super().__init__()
        self.seen = self._now()
        me = weakref.ref(self)

        def came(kind: str, _: object) -> None:
            panel = me()
            if panel is not None and kind != "run":
                panel.refresh()

        self._end = opened.listen(came)

    def refresh(self) -> "Panel":
        """Look again; returns the panel."""
        with self._looking:
            now = self._now()
        if now != self.seen:
            self.push(seen=now)
        return self

    def close(self) -> None:
        """Look no more."""
        end = getattr(self, "_end", None)
        if end is not None:
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
        dictionaries = [one for one in opened.each("dictionary") if isinstance(one, Dictionary)][-MOST:]
        directions = [one for one in opened.each("direction") if isinstance(one, Direction)][-MOST:]
        runs = [one for one in opened.each("run") if isinstance(one, Generation) and not one.done][-MOST:]
        trainings = [one for one in opened.each("training") if isinstance(one, LiveTraining) and one.state == "running"]
        said = wire.sendable
        # One network opened twice is one: its edits belong to its module.
        each = {id(model.module): model for model in models}
        return {
            "models": [self._model(model) for model in each.values()],
            "dictionaries": [_dictionary(one) for one in dictionaries],
            "directions": [{"name": said(one.name), "site": said(one.site), "said": said(_step(one))} for one in directions],
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

    def _lines(self) -> list[dict[str, str]]:
        found = []
        for model in self.seen["models"]:
            found.append({"kind": "model", "name": model["name"], "said": model["said"]})
            for one in model["edits"]:
                said = f"{'on' if one['on'] else 'off'}: {', '.join(edit['label'] for edit in one['edits'])}"
                found.append({"kind": "edit", "name": one["name"], "said": said})
        kinds = {"dictionaries": "dictionary", "directions": "direction", "runs": "run", "trainings": "training"}
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


def _dictionary(one: Dictionary) -> dict[str, Any]:
    name = f"{one.manifest.model} · {one.manifest.site}"
    return {
        "name": wire.sendable(name),
        "said": f"{one.n_features:,} features, {type(one.architecture).__name__}, {_size(_bytes(one))}",
    }


def _bytes(one: Dictionary) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in one.weights.tensors().values())


def _step(one: Direction) -> str:
    return "no natural step" if one.scale is None else f"1 step = {one.scale:.3g}, {one.scale_kind}, n = {one.scale_n}"


def _memory(models: list[Model], dictionaries: list[Dictionary]) -> dict[str, Any]:
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
