"""Pages that work without a kernel: one file, no network, the widgets alive on their saved traits.

A policy forbids everything but the scripts and the style sheet named by their hashes, so each bundle stands in the page as a
script of its own; a small host feeds it the saved traits. `send` and `save_changes` do nothing there.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from innerview.errors import WidgetError

STATIC = Path(__file__).with_name("static")
BUNDLES = (
    "attention",
    "evidence_card",
    "feature_browser",
    "feature_map",
    "feature_page",
    "logit_lens",
    "panel",
    "patch_grid",
    "steer",
    "token_strip",
    "training_monitor",
)
STATE_MIME = "application/vnd.jupyter.widget-state+json"
VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Html:
    """A trusted fragment of the page, escaped already: prose, a code cell, a table. Scripts and styles inside would not run."""

    text: str


@dataclass(frozen=True, eq=False)
class Saved:
    """A widget as it was saved.

    Attributes:
        widget: Name of its bundle, such as `logit_lens`.
        traits: Its synced traits; bytes may stand anywhere inside.
        links: For traits that go together with another widget's, the name they share on the page.
        fallback: Escaped HTML shown where no JavaScript runs.
    """

    widget: str
    traits: Mapping[str, Any]
    links: Mapping[str, str] = field(default_factory=dict)
    fallback: str = ""


def built(name: str) -> str:
    """The text of a file of the built front end.

    Raises:
        WidgetError: It has not been built.
    """
    try:
        return _read(name)
    except FileNotFoundError as error:
        raise WidgetError(
            f"the front end is not built: no {STATIC / name}; run `npm ci && npm run build` in the repository"
        ) from error


@cache
def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def page(title: str, parts: Sequence[Html | Saved]) -> str:
    """One HTML document, complete and offline, with `parts` in their order.

    Args:
        title: The document's title, plain text.
        parts: Trusted fragments, and widgets as they were saved.
    Raises:
        WidgetError: A part is neither, or names a widget that does not exist.
    """
    used = list(dict.fromkeys(part.widget for part in parts if isinstance(part, Saved)))
    body = "".join(_part(part, i) for i, part in enumerate(parts))
    data = "".join(_saved(part, i) for i, part in enumerate(parts) if isinstance(part, Saved))
    sheets = "".join(_data(f"css-{name}", built(f"{name}.css")) for name in used)
    scripts = [_script(built(f"{name}.page.js")) for name in used] + ([_script(built("host.js"))] if used else [])
    style = built("page.css")
    policy = _policy(scripts, style)
    inline = "".join(f"<script>{script}</script>\n" for script in scripts)
    whole = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n{data}{sheets}{inline}</body>\n</html>\n"
    )
    # Half a character in a prompt or a name has no place in a file; its reference reads as U+FFFD.
    return whole.encode("utf-8", "xmlcharrefreplace").decode("utf-8")


def write(path: str | Path, text: str, name: str) -> Path:
    """Write a page; returns the path.

    Args:
        path: Where to.
        text: The page.
        name: What such a file is called, for the error.
    Raises:
        WidgetError: The path is a folder, lies in none, or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise WidgetError(f"{str(target)!r} is a folder; name a file in it, such as {str(target / name)!r}")
    if not target.parent.is_dir():
        raise WidgetError(f"no folder {str(target.parent)!r} to write {target.name!r} in; make it first")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WidgetError(f"cannot write {str(target)!r}: {error.strerror}; give another path") from error
    return target


def parts_from_widget_state(state: Mapping[str, Any]) -> dict[str, Saved]:
    """The widgets of an executed notebook, by the `model_id` that a cell's output names.

    `state` is `nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]`, or the whole of `nb.metadata.widgets`, or
    a notebook without widgets' `{}`. A cell's output holds the id in
    `output.data["application/vnd.jupyter.widget-view+json"]["model_id"]`; put the `Saved` of that id where the output stood (and
    `dataclasses.replace(saved, fallback=...)` its sanitised `text/html`). Widgets that are not ours are left out; a jslink between
    two of ours becomes a link of the page.
    """
    models = state.get(STATE_MIME, state).get("state", {})
    links = _links(models)
    found = {}
    for model_id, model in models.items():
        name = _bundle(model)
        if name is None:
            continue
        traits = {
            key: value
            for key, value in model["state"].items()
            if not key.startswith("_") and key not in ("layout", "tabbable", "tooltip")
        }
        for buffer in model.get("buffers", ()):
            _put(traits, buffer["path"], base64.b64decode(buffer["data"]))
        found[model_id] = Saved(name, traits, links.get(model_id, {}))
    return found


def _bundle(model: Mapping[str, Any]) -> str | None:
    """The bundle of a saved model; its own `_esm` is never run."""
    said = str(model.get("state", {}).get("_anywidget_id", ""))
    package, _, rest = said.partition(".widgets.")
    name = rest.split(".")[0]
    return name if package == "innerview" and name in BUNDLES else None


def _links(models: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    links: dict[str, dict[str, str]] = {}
    for link_id, model in models.items():
        if model.get("model_name") not in ("LinkModel", "DirectionalLinkModel"):
            continue
        for end in (model["state"].get("source"), model["state"].get("target")):
            owner, trait = end
            links.setdefault(str(owner).removeprefix("IPY_MODEL_"), {})[trait] = link_id
    return links


def _put(traits: dict[str, Any], path: Sequence[Any], data: bytes) -> None:
    """Bytes to their place; a path that later states have lost is left alone."""
    place: Any = traits
    for step in path[:-1]:
        is_there = (isinstance(place, dict) and step in place) or (
            isinstance(place, list) and isinstance(step, int) and step < len(place)
        )
        if not is_there:
            return
        place = place[step]
    if isinstance(place, dict) or (isinstance(place, list) and path[-1] < len(place)):
        place[path[-1]] = data


def _part(part: Html | Saved, i: int) -> str:
    if isinstance(part, Html):
        return f"{part.text}\n"
    if not isinstance(part, Saved):
        raise WidgetError(f"a page is made of Html and Saved parts, not {type(part).__name__}")
    if part.widget not in BUNDLES:
        raise WidgetError(f"no widget {part.widget!r}; there are {', '.join(BUNDLES)}")
    return f'<div class="iv-saved" id="part-{i}" data-iv-saved="saved-{i}">{part.fallback}</div>\n'


def _saved(part: Saved, i: int) -> str:
    buffers: list[dict[str, Any]] = []

    def walk(value: Any, path: list[Any]) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            buffers.append({"path": path, "data": base64.b64encode(value).decode("ascii")})
            return None
        if isinstance(value, Mapping):
            return {str(key): walk(inner, [*path, str(key)]) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(inner, [*path, n]) for n, inner in enumerate(value)]
        return value

    traits = walk(part.traits, [])
    content = {
        "widget": part.widget,
        "traits": traits,
        "buffers": buffers,
        "css": f"css-{part.widget}",
        "links": dict(part.links),
    }
    return _data(f"saved-{i}", content)


def _data(name: str, value: Any) -> str:
    """JSON in ASCII that cannot end its own element."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _script(text: str) -> str:
    # In a script, `<\/script` reads the same and does not end the element; `<!--` would change how the rest is parsed.
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _policy(scripts: Sequence[str], style: str) -> str:
    allowed = " ".join(map(_hash, scripts)) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
