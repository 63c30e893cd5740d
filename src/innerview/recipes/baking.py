"""Edits in the weights: a copy of the network that does by itself what the edits did."""

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from innerview.capturing import capture
from innerview.edits import Add, Edit, ProjectOut, Replace, Rotate, Scale, Transport
from innerview.errors import InnerviewError, RecipeError
from innerview.models.model import Model
from innerview.models.opening import open_model
from innerview.recipes.reloading import make_reloadable
from innerview.recipes.writers import Writer, linear_writer, tables, untie
from innerview.where import Where

# Of the largest number of the live run, in float32.
EQUAL = 1e-5
PLACES = ("resid_in", "attn.out", "resid_mid", "mlp.out", "resid")
PLACED = re.compile(r"blocks\.(\d+)\.(" + "|".join(map(re.escape, PLACES)) + ")")
READS = {"attn.out": "attn.heads", "mlp.out": "mlp.hidden"}
LIVE = "keep it live, with iv.attach or edits="


@dataclass(frozen=True)
class Place:
    """Where an edit is baked: a write, or the stream behind one. Block −1 is the embedding."""

    layer: int
    name: str

    @property
    def order(self) -> tuple[int, int]:
        """Places in the order in which a forward comes by; what enters a block is what left the one before."""
        if self.name == "resid_in":
            return self.layer - 1, len(PLACES)
        return self.layer, PLACES.index(self.name) if self.name in PLACES else 0

    @property
    def is_stream(self) -> bool:
        """Whether the whole stream is there, not one module's write."""
        return self.name.startswith("resid")


def baked(edits: Sequence[Edit], model: Model) -> Model:
    """A copy of a network with edits in its weights, equal to the live edits.

    Raises:
        RecipeError: An edit cannot be baked, or what was baked is not equal.
    """
    placed = sorted(_placed(edits, model), key=lambda one: one[0].order)
    _refuse_out_of_reach(model)
    made = open_model(copy.deepcopy(model.module), tokenizer=model.tokenizer)
    before, training = set(made.module.state_dict()), made.module.training
    made.module.eval().float()
    _Baker(made).bake(placed, edits)
    made.module.train(training)
    _restore_formats(made, model)
    make_reloadable(made.module, set(made.module.state_dict()) - before)
    return made


def _refuse_out_of_reach(model: Model) -> None:
    for path, weight in model.module.named_parameters():
        if weight.device.type == "meta" or not weight.is_floating_point():
            kind = "not in memory" if weight.device.type == "meta" else f"of {weight.dtype}"
            raise RecipeError(
                f"{path!r} is {kind}, so no edit can be baked into a copy of {model.name}; load the network in full, in float32 or half precision"
            )


def _restore_formats(made: Model, model: Model) -> None:
    """Number formats as they were; what is new takes that of the weight beside it."""
    formats = {name: t.dtype for name, t in _numbers(model)}
    for name, tensor in _numbers(made):
        beside = f"{name.rpartition('.')[0]}.weight"
        tensor.data = tensor.data.to(formats.get(name, formats.get(beside, tensor.dtype)))


def _numbers(model: Model) -> list[tuple[str, Tensor]]:
    root = model.module
    return [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]


def _placed(edits: Sequence[Edit], model: Model) -> list[tuple[Place, Edit]]:
    """Each edit at each of its places.

    Raises:
        RecipeError: No weight does what an edit does.
    """
    found = []
    for edit in edits:
        with _telling(edit):
            if _why_not(edit):
                raise RecipeError(_why_not(edit))
            found += [(_place(site.name, edit), edit) for site in model.expand(edit.site)]
    return found


def _place(name: str, edit: Edit) -> Place:
    at = PLACED.fullmatch(name)
    if at is None and name != "embed":
        raise RecipeError(
            f"{name!r} is not written by weights into the stream; places are embed and blocks.N. with {', '.join(PLACES)}"
        )
    place = Place(int(at[1]), at[2]) if at else Place(-1, "embed")
    if place.is_stream and not (isinstance(edit, Add) or (isinstance(edit, ProjectOut) and edit.neurons is None)):
        raise RecipeError(
            f"at {name!r} the whole stream passes, and the last weight before can only add to it or keep directions out of it; "
            "edit attn.out and mlp.out"
        )
    return place


@contextmanager
def _telling(edit: Edit) -> Iterator[None]:
    """Names the edit that is refused, and the way out."""
    try:
        yield
    except InnerviewError as error:
        raise RecipeError(f"{edit.label} cannot be baked into weights: {error}; {LIVE}") from error


def _why_not(edit: Edit) -> str:
    """Why an edit is no affine map of every token; empty if it is one."""
    if edit.where != Where():
        return "it applies to certain tokens, steps or conditions, and weights see them all"
    if edit.heads is not None:
        return "it applies to certain heads, which the stream has not"
    if isinstance(edit, Add) and not isinstance(edit.coefficient, float):
        return "it has a coefficient for each row"
    if isinstance(edit, Rotate) and edit.start is None:
        return "it turns each token in a plane of its own; give it start= for one plane"
    if isinstance(edit, Replace) and edit.value.ndim > 1:
        return "its value differs from token to token"
    if not isinstance(edit, (Add, ProjectOut, Scale, Replace, Transport, Rotate)):
        return f"{type(edit).__name__} is no affine map"
    return ""


