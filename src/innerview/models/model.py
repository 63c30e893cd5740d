"""An opened network: a module, a tokenizer, a table of sites, a lock. Functions act on it."""

import threading
import weakref
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from innerview.errors import SiteError
from innerview.models.aliases import TRANSFORMERLENS_BLOCK, TRANSFORMERLENS_MODEL
from innerview.models.families import Family
from innerview.models.site import Site

_LOCKS: "weakref.WeakKeyDictionary[nn.Module, Any]" = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


def lock_of(module: nn.Module) -> Any:
    """The one lock of a root module, shared by every Model that was opened on it."""
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(module, threading.RLock())


@dataclass(frozen=True, eq=False)
class Model:
    """An opened network.

    Attributes:
        module: The root module, called with the network's own inputs.
        tokenizer: The tokenizer, None for networks that read no text.
        name: How it was opened.
        family: Row of the table of families that it belongs to, None for any other module.
        table: Sites by name.
        n_layers: Number of blocks, None if unknown.
        d_model: Width of the residual stream, None if unknown.
        vocab: Number of logits, None if unknown.
        context: Longest text in tokens, None if unbounded or unknown.
        lock: Held for one forward, and around registering hooks and switching kernels.
        opened_by: Whether the sites come from the `table` of families, from `finding` them in the network, or by module `path` alone.
        checks: What was seen to hold in a trial of a found network, in words.
        refused: Names of sites that a found network does not offer, and why, with what to use instead.
    """

    module: nn.Module
    tokenizer: Any
    name: str
    family: Family | None
    table: dict[str, Site] = field(repr=False)
    n_layers: int | None = None
    d_model: int | None = None
    vocab: int | None = None
    context: int | None = None
    lock: Any = field(default=None, repr=False)
    opened_by: Literal["table", "finding", "path"] = "table"
    checks: tuple[str, ...] = field(default=(), repr=False)
    refused: dict[str, str] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        family = self.family.name if self.family else type(self.module).__name__
        known = f"{self.n_layers} layers, d_model {self.d_model}, {len(self.table)} sites"
        mode = ", in training mode: its dropout is on" if self.module.training else ""
        return f"Model({self.name!r}, {family}, {known if self.table else 'sites by module path'}{mode})"

    @property
    def device(self) -> torch.device:
        """Where inputs belong: with the first weights, or, where offloading keeps weights nowhere, where the network computes."""
        first = next(self.module.parameters(), None)
        if first is None:
            return torch.device("cpu")
        if first.device.type != "meta":
            return first.device
        return torch.device(getattr(getattr(self.module, "_hf_hook", None), "execution_device", None) or "cpu")

    @property
    def has_chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def sites(self) -> pd.DataFrame:
        """Table of the sites: one row each, with its layer, module, side and shape; the modules' outputs where no family is known."""
        listed = list(self.table.values()) or [Site(f"module:{path}", path) for path, _ in self.module.named_modules()]
        rows = [(s.name, s.layer, s.module or "(root)", s.side, s.shape) for s in listed]
        frame = pd.DataFrame(rows, columns=["site", "layer", "module", "side", "shape"]).set_index("site")
        return frame.astype({"layer": "Int64"})

    def site(self, name: str) -> Site:
        """The one site of this name.

        Raises:
            SiteError: There is none, or the name matches several.
        """
        found = self.expand(name)
        if len(found) != 1:
            raise SiteError(
                f"{name!r} names {len(found)} sites of {self.name}; one is needed here, such as {found[-1].name!r}"
            )
        return found[0]

    def expand(self, name: str) -> list[Site]:
        """The sites that a name, a wildcard or an alias stands for, in the network's order.

        Raises:
            SiteError: Nothing matches; the nearest name is given.
        """
        if not isinstance(name, str):
            raise SiteError(f"a site is a string such as 'blocks.3.resid', not {name!r} of type {type(name).__name__}")
        if name in self.table:
            return [self.table[name]]
        known = self._alias(name)
        if known in self.table:
            return [self.table[known]]
        if "*" in known:
            found = [site for key, site in self.table.items() if fnmatchcase(key, known)]
            if found:
                return found
        by_path = self._by_path(name)
        if by_path:
            return by_path
        raise SiteError(self._no_site(name, known))

    def _alias(self, name: str) -> str:
        """The site's own name behind a TransformerLens name."""
        if name in TRANSFORMERLENS_MODEL:
            return TRANSFORMERLENS_MODEL[name]
        head, _, rest = name.partition(".")
        layer, _, hook = rest.partition(".")
        if head != "blocks" or hook not in TRANSFORMERLENS_BLOCK:
            return name
        names = [f"blocks.{layer}.{part}" for part in TRANSFORMERLENS_BLOCK[hook].split("|")]
        known = [name for name in names if any(fnmatchcase(site, name) for site in self.table)]
        return known[0] if known else names[-1]

    def _by_path(self, name: str) -> list[Site]:
        """Sites at modules' paths: `module:encoder.fc1`, `encoder.fc1`, with `@input` behind, or with `*` for a part of a path."""
        path, _, side = name.removeprefix("module:").partition("@")
        if side not in ("", "input", "output"):
            return []
        if "*" in path:
            paths = [p for p, _ in self.module.named_modules(remove_duplicate=False) if p and fnmatchcase(p, path)]
            behind = f"@{side}" if side else ""
            return [Site(f"module:{p}{behind}", p, side or "output") for p in paths]  # type: ignore[arg-type]
        if not path and not name.startswith("module:"):
            return []
        try:
            self.module.get_submodule(path)
        except AttributeError:
            return []
        return [Site(name, path, side or "output")]  # type: ignore[arg-type]

    def _no_site(self, name: str, known: str) -> str:
        kind = self.family.name if self.family else type(self.module).__name__
        parts = known.split(".")
        is_layer = parts[0] == "blocks" and len(parts) > 2 and parts[1].lstrip("-").isdigit()
        if is_layer and self.n_layers and not 0 <= int(parts[1]) < self.n_layers:
            last = self.n_layers - 1
            return f"no layer {parts[1]} for site {name!r}: {self.name} has {self.n_layers}, blocks.0 to blocks.{last}"
        for refused, reason in self.refused.items():
            if fnmatchcase(known, refused) or fnmatchcase(refused, known):
                return f"no site {name!r} in {kind}: {reason}"
        names = list(self.table) or [f"module:{path}" for path, _ in self.module.named_modules() if path]
        near = get_close_matches(known, names, n=1, cutoff=0.0)
        nearest = f"; nearest is {near[0]!r}" if near else ""
        return f"no site {name!r} in {kind}{nearest}; model.sites() lists them, and module:<path> names any module's output"
