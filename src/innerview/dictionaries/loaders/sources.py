"""Where a dictionary's files lie: bundled, in a folder, in the hub's cache, or with SAELens."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from innerview.bundled import bundled_dictionary, bundled_names
from innerview.dictionaries.loaders import saelens
from innerview.dictionaries.loaders.files import Folder
from innerview.dictionaries.loaders.format import Source
from innerview.dictionaries.loaders.names import layer_of
from innerview.dictionaries.manifest import Normalisation
from innerview.errors import DictionaryError

CONFIGS = ("cfg.json", "config.json", "config.yaml", "conf.yaml", "hyperparams.json", "manifest.json")
WEIGHTS = (
    "weights.safetensors", "sae_weights.safetensors", "sparsity.safetensors", "activation_scaler.json", "sae.safetensors", "params.npz",
    "params.safetensors", "ae.pt", "checkpoints/final.safetensors", "latest_ckpt.safetensors",
)  # fmt: skip
# One file a layer: all of them where no layer is said.
LAYERS = ("W_enc_*.safetensors", "W_dec_*.safetensors", "layer_{}.safetensors", "layer{}.sae.pt", "{}.pt")
WEIGHTS_FILE = re.compile(r"\.(safetensors|pt|pth|npz|gguf)$")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[^\0]+)?")


def located(source: Any, path: str, *, site: str, revision: str | None, normalisation: Normalisation | None) -> Any:
    """Where the files are; of a release of SAELens, the dictionary itself.

    Raises:
        DictionaryError: There is no such place.
    """
    if not isinstance(source, (str, os.PathLike)) or not str(source):
        raise DictionaryError(
            f"cannot load a dictionary from {source!r} of type {type(source).__name__}; give a bundled name, a folder, a hub id or a sae_lens.SAE"
        )
    said, given = str(source), {"site": site, "normalisation": normalisation}
    if said in bundled_names():
        return _in_folder(bundled_dictionary(said, path or site), "", **given)
    local = Path(said).expanduser()
    if local.exists():
        return _in_folder(local, path, **given)
    if "/" not in said:
        found = _of_release(said, path)
        if found is not None:
            return found
        raise DictionaryError(
            f"no dictionary {said!r}: no folder, no bundled name ({', '.join(bundled_names())}), no hub id (owner/name), "
            "and no release of SAELens that is installed here"
        )
    if not HUB_ID.fullmatch(said) or said.startswith(("/", ".", "~")) or ".." in said.split("/") + path.split("/"):
        raise DictionaryError(f"no dictionary {said!r}: there is no such folder, and it is no hub id with a path in it")
    return _of_hub(said, path, revision, **given)


def _in_folder(local: Path, path: str, **given: Any) -> Source:
    """A folder or a file of the user's own disk."""
    whole = local / path if path else local
    try:
        real = whole.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise DictionaryError(f"there is no {str(whole)!r}") from error
    if path and not real.is_relative_to(local.resolve()):
        raise DictionaryError(f"{path!r} leads out of {str(local)!r}")
    # Links of the hub's cache point from snapshots/<commit> into blobs, both of one repository's folder.
    unresolved = Path(os.path.abspath(whole))
    cached = _cached(unresolved)
    root = unresolved if cached else real
    is_file = real.is_file()
    folder = root.parent if is_file else root
    if not is_file and not real.is_dir():
        raise DictionaryError(f"{str(whole)!r} is neither a folder nor a regular file")
    boundary = cached.resolve() if cached else folder
    commit = _commit(unresolved) if cached else "unknown"
    return Source(
        Folder(folder, str(folder), boundary), str(folder), root.name if is_file else "", commit=commit, **given
    )


def _cached(path: Path) -> Path | None:
    """The repository's folder in the hub's cache that a path lies in."""
    for parent in path.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith(("models--", "datasets--")):
            return parent.parent
    return None


def _commit(path: Path) -> str:
    parts = path.parts
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _of_hub(said: str, path: str, revision: str | None, **given: Any) -> Source:
    """The files of a repository, only those that a dictionary is made of."""
    owner, name, *inner = said.split("/")
    inside = "/".join([*inner, path]).strip("/") if path else "/".join(inner).strip("/")
    is_file = bool(WEIGHTS_FILE.search(inside))
    folder = inside.rpartition("/")[0] if is_file else inside
    try:
        root = Path(
            snapshot_download(
                f"{owner}/{name}",
                revision=revision,
                allow_patterns=patterns(folder, inside if is_file else "", given["site"]),
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DictionaryError(f"no dictionary {said!r}: neither a folder here, nor on the hub ({reason})") from error
    where = root / folder if folder else root
    if not where.is_dir() or (is_file and not os.path.lexists(where / inside.rpartition("/")[2])):
        raise DictionaryError(f"the repository {owner}/{name} has no {inside!r} that a dictionary could be")
    boundary = (_cached(where) or root).resolve()
    label = f"{owner}/{name}/{folder}".rstrip("/")
    commit = _commit(where) if _cached(where) else "unknown"
    file = inside.rpartition("/")[2] if is_file else ""
    return Source(Folder(where, label, boundary), label, file, commit=commit, **given)


def patterns(folder: str, file: str, site: str) -> list[str]:
    """Names of the files to fetch: configs there and above, and the weights that are meant."""
    levels = ["", *("/".join(folder.split("/")[: i + 1]) + "/" for i in range(len(folder.split("/"))) if folder)]
    found = [f"{level}{config}" for level in levels for config in CONFIGS]
    if file:
        return [*found, file]
    layer = layer_of(site)
    each = [one.format("*" if layer is None else layer) for one in LAYERS]
    return [*found, *(f"{levels[-1]}{one}" for one in (*WEIGHTS, *each))]


def _of_release(release: str, sae_id: str) -> Any:
    """The dictionary of a release that SAELens knows; None where it knows none of that name, or is not installed."""
    if importlib.util.find_spec("sae_lens") is None:
        return None
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]
    from sae_lens.loading.pretrained_saes_directory import (  # pyright: ignore[reportMissingImports]
        get_pretrained_saes_directory,
    )

    known = get_pretrained_saes_directory()
    if release not in known:
        return None
    ids = list(known[release].saes_map)
    if sae_id not in ids:
        told = ", ".join(ids[:5]) + ("…" if len(ids) > 5 else "")
        raise DictionaryError(f"the release {release!r} has no {sae_id!r}; give one of its ids as path: {told}")
    try:
        sae = SAE.from_pretrained(release, sae_id)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DictionaryError(f"SAELens could not load {sae_id!r} of {release!r}: {error}") from error
    place = Source(Folder(Path(), "", Path()), f"{release}/{sae_id}")
    return saelens.of_object(sae, place)
