"""Worlds that the tests of the generator share."""

from pathlib import Path

import pytest

from innerview.pocket.world import load_world

TINY = Path(__file__).parent / "tiny_lexicon.json"


@pytest.fixture(scope="session")
def world():
    return load_world()


@pytest.fixture(scope="session")
def tiny():
    return load_world(TINY)
