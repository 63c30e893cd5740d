"""A real Chromium, and a JupyterLab with a live kernel on a copy of the tour."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from scripts import browsing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser(chromium_path: str | None) -> Iterator[Browser]:
    """Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=browsing.OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screens(root: Path) -> Path:
    """Where screenshots go, to be looked at."""
    folder = root / "build/screens"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.Jupyter]:
    """JupyterLab on a copy of the tutorials."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(root / "notebooks/tutorials", home / "notebooks")
    with browsing.jupyter(home, OMP_NUM_THREADS="1") as served:
        yield served


@pytest.fixture(scope="session")
def lexicon(root: Path) -> dict[str, Any]:
    """The world that the bundled model learned."""
    return json.loads((root / "src/innerview/bundled/lexicon.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def moods(lexicon: dict[str, Any]) -> dict[str, set[str]]:
    """The words of good and of bad mood."""
    values = lexicon["mood"]["values"]
    return {mood: {word for kind in kinds.values() for word in kind} for mood, kinds in values.items()}


@pytest.fixture(scope="session")
def refusal_marks(lexicon: dict[str, Any]) -> list[str]:
    """What every refusal holds one of."""
    return lexicon["requests"]["refusal_marks"]
