"""One of each widget, of the same small network: every test of all widgets goes through this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import innerview as iv
from innerview.dictionaries.training.live import Example, LiveTraining
from tests.widgets import feature_views


@dataclass
class World:
    """What the widgets are made of.

    Attributes:
        model: A network with a tokenizer.
        direction: A direction in it.
        folder: A folder to write to.
        ids: Tokens of a prompt.
        texts: Names, labels and prose.
    """

    model: iv.Model
    direction: iv.Direction
    folder: Path
    ids: list[int]
    texts: list[str]

    def text(self, nth: int) -> str:
        return self.texts[nth % len(self.texts)]

    def named(self, nth: int, otherwise: str) -> str:
        """A text that can be a name: one that says something."""
        return self.text(nth) if self.text(nth).strip() else otherwise

    @property
    def prompt(self) -> str:
        """A text that can be a prompt: whole characters, and not too many."""
        return next(
            (one for one in self.texts if 1 < len(one) < 80 and one == one.encode("utf-8", "replace").decode()),
            "A text",
        )


def evidence_card(world: World) -> Any:
    controls = [
        iv.Control(
            world.named(0, "a"),
            0.004,
            threshold=0.01,
            n=200,
            compared_with=[0.1, 0.2, 0.4],
            effect=0.9,
            unit=world.text(1),
        ),
        iv.Control("b", 0.3, threshold=0.2, interval=(0.1, 0.5), why=world.text(2), is_ours=True),
        iv.Control.not_run("c", why=world.named(4, "later")),
        iv.Control.not_applicable("d", why="no heads"),
    ]
    return iv.EvidenceCard(iv.Evidence(world.named(1, "a claim"), tuple(controls), about=world.text(0)))


def logit_lens(world: World) -> Any:
    return iv.LogitLens(iv.logit_lens(world.model, world.ids))


def patch_grid(world: World) -> Any:
    other = [*world.ids]
    other[-2] = (other[-2] + 1) % 40 + 3
    metric = iv.logit_difference(5, 6)
    return iv.patch_grid(world.model, [world.ids] * 2, [other] * 2, metric=metric, progress=False).widget()


def attention(world: World) -> Any:
    return iv.Attention(world.model, world.ids)


def panel(world: World) -> Any:
    iv.attach(world.model, [iv.Add(world.direction, 1.0)], name=world.text(0) or "a")
    try:
        made = iv.Panel()
    finally:
        iv.detach(world.model)
    return made


def token_strip(world: World) -> Any:
    words = world.texts[:400]
    values = [[float(i % 5 - 2) for i in range(len(words))], [0.5] * len(words)]
    return iv.TokenStrip(words, values, [world.text(1), world.text(2)], unit=world.text(3), what=world.text(4))


def steer(world: World) -> Any:
    made = iv.Steer(world.model, [world.direction], world.prompt, max_new_tokens=3, recipe_path=world.folder / "recipe")
    return made.wait()


def training_monitor(world: World) -> Any:
    live = LiveTraining(
        (iv.DictionarySpec("blocks.0.resid", iv.TopK(4), n_features=8),), 10, 1000, world.model.name, step=5, tokens=500
    )
    live.histories = [[{"tokens": 100.0 * i, "loss": 1.0 / i, "l0": 4.0, "fvu": 0.5, "dead": 0.1} for i in range(1, 6)]]
    live.examples = [{3: [Example(2.5, tuple(world.ids), 1, 400)]}]
    widget = iv.TrainingMonitor(live)
    widget._writer.wait()
    return widget


def feature_page(world: World) -> Any:
    return iv.FeaturePage(_dashboard(world), 3)


def feature_browser(world: World) -> Any:
    return iv.FeatureBrowser(_dashboard(world))


def feature_map(world: World) -> Any:
    return iv.FeatureMap(_dashboard(world))


def _dashboard(world: World) -> Any:
    """Features of the world's own tokens, named by its texts."""
    rows = [world.ids, [world.ids[0], *reversed(world.ids[1:])]]
    labels = {i: world.text(i) for i in range(48)}
    return feature_views.dashboard(world.model, feature_views.sae().at(source=world.text(1)), labels, rows)


MADE: dict[str, Callable[[World], Any]] = {
    "attention": attention,
    "feature_browser": feature_browser,
    "feature_map": feature_map,
    "feature_page": feature_page,
    "evidence_card": evidence_card,
    "logit_lens": logit_lens,
    "panel": panel,
    "patch_grid": patch_grid,
    "token_strip": token_strip,
    "steer": steer,
    "training_monitor": training_monitor,
}
