"""A real Chromium, and a Jupyter of its own with live kernels: what the browser tests, the pictures and the benchmarks of widgets drive."""

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Cells off the screen stay in the document, so that they can be read without scrolling.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CONFIG = """
from jupyterlab.galata import configure_jupyter_server
configure_jupyter_server(c)
c.ServerApp.root_dir = {folder!r}
c.ServerApp.port = {port}
c.IdentityProvider.token = {token!r}
c.JupyterNotebookApp.expose_app_in_browser = True
"""
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "work",
}
START_S = 60


def chromium() -> str | None:
    """The Chromium that scripts/find_chromium.sh would take, without installing one."""
    named = os.environ.get("INNERVIEW_CHROMIUM")
    names = [named, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    return next((path for name in [*names, mac] if name and (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Jupyter:
    """A running server: its address, its token and the folder that it serves."""

    address: str
    token: str
    folder: Path

    def url(self, notebook: str) -> str:
        """Where JupyterLab shows a notebook of the folder."""
        # A workspace for each: the tabs that were left open elsewhere would come back, and commands go to whichever is in front.
        name = notebook.rsplit("/", 1)[-1].removesuffix(".ipynb")
        return f"{self.address}/lab/workspaces/{name}/tree/{notebook}?token={self.token}"


@contextmanager
def jupyter(home: Path, app: str = "jupyterlab", **more: str) -> Iterator[Jupyter]:
    """A server with settings, data and runtime folders of its own under `home`, serving `home/notebooks`, until the block ends.

    Args:
        home: An empty folder, or one that holds notebooks only.
        app: Python's module of the server: `jupyterlab` or `notebook`.
        **more: Environment variables of the kernels.
    Raises:
        RuntimeError: It did not start; its log is in the message.
    """
    folder = home / "notebooks"
    folder.mkdir(exist_ok=True)
    for name, values in SETTINGS.items():
        place = home / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(values))
    port, token = _free_port(), secrets.token_hex(16)
    config, log = home / "jupyter_server_config.py", home / "server.log"
    config.write_text(CONFIG.format(folder=str(folder), port=port, token=token))
    command = [sys.executable, "-m", app, "--no-browser", "--allow-root", f"--config={config}"]
    own = {**os.environ, **{name: str(home / place) for name, place in FOLDERS.items()}, **more}
    with log.open("w") as file:
        server = subprocess.Popen(command, env=own, stdout=file, stderr=file, cwd=home)
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/api?token={token}", server, log)
        yield Jupyter(f"http://127.0.0.1:{port}", token, folder)
    finally:
        server.terminate()
        server.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"Jupyter did not start:\n{log.read_text()[-4000:]}")
