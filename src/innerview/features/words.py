"""Words that a feature promotes and suppresses, read from what it writes through the network's own norm and unembedding.

Reference: https://www.lesswrong.com/posts/qykrYY6rXXM7EEs8Q (logit weights of features)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import DictionaryError, ModelError, SiteError
from innerview.features.corpus import given_to
from innerview.features.view import Word
from innerview.models.matrix import matrix_of
from innerview.models.model import Model
from innerview.models.weights import Unembedding, unembedding

# Sites whose value is added to the residual stream, or is the stream.
STREAM = ("embed", "resid_in", "resid_mid", "resid", "attn.out", "mlp.out", "final_norm")


@dataclass(frozen=True, eq=False)
class Readout:
    """How what a dictionary writes reaches the logits, directly.

    Attributes:
        matrix: From what the final norm has scaled to logits, shape [d_model, vocab].
        norm: The final norm's weight, shape [d_model]; None without a norm, or behind it.
        centers: Whether the final norm takes the mean away.
        onto: From the dictionary's site to the residual stream, shape [d_out, d_model]; None where it is the stream.
    """

    matrix: Float[Tensor, "d_model vocab"]
    norm: Float[Tensor, "d_model"] | None
    centers: bool
    onto: Float[Tensor, "d_out d_model"] | None

    @classmethod
    def of(cls, model: Model, dictionary: Dictionary) -> "Readout":
        """The readout of a dictionary's site.

        Raises:
            ModelError: The network has no output head, or the site does not reach the stream by a matrix.
            DictionaryError: The site is not known.
        """
        try:
            site = model.site(dictionary.site_out)
        except SiteError as error:
            raise ModelError(str(error)) from error
        kind = site.name.split(".", 2)[2] if site.name.startswith("blocks.") else site.name
        head = unembedding(model)
        onto = None
        if kind in ("mlp.hidden", "attn.heads"):
            onto = matrix_of(model.module.get_submodule(site.module)).detach()
        elif kind not in STREAM:
            raise ModelError(
                f"{site.name!r} is no site that writes to the stream of {model.name}; words are read of {', '.join(STREAM)}, mlp.hidden and attn.heads"
            )
        norm, centers = (None, False) if kind == "final_norm" else _final_norm(model, head)
        made = cls(head.matrix.detach() * head.scale, norm, centers, onto)
        width = made.matrix.shape[0] if onto is None else onto.shape[0]
        if width != dictionary.d_out:
            raise ModelError(
                f"{site.name!r} of {model.name} is {width} wide, and the dictionary writes {dictionary.d_out}"
            )
        return made

    def logits(self, rows: Float[Tensor, "n d_out"]) -> Float[Tensor, "n vocab"]:
        """What one unit of each row adds to the logits, for a stream of unit size."""
        return self._written(rows) @ self.matrix.float()

    def _written(self, rows: Tensor) -> Tensor:
        written = rows.detach().to(self.matrix.device, torch.float32)
        if self.onto is not None:
            written = written @ self.onto.to(written)
        if self.centers:
            written = written - written.mean(dim=-1, keepdim=True)
        if self.norm is not None:
            written = written * self.norm
        return written

    def cosines(self, rows: Float[Tensor, "n d_out"], ids: list[int]) -> Float[Tensor, "n ids"]:
        """Cosines between what each row writes, as the norm scales it, and what the logits of some tokens read."""
        columns = self.matrix[:, ids].float()
        written = self._written(rows)
        return (written @ columns / (written.norm(dim=1, keepdim=True) * columns.norm(dim=0)).clamp(min=1e-30)).cpu()


def readout_of(model: Model | None, dictionary: Dictionary) -> Readout | str:
    """How a dictionary's features reach the logits, or why that cannot be told."""
    if model is None:
        return "no network is at hand"
    try:
        return Readout.of(model, dictionary)
    except (ModelError, DictionaryError) as error:
        return str(error)


def words_of(
    readout: Readout, row: Float[Tensor, "d_out"], k: int, spell: Callable[[int], str]
) -> tuple[tuple[Word, ...], ...]:
    """Tokens that one row of a decoder promotes most, and those it suppresses most.

    Args:
        readout: How it reaches the logits.
        row: The row.
        k: How many of each.
        spell: Gives the text of a token.
    """
    if not bool(row.any()) or not bool(torch.isfinite(row).all()):
        # What writes nothing promotes nothing, and of NaN nothing can be told.
        return (), ()
    logits = readout.logits(row[None])[0].cpu()
    most = min(k, len(logits))
    each = (logits.topk(most).indices, logits.topk(most, largest=False).indices)
    return tuple(tuple(Word(i, spell(i), float(logits[i])) for i in ids.tolist()) for ids in each)


@torch.no_grad()
def _check_head(model: Model, head: Unembedding) -> None:
    """Refuse a head that does not read the last block's stream as it is, as those of masked language models, which transform it first."""
    last = f"blocks.{(model.n_layers or 0) - 1}.resid"
    if last not in model.table or "logits" not in model.table:
        raise ModelError(
            f"{model.name} has no final norm that is known, and no last block or logits to see by what its head reads, so no words are read"
        )
    acts = capture(model, given_to(model, [[1, 0, 1]]), [last, "logits"], hermetic=True, progress=False)
    told, logits = head.logits(acts[last].to(head.matrix)).float(), acts["logits"].to(head.matrix.device).float()
    if told.shape != logits.shape or float((told - logits).norm()) > 0.05 * float(logits.norm()):
        raise ModelError(
            f"the head of {model.name} reads something else than the stream behind its last block, so no feature's words are read through it"
        )


@torch.no_grad()
def _final_norm(model: Model, head: Unembedding) -> tuple[Tensor | None, bool]:
    """The final norm's weight, and whether it takes the mean away, seen from what it does: families write the weight in several ways."""
    site, matrix = model.table.get("final_norm"), head.matrix
    if site is None:
        _check_head(model, head)
        return None, False
    module, width = model.module.get_submodule(site.module), matrix.shape[0]
    parameter = next(module.parameters(), matrix)
    if parameter.ndim == 1 and len(parameter) != width:
        raise ModelError(
            f"the final norm of {model.name} is {len(parameter)} wide and the head reads {width}: something stands between them"
        )
    # Offloaded weights are nowhere outside a forward, which takes its input where it computes.
    device = model.device if parameter.is_meta else parameter.device
    # Mean 0 and mean square 1, nowhere 0: a norm with and without a mean leaves it alone but for its weight.
    half = width // 2
    probe = torch.ones(width)
    probe[half:] = -half / max(1, width - half)
    probe = probe / probe.square().mean().sqrt()
    # Large, so that the norm's epsilon is nothing beside it.
    rows = torch.stack([probe, -probe, probe + 1.0]).to(device, parameter.dtype) * 64.0
    found = module.forward(rows[None])[0].float().to(matrix.device)
    centers = torch.allclose(found[0], found[2], rtol=1e-2, atol=1e-3 * float(found[0].abs().amax()))
    return ((found[0] - found[1]) / 2 / probe.to(found)), bool(centers)
