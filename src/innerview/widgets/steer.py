"""`Steer`: a prompt, a slider a direction, and two columns: what the network writes, and what it writes when edited."""

import dataclasses
import math
import threading
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from innerview.attachments import attached
from innerview.direction import Direction
from innerview.edits import Edit, checked
from innerview.errors import WidgetError
from innerview.generation import Generation, generate
from innerview.models.model import Model
from innerview.progress import progress
from innerview.recipes import Recipe
from innerview.widgets import dose as doses
from innerview.widgets import links, wire
from innerview.widgets.acting import OpensActing, active_at
from innerview.widgets.base import choice, text, whole
from innerview.widgets.column import Column
from innerview.widgets.edit_form import LIMIT, EditForm, checked_directions, clamp_index, every_layer, form_of, unit_of
from innerview.widgets.prompts import Prompt, opening
from innerview.widgets.prompts import said as said_of

TEXT_LIMIT = 50_000
MOST_EDITS = 16
STILL_S = 0.06


class Steer(OpensActing):
    """Steering, side by side with the plain text.

    Args:
        model: The network.
        directions: What to steer by; each has a name of its own.
        prompt: A text, or a chat whose last message is the user's.
        max_new_tokens: Tokens that each column writes.
        edits: Edits to begin with; one `Add` of nothing for each direction when None.
        recipe_path: Folder that "save recipe" writes to; without it, there is nothing to save to.
        limit: The sliders' ends, in natural steps.
    Raises:
        WidgetError: Something else than a model, directions, a prompt or numbers was given, two directions share a name, one does not
            fit its site, or no row can show an edit.
        SiteError: The network lacks a direction's site.
        TextError: The prompt cannot be read.
    """

    bundle: ClassVar[str] = "steer"
    heading: ClassVar[str] = "Steer"
    verbs: ClassVar[tuple[str, ...]] = ("run", "stop", "dose", "code", "save", "features", "follow")
    writable: ClassVar[dict[str, str]] = {"prompt": "check_prompt", "edits": "check_edits", "shade": "check_shade"}

    setup = traitlets.Dict().tag(sync=True)
    prompt = traitlets.Dict().tag(sync=True, echo_update=False)
    edits = traitlets.List().tag(sync=True, echo_update=False)
    columns = traitlets.Dict().tag(sync=True)
    dose = traitlets.List().tag(sync=True)
    shade = traitlets.Int(-1).tag(sync=True, echo_update=False)

    def __init__(
        self, model: Model, directions: Sequence[Direction] | Direction = (), prompt: Prompt = "", *, max_new_tokens: int = 40,
        edits: Sequence[Edit] | None = None, recipe_path: str | Path | None = None, limit: float = LIMIT,
    ) -> None:  # fmt: skip
        if not isinstance(model, Model):
            raise WidgetError(f"Steer takes a Model, not {type(model).__name__}; open one with iv.open_model")
        known = checked_directions(model, _listed(directions))
        _check_numbers(limit, max_new_tokens)
        forms = (
            [EditForm(i) for i in range(len(known))] if edits is None else [form_of(e, known) for e in checked(edits)]
        )
        self._model, self._directions = model, checked_directions(model, known)
        self._limit = max([float(limit), *(abs(form.coefficient) for form in forms)])
        self._max_new_tokens = max_new_tokens
        self._recipe_path = None if recipe_path is None else Path(recipe_path)
        self._doses: list[Any] = [None] * len(self._directions)
        self._lock = threading.Lock()
        self._still: threading.Timer | None = None
        self._by_slider = False
        self._columns = {name: Column(model, self._directions) for name in ("plain", "edited")}
        said = said_of(model, prompt)
        super().__init__(
            setup=self._setup(), prompt=said, edits=[form.to_dict() for form in forms], columns=self._seen(),
            dose=list(self._doses), shade=0 if self._directions else -1,
        )  # fmt: skip
        self.observe(lambda _: self._follow_edits(), "edits")
        links.join(self, model=model)
        if said["text"].strip():
            self._write("plain", "edited")

    # What Python asks.

    @property
    def forms(self) -> list[EditForm]:
        """The rows as they stand."""
        return [EditForm(**form) for form in self.edits]

    def active_edits(self) -> list[Edit]:
        """The edits that the edited column takes."""
        return [form.edit(self._directions) for form in self.forms if form.is_active]

    def text(self, column: str = "edited") -> str:
        """What a column has written so far; `plain` or `edited`."""
        return self._columns[column].text

    def wait(self, timeout_s: float = 60.0) -> "Steer":
        """Wait until both columns are written; returns the widget.

        Raises:
            WidgetError: They are not, after `timeout_s`.
        """
        self._begin_due()
        for column in self._columns.values():
            if column.run is not None and not column.run.wait(timeout_s):
                raise WidgetError(
                    f"the columns are not written after {timeout_s:g} s; wait(timeout_s=...) longer, or stop()"
                )
        self._send_columns()
        self._writer.wait()
        return self

    def stop(self) -> None:
        """Stop writing; the text is kept."""
        self._cancel_still()
        for column in self._columns.values():
            if column.run is not None and not column.run.done:
                column.run.cancel()

    def compute_dose(self, direction: int | None = None) -> "Steer":
        """Measure effect and cost of a direction, or of each that has an edit, and keep the texts at its strengths; returns the widget.

        The texts and numbers are saved with the notebook, so that a page without a kernel can move the sliders.
        """
        self._begin_due()
        rows = {form.direction: form for form in reversed(self.forms)}
        chosen = [form for index, form in rows.items() if direction in (None, index)]
        total = sum(len(doses.strengths_of(form, self._limit)) for form in chosen)
        with progress(total, "dose", "strength") as step:
            for form in chosen:
                self._keep_dose(form, self._measured(form, step))
        return self.wait()

    def code(self) -> str:
        """Python that gives the same edited text in a fresh notebook; a network that was built by hand is the reader's to open."""
        lines = "".join(f"    {edit.to_code()},\n" for edit in self.active_edits())  # type: ignore[attr-defined]
        return (
            f"import innerview as iv\n\n{opening(self._model)}prompt = {self._prompt()!r}\nedits = [\n{lines}]\n"
            f"run = iv.generate(model, prompt, edits=edits, max_new_tokens={self._max_new_tokens}, hermetic=True)\nprint(run.text)\n"
        )

    def save_recipe(self) -> Path:
        """Write the edits to the folder given as `recipe_path`; returns it.

        Raises:
            WidgetError: No folder was given.
        """
        if self._recipe_path is None:
            raise WidgetError(
                "there is no folder to save the recipe in; give one with iv.Steer(..., recipe_path='my recipe')"
            )
        return Recipe(tuple(self.active_edits()), self._model.name).save(self._recipe_path)

    def take(self, direction: Direction) -> None:
        """Add a direction, and an edit of one step of it, as a feature's page sends it; one that is known is switched on, and by one step
        where it stood at none.

        Raises:
            WidgetError: It does not fit its site, or there are too many edits already.
        """
        forms, named = self.forms, {known.name: i for i, known in enumerate(self._directions)}
        index = named.get(direction.name)
        if index is None:
            if len(forms) >= MOST_EDITS:
                raise WidgetError(f"there are {MOST_EDITS} edits already, which is the most; drop one first")
            index = len(self._directions)
            # A new list: columns that are written go on with the directions they began with.
            self._directions = checked_directions(self._model, [*self._directions, direction])
            self._doses.append(None)
        row = next((i for i, form in enumerate(forms) if form.direction == index), None)
        if row is None:
            forms.append(EditForm(index, coefficient=1.0))
        else:
            known = forms[row]
            forms[row] = dataclasses.replace(known, on=True, coefficient=known.coefficient or 1.0)
        if self.prompt["text"].strip() and index not in named.values():
            # The plain column is read along the new direction too.
            self._write("plain")
        self.push(setup=self._setup(), dose=list(self._doses), edits=[form.to_dict() for form in forms], shade=index)

    # What the browser asks.

    def do_features(self, message: dict[str, Any]) -> Any:
        """The features that are active at a token of a column, of every dictionary that is shown with this model."""
        name = choice(message.get("column"), ("plain", "edited"))
        run = self._columns[name].run
        ids = [] if run is None else [*run.prompt_tokens[0], *run.tokens_so_far[0]]
        if not ids:
            raise WidgetError(f"the {name} column has no tokens yet; press run")
        pos = whole(message.get("index"), 0, len(ids) - 1)
        active = [form for form in self.forms if form.is_active] if name == "edited" else []
        # Read in one go, a text has no generated part and no steps.
        kept = [form for form in active if form.scope == "all" and form.schedule == "constant"]
        edits = [form.edit(self._directions) for form in kept]
        note = (
            ""
            if len(kept) == len(active)
            else f"read with {len(kept)} of {len(active)} edits: the others hold for parts of a run"
        )
        return lambda: self.acting_of(lambda known: active_at(self._model, known, ids, pos, edits), note)

    def do_run(self, _: dict[str, Any]) -> None:
        self._by_slider = False
        self._write("plain", "edited")

    def do_stop(self, _: dict[str, Any]) -> None:
        self.stop()

    def do_dose(self, message: dict[str, Any]) -> None:
        forms = self.forms
        if not forms:
            raise WidgetError("there is no edit to measure; add one first")
        form = forms[whole(message.get("edit", 0), 0, len(forms) - 1)]
        strengths, done = len(doses.strengths_of(form, self._limit)), 0
        self.tell("loading", f"measuring {strengths} strengths…")

        def tick() -> None:
            nonlocal done
            done += 1
            self.tell("loading", f"measured {done} of {strengths} strengths…")

        def finish(measured: dict[str, Any]) -> None:
            self._keep_dose(form, measured)
            self.tell("ready")

        self.work(lambda: self._measured(form, tick), finish)

    def do_code(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"code": self.code()}

    def do_save(self, _: dict[str, Any]) -> Any:
        return lambda: {"path": str(self.save_recipe())}

    def check_prompt(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not isinstance(value.get("chat"), bool):
            raise WidgetError(f"a prompt has the fields chat, text and before; received {str(value)[:40]}")
        # Earlier messages are Python's to set.
        before = self.prompt["before"]
        return {
            "chat": value["chat"] and self._model.has_chat,
            "text": text(value.get("text"), TEXT_LIMIT),
            "before": before,
        }

    def check_edits(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or len(value) > MOST_EDITS:
            raise WidgetError(f"edits are a list of at most {MOST_EDITS}, not {str(value)[:40]}")
        return [EditForm.checked(form, len(self._directions), self._limit).to_dict() for form in value]

    def check_shade(self, value: Any) -> int:
        return clamp_index(value, len(self._directions))

    # What is shown where no JavaScript runs.

    def html_table(self) -> str:
        said = ", ".join(edit.label for edit in self.active_edits()) or "no edit"
        rows = [
            ["prompt", self.prompt["text"]],
            ["plain", self.text("plain")],
            [f"edited: {said}", self.text("edited")],
        ]
        return wire.html_table(["", "text"], rows, f"Steer · {self._model.name}")

    def plain_text(self) -> str:
        return f"Steer of {self._model.name} on {self.prompt['text']!r}\nplain:  {self.text('plain')!r}\nedited: {self.text('edited')!r}"

    def page_title(self) -> str:
        return f"Steer · {self._model.name}"

    # How it runs.

    def _setup(self) -> dict[str, Any]:
        known = [
            {
                "name": d.name, "site": d.site, "scale": d.scale or 1.0, "unit": unit_of(d), "scale_kind": d.scale_kind, "scale_n": d.scale_n,
                "residual_norm": d.residual_norm, "layered": every_layer(d.site) != d.site,
            }
            for d in self._directions
        ]  # fmt: skip
        recipe = None if self._recipe_path is None else self._recipe_path.name
        return {
            "model": wire.sendable(self._model.name), "has_chat": self._model.has_chat, "max_new_tokens": self._max_new_tokens,
            "limit": self._limit, "directions": known, "recipe": recipe,
        }  # fmt: skip

    def _prompt(self) -> Any:
        said = self.prompt
        return [*said["before"], {"role": "user", "content": said["text"]}] if said["chat"] else said["text"]

    def _follow_edits(self) -> None:
        """A slider moved: what you started goes on with the new edits; what a slider started begins anew once it is still."""
        edited = self._columns["edited"]
        if edited.is_writing and not self._by_slider:
            assert edited.run is not None
            edited.run.update(self.active_edits())
            edited.is_mixed = True
            return
        self._cancel_still()
        with self._lock:
            self._still = threading.Timer(STILL_S, self._restart)
            self._still.daemon = True
            self._still.start()

    def _restart(self) -> None:
        self._by_slider = True
        is_stale = self._columns["plain"].prompt != self.prompt
        try:
            self._write(*(("plain", "edited") if is_stale else ("edited",)))
        except Exception as error:
            self.tell("error", str(error))

    def _cancel_still(self) -> bool:
        """Whether a column was about to begin anew, which it now does not."""
        with self._lock:
            still, self._still = self._still, None
        if still is not None:
            still.cancel()
        return still is not None

    def _begin_due(self) -> None:
        """Begin at once what waits for a slider to be still."""
        if self._cancel_still():
            self._restart()

    def _write(self, *names: str) -> None:
        """Start columns anew; returns at once."""
        self._cancel_still()
        for name in names:
            old = self._columns[name].run
            if old is not None:
                old.cancel()
            column = self._begun(self.active_edits() if name == "edited" else [])
            self._columns[name] = column
            assert column.run is not None
            self.work(lambda run=column.run: self._watch(run))
        if self.status["state"] == "error":
            self.tell("ready")
        self._send_columns()

    def _watch(self, run: Generation) -> None:
        try:
            run.wait()
        finally:
            self._send_columns()

    def _begun(self, edits: list[Edit]) -> Column:
        column = Column(self._model, self._directions, dict(self.prompt))
        column.run = self._generate(edits, lambda _: self._send_columns())
        return column

    def _generate(self, edits: list[Edit], on_token: Any = None) -> Generation:
        return generate(
            self._model, self._prompt(), edits=edits, max_new_tokens=self._max_new_tokens, readings=self._directions,
            on_token=on_token, hermetic=True,
        )  # fmt: skip

    def _send_columns(self) -> None:
        self._writer.put("columns", lambda: self._set("columns", self._seen()))

    def _seen(self) -> dict[str, Any]:
        names = [a.name for a in attached(self._model) if a.enabled]
        return {name: column.to_dict() for name, column in self._columns.items()} | {"attached": names}

    def _measured(self, form: EditForm, tick: Any) -> dict[str, Any]:
        """A dose as the wire carries it: the response, and the text at each strength. Runs in a worker."""
        prompt = dict(self.prompt)
        plain = self._generate([])
        plain.wait()
        response = doses.measure(
            self._model,
            form,
            self._directions,
            plain.prompt_tokens[0],
            plain.tokens_so_far[0],
            self._limit,
        )
        texts = []
        for strength in response.strengths:
            moved = doses.at_strength(form, strength)
            column = Column(self._model, self._directions, prompt)
            column.run = self._generate([moved.edit(self._directions)] if moved.is_active else [])
            column.run.wait()
            texts.append(column.to_dict())
            tick()
        numbers = ("strengths", "effect", "cost", "random_effect", "random_cost")
        packed = {name: wire.pack(getattr(response, name), "float32") for name in numbers}
        return {"prompt": prompt, "edit": form.to_dict(), "words": response.words, "texts": texts, **packed}

    def _keep_dose(self, form: EditForm, measured: dict[str, Any]) -> None:
        self._doses[form.direction] = measured
        # Sent by the writer: no lock is held while a message leaves.
        self._writer.put("dose", lambda: self._set("dose", list(self._doses)))


def _listed(directions: Any) -> list[Any]:
    if isinstance(directions, Direction):
        return [directions]
    if isinstance(directions, (str, bytes)) or not isinstance(directions, Iterable):
        raise WidgetError(f"directions holds Directions, not {directions!r}; leave it out for none")
    return [*directions]


def _check_numbers(limit: Any, max_new_tokens: Any) -> None:
    is_number = isinstance(limit, Real) and not isinstance(limit, bool)
    if not is_number or not 0 < float(limit) < math.inf:
        raise WidgetError(f"limit is a finite number of steps above 0, not {limit!r}")
    is_whole = isinstance(max_new_tokens, int) and not isinstance(max_new_tokens, bool)
    if not is_whole or max_new_tokens < 1:
        raise WidgetError(f"max_new_tokens is a whole number, at least 1, not {max_new_tokens!r}")
