"""A real Chromium, and a JupyterLab with a live kernel on a copy of the tour."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Cells off the screen stay in the document, so that a test reads them without scrolling.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
SERVER_CONFIG = """
from jupyterlab.galata import configure_jupyter_server
configure_jupyter_server(c)
c.ServerApp.root_dir = {folder!r}
c.ServerApp.port = {port}
c.IdentityProvider.token = {token!r}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in this folder."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its token and the folder that it serves."""

    address: str
    token: str
    folder: Path

    def url(self, notebook: str) -> str:
        # A workspace for each: the tabs that another test left open would come back, and commands go to whichever is in front.
        name = notebook.rsplit("/", 1)[-1].removesuffix(".ipynb")
        return f"{self.address}/lab/workspaces/{name}/tree/{notebook}?token={self.token}"


@pytest.fixture(scope="session")
def browser(chromium_path: str | None) -> Iterator[Browser]:
    """Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screens(root: Path) -> Path:
    """Where screenshots go, to be looked at."""
    folder = root / "build/screens"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with settings, data and runtime folders of its own, serving a copy of the tutorials."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(root / "notebooks/tutorials", folder)
    for name, values in SETTINGS.items():
        place = home / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(values))
    port, token = free_port(), secrets.token_hex(16)
    config = home / "jupyter_server_config.py"
    config.write_text(SERVER_CONFIG.format(folder=str(folder), port=port, token=token))
    with (home / "server.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--config={config}"]
        server = subprocess.Popen(command, env=environment(home), stdout=log, stderr=log, cwd=home)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/api?token={token}", server, home / "server.log")
        yield Lab(f"http://127.0.0.1:{port}", token, folder)
    finally:
        server.terminate()
        server.wait(30)


def environment(home: Path) -> dict[str, str]:
    """This environment, with every folder that Jupyter writes to under `home`."""
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "work",
    }
    return {
        **os.environ,
        **{name: str(home / place) for name, place in folders.items()},
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> None:
    """Returns when the server answers; fails with its log when it does not."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


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
