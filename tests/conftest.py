"""What every test stands on: one thread a process, no network, interrupts that are heard, and a plain word about the browser."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

import signal
import subprocess
from pathlib import Path

import pytest

from scripts.browsing import chromium

ROOT = Path(__file__).resolve().parent.parent
NO_CHROMIUM = (
    "THE BROWSER TESTS DID NOT RUN: no Chromium found. Install one (on Debian: apt install chromium), "
    "or set INNERVIEW_CHROMIUM to its path, and run again."
)


# A shell starts what runs in its background deaf to interrupts, which the tests of interrupts send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a browser where there is none."""
    if chromium() is None:
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeats at the very end that the browser tests were skipped."""
    if any(NO_CHROMIUM in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(NO_CHROMIUM, yellow=True, bold=True)


@pytest.fixture(scope="session")
def chromium_path() -> str | None:
    """The browser that the tests drive."""
    return chromium()


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return ROOT


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """The files that git tracks."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.split("\0") if name]
