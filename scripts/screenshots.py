"""Pictures of the widgets for the docs: light and dark, narrow and wide, from pages without a kernel.

    python scripts/screenshots.py [name …]

Writes docs/images/<widget>_<light|dark>_<narrow|wide>.png. Look at them before they are committed.
"""

import argparse
import functools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

import innerview as iv
from scripts.browsing import OPTIONS, chromium

OUT = Path(__file__).resolve().parent.parent / "docs/images"
WIDTHS = {"narrow": 360, "wide": 1080}
SCHEMES = ("light", "dark")


@functools.cache
def mood_of(model: iv.Model) -> Any:
    """A direction, and the texts that it was found in."""
    good = [f"The {a} was {b} and we felt" for a in ("film", "trip", "dinner") for b in ("wonderful", "lovely")]
    bad = [f"The {a} was {b} and we felt" for a in ("film", "trip", "dinner") for b in ("terrible", "awful")]
    return iv.contrast(model, good, bad, site="blocks.4.resid").named("good mood"), [good[0], bad[0]]


def logit_lens(model: iv.Model) -> Any:
    widget = iv.LogitLens(model, "Two days after Monday is", compare="Two days after Friday is")
    widget.pinned = [6, len(widget.lens["words"]) - 1]
    return widget


def steer(model: iv.Model) -> Any:
    mood, _ = mood_of(model)
    widget = iv.Steer(model, directions=[mood], prompt="The film made us", max_new_tokens=24).wait()
    widget.edits = [{**widget.edits[0], "coefficient": 2.0}]
    return widget.wait().compute_dose()


def token_strip(model: iv.Model) -> Any:
    mood, texts = mood_of(model)
    return iv.TokenStrip.from_result(iv.project(iv.capture(model, texts, ["blocks.4.resid"]), mood))


def patch_grid(model: iv.Model) -> Any:
    metric = iv.logit_difference(" Paris", " Tokyo")
    grid = iv.patch_grid(model, "The capital of France is", "The capital of Japan is", metric=metric, progress=False)
    return grid.widget().read(5, 5)


def attention(model: iv.Model) -> Any:
    widget = iv.Attention(model, "When Mary and John went to the market , John gave a book to")
    widget.layer, widget.head = 6, 50
    return widget


def evidence_card(_: iv.Model) -> Any:
    drawn = random.Random(0)
    controls = (
        iv.Control(
            "random directions at equal KL", 0.005, threshold=0.01, n=200, effect=4.1,
            compared_with=[drawn.gauss(0, 1) for _ in range(200)], why="an invented example, as all numbers of this card",
        ),
        iv.Control("cost", 0.8, unit="nat a token", n=60, interval=(0.7, 0.93)),
        iv.Control("prompts that move the wrong way", 0.31, threshold=0.2, n=60, interval=(0.2, 0.42), is_ours=True),
        iv.Control.not_run("prompting instead", "no prompt was given"),
        iv.Control.not_applicable("row part of the subspace", "no linear reader has a kernel at this site"),
    )  # fmt: skip
    card = iv.Evidence(
        "“good mood” steers pocket toward words of good mood", controls, about="pocket · blocks.3.resid"
    ).widget()
    card.shown = [0]
    return card


def training_monitor(model: iv.Model) -> Any:
    monitor = iv.TrainingMonitor()
    texts = [
        "The capital of France is Paris .",
        "When Mary and John went to the market , John gave a book to Mary .",
        "The film was lovely and we smiled .",
    ]
    settings = iv.TrainingSettings(n_tokens=20_000, batch_tokens=200, report_every=2)
    spec = iv.DictionarySpec("blocks.3.resid", iv.TopK(4), n_features=64)
    iv.train_dictionaries(model, [spec], texts=texts * 200, settings=settings, progress=False)
    return monitor


@functools.cache
def board_of(model: iv.Model) -> tuple[Any, int]:
    """A dashboard over sentences of the pocket world, and a feature that fires neither seldom nor often."""
    sae = iv.load_dictionary("pocket", site="blocks.4.resid")
    board = iv.dashboard(sae, model, iv.pocket.texts(600, seed="pictures"), progress=False)
    feature = int(board.search(" Monday")["feature"].iloc[0])
    named = iv.label_features(board, iv.KnownLabels(), features=[feature])
    return board.with_labels(named), feature


def panel(model: iv.Model) -> Any:
    good, bad = ["The film was lovely", "I love this trip"], ["The film was awful", "I hate this trip"]
    mood = iv.contrast(model, good, bad, site="blocks.3.resid", name="good mood")
    iv.attach(model, [iv.Add(mood, 2.0)], name="good mood")
    iv.attach(model, [iv.ProjectOut(mood)], name="no mood").enabled = False
    # What is listed besides edits; the cache holds it.
    board_of(model)
    made = iv.panel()
    iv.detach(model)
    return made


def feature_page(model: iv.Model) -> Any:
    board, feature = board_of(model)
    page = board.effects(feature).widget()
    page.read("On Monday we rested. On Tuesday we worked, and Monday was forgotten.")
    return page


def feature_browser(model: iv.Model) -> Any:
    return board_of(model)[0].widget()


def feature_map(model: iv.Model) -> Any:
    return iv.FeatureMap(board_of(model)[0])


PICTURES: dict[str, Callable[[iv.Model], Any]] = {
    "logit_lens": logit_lens,
    "steer": steer,
    "token_strip": token_strip,
    "feature_page": feature_page,
    "feature_browser": feature_browser,
    "feature_map": feature_map,
    "patch_grid": patch_grid,
    "attention": attention,
    "evidence_card": evidence_card,
    "training_monitor": training_monitor,
    "panel": panel,
}


def taken(browser: Browser, path: Path, scheme: Any, width: int) -> bytes:
    """A picture of the one widget of a page, its network cut; what the page says is an error."""
    context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    section = page.locator("section.iv")
    section.wait_for()
    page.wait_for_timeout(100)
    picture = section.screenshot()
    context.close()
    if said:
        raise SystemExit(f"{path.name} said: {said}")
    return picture


def main() -> None:
    """Take the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help="widgets; all when left out")
    names = parser.parse_args().names or list(PICTURES)
    OUT.mkdir(parents=True, exist_ok=True)
    model = iv.open_model("pocket")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        for name in names:
            path = PICTURES[name](model).to_html(Path(folder) / f"{name}.html")
            for scheme in SCHEMES:
                for size, width in WIDTHS.items():
                    (OUT / f"{name}_{scheme}_{size}.png").write_bytes(taken(browser, path, scheme, width))
        browser.close()


if __name__ == "__main__":
    main()
