"""The ways to do one thing: ours, a plain hook, and one file a peer. A way whose package is missing is reported, not skipped in silence."""

import importlib
from types import ModuleType

PEERS = ("with_nnsight", "with_transformer_lens", "with_interp_engine")


def load_peers(names: tuple[str, ...] = PEERS) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The peers that can be imported, and why the others cannot."""
    found: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"benchmarks.ways.{name}")
        except ImportError as error:
            missing[name.removeprefix("with_")] = f"{type(error).__name__}: {error}"
    return found, missing