class _Baker:
    """Changes the weights of an opened copy, in float32."""

    def __init__(self, made: Model) -> None:
        self.made = made
        self.ids = _some_ids(made)
        self.embeddings = self._embeddings()

    def bake(self, placed: list[tuple[Place, Edit]], edits: Sequence[Edit]) -> None:
        """Bake edits in the order in which a forward comes by them, and compare with the live ones."""
        site = "logits" if "logits" in self.made.table else f"blocks.{(self.made.n_layers or 1) - 1}.resid"
        for place, edit in placed:
            if not place.is_stream and place.name != "embed":
                with _telling(edit):
                    self._check_written(place)
        live = capture(self.made, self.ids, site, edits=list(edits))[site] if placed else None
        for place, edit in placed:
            with _telling(edit):
                self._bake_one(place, edit)
        if live is None:
            return
        found = capture(self.made, self.ids, site)[site]
        error, size = float((found - live).abs().max()), float(live.abs().max())
        if not error <= EQUAL * size:
            raise RecipeError(
                f"baked weights give {site} that differ by {error:.3g} of {size:.3g} from the live edits, more than {EQUAL:g} of it: something "
                f"between the weights and the stream is not what it seems; {LIVE}"
            )

    def _bake_one(self, place: Place, edit: Edit) -> None:
        if place.name == "embed":
            writers = [self._table()]
        elif place.is_stream:
            writers = self._stream_writers(place)
        else:
            writers = [self._writer(place)]
        if place.is_stream and isinstance(edit, ProjectOut):
            self._refuse_carried(place, edit, writers)
        # An addition is written once; a projection is one of every part of a sum.
        for writer in writers[: 1 if isinstance(edit, Add) else None]:
            untie(self.made, writer)
            writer.put_behind(edit)

    def _table(self) -> Writer:
        path = self.made.table["embed"].module
        found = next((table for table in tables(self.made) if table.path == path), None)
        if found is None:
            raise RecipeError(f"{path!r} is no plain embedding")
        return found

    def _writer(self, place: Place) -> Writer:
        site = f"blocks.{place.layer}.{place.name}"
        return linear_writer(self.made, site, f"blocks.{place.layer}.{READS[place.name]}")

    def _stream_writers(self, place: Place) -> list[Writer]:
        """What wrote last before the stream is there."""
        if place.name == "resid_in" and place.layer == 0:
            return self._needed_embeddings()
        layer = place.layer - 1 if place.name == "resid_in" else place.layer
        last = Place(layer, "attn.out" if place.name == "resid_mid" else "mlp.out")
        self._check_written(last)
        return [self._writer(last)]

    def _needed_embeddings(self) -> list[Writer]:
        if self.embeddings is None:
            raise RecipeError(
                "what enters block 0 is not the sum of embeddings: a norm, a factor or something else is between"
            )
        return self.embeddings

    def _refuse_carried(self, place: Place, edit: ProjectOut, last: list[Writer]) -> None:
        """Refuse a projection of a stream that carries the directions from an earlier write."""
        basis = edit.basis()
        earlier = list(self._needed_embeddings())
        for layer in range(self.made.n_layers or 0):
            for name in ("attn.out", "mlp.out"):
                write = Place(layer, name)
                if write.order < place.order:
                    earlier.append(self._writer(write))
        done = {one.path for one in last}
        for writer in earlier:
            if writer.path not in done and not writer.is_free_of(basis):
                raise RecipeError(
                    f"the stream carries {', '.join(d.name for d in edit.directions)} already, from {writer.path!r}, and no later weight takes it "
                    "out; take it out of every write: 'blocks.0.resid_in', 'blocks.*.attn.out' and 'blocks.*.mlp.out'"
                )

    def _check_written(self, place: Place) -> None:
        """Refuse a site that is more than what its weight writes.

        Raises:
            RecipeError: A norm, a factor or something else is between.
        """
        site = f"blocks.{place.layer}.{place.name}"
        path = f"module:{self._writer(place).path}"
        acts = capture(self.made, self.ids, [site, path])
        found = acts[site]
        # Some networks hand all tokens to their weights in one axis.
        written = acts[path].view(found.shape) if acts[path].numel() == found.numel() else acts[path]
        if written.shape != found.shape or not torch.allclose(
            written, found, rtol=EQUAL, atol=EQUAL * float(found.abs().max())
        ):
            raise RecipeError(
                f"between {path.removeprefix('module:')!r} and {site!r} there is a norm, a factor or something else"
            )

    def _embeddings(self) -> list[Writer] | None:
        """The embeddings whose sum enters block 0; None where it is no such sum."""
        if "blocks.0.resid_in" not in self.made.table:
            return None
        found = tables(self.made)
        paths = [f"module:{table.path}" for table in found]
        try:
            acts = capture(self.made, self.ids, ["blocks.0.resid_in", *paths])
        except InnerviewError:
            # An embedding that never ran is no part of the sum.
            return None
        entering = acts["blocks.0.resid_in"]
        total = sum((acts[path] for path in paths), torch.zeros_like(entering)) if paths else None
        is_sum = (
            total is not None
            and total.shape == entering.shape
            and torch.allclose(total, entering, rtol=EQUAL, atol=1e-6)
        )
        return found if is_sum else None


def _some_ids(model: Model) -> list[list[int]]:
    if not model.vocab:
        raise RecipeError(
            f"{model.name} reads no tokens that are known, so nothing baked can be compared with the live edits; {LIVE}"
        )
    width = min(8, model.context or 8)
    return torch.randint(0, model.vocab, (2, width), generator=torch.Generator().manual_seed(0)).tolist()
