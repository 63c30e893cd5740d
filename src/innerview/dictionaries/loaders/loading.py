"""`load_dictionary`: a dictionary from a folder, the hub, a release of SAELens, an object of it, or what is bundled."""

from pathlib import Path
from typing import Any

from innerview.bundled import bundled_names
from innerview.dictionaries.loaders import (
    circuit_tracer,
    cross_layer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    own,
    pt_files,
    saelens,
    sparsify,
    temporal_sae,
)
from innerview.dictionaries.loaders.files import Folder
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import site_of
from innerview.dictionaries.loaders.sources import located
from innerview.dictionaries.manifest import UNKNOWN, Normalisation
from innerview.errors import DictionaryError
from innerview.opened import opened

FORMATS: tuple[Format, ...] = (
    own.FORMAT,
    saelens.FORMAT,
    sparsify.FORMAT,
    gemma_scope.FORMAT,
    gemma_scope_2.FORMAT,
    dictionary_learning.FORMAT,
    llama_scope.FORMAT,
    llama_scope.FORMAT_R1,
    circuit_tracer.FORMAT,
    cross_layer.FORMAT,
    temporal_sae.FORMAT,
    pt_files.FORMAT,
)


def load_dictionary(
    source: Any,
    path: str = "",
    *,
    site: str = "",
    model: str = "",
    revision: str | None = None,
    normalisation: Normalisation | None = None,
) -> Any:
    """A dictionary in any published format, recognised by its files.

    Args:
        source: A bundled name (`"pocket"`), a folder, a weights file, a hub id, a release of SAELens (where it is installed), or a
            `sae_lens.SAE`.
        path: Where in the source: a folder or file of the hub's repository, or the id in the release; behind the id it may stand too.
        site: The site that it reads, where the files do not say, or which of several is meant.
        model: Name of the network, where the files do not say.
        revision: Branch, tag or commit of the hub's repository.
        normalisation: How the input is prepared, where the files leave a number open.
    Raises:
        DictionaryError: There is none, its format is not known or not clear, or a field that changes codes is missing or damaged.
    """
    if saelens.is_object(source):
        found = saelens.of_object(source, Source(Folder(Path(), "", Path()), type(source).__name__, site=site))
    else:
        found = read(located(source, path, site=site, revision=revision, normalisation=normalisation))
    # Several bundled ones may read one site: there it is their name.
    made = _said(found, "" if isinstance(source, str) and source in bundled_names() else site, model)
    opened.add("dictionary", made)
    return made


def read(source: Any) -> Any:
    """The dictionary of a source by its files.

    Raises:
        DictionaryError: They are of no format, or of several.
    """
    if not isinstance(source, Source):
        return source
    names = source.names()
    _refuse_others(source, names)
    found = [one for one in FORMATS if one.is_here(source)]
    if len(found) > 1:
        told = " and ".join(f"{one.name} ({one.files})" for one in found)
        raise DictionaryError(f"{source.said!r} has the files of {told}; name the weights file that is meant")
    if not found:
        raise DictionaryError(_nothing(source, names))
    return found[0].read(source)


def _refuse_others(source: Source, names: set[str]) -> None:
    if {"config.json", "params.pt"} <= names:
        raise DictionaryError(
            f"{source.said!r} is a tuned lens (config.json and params.pt), not a dictionary; lenses are read by innerview's lenses"
        )
    vectors = sorted(name for name in names if name.endswith(".gguf"))
    if vectors and (source.file or len(names) == 1):
        raise DictionaryError(
            f"{vectors[0]!r} is a control vector of llama.cpp, not a dictionary; iv.Recipe.from_gguf reads it"
        )


def _nothing(source: Source, names: set[str]) -> str:
    below = sorted(
        name
        for name in names
        if (source.folder.root / name).is_dir() and any(f.is_here(_inside(source, name)) for f in FORMATS)
    )
    if below:
        told = ", ".join(below[:8]) + ("…" if len(below) > 8 else "")
        return f"{source.said!r} holds dictionaries in folders; name one: {told}"
    known = "; ".join(f"{one.name}: {one.files}" for one in FORMATS)
    seen = ", ".join(sorted(names)[:12]) or "nothing"
    return f"no format is known by the files of {source.said!r} ({seen}). Known are {known}"


def _inside(source: Source, name: str) -> Source:
    return Source(source.folder.folder(name), f"{source.said}/{name}")


def _said(found: Any, site: str, model: str) -> Any:
    """The dictionary with what the user says of it; what contradicts its files is refused."""
    fields = {}
    for name, said, ours in (("site", site, site_of(site) if site else ""), ("model", model, model)):
        if not said:
            continue
        said = said if ours in ("", UNKNOWN) else ours
        told = getattr(found.manifest, name)
        if told not in (UNKNOWN, said) and not (name == "model" and told.split("/")[-1] == said.split("/")[-1]):
            raise DictionaryError(
                f"{name}={said!r}, and the files of {found.manifest.source!r} say {told!r}; leave {name}= out, or say dictionary.at({name}=...)"
            )
        fields[name] = said
    return found.at(**fields) if fields else found
