"""The logit lens: what each layer would say if the network ended there.

Reference: nostalgebraist, "interpreting GPT: the logit lens" (2020); arXiv:2303.08112
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.attachments import attached
from innerview.capturing import capture
from innerview.edits import Edit, checked
from innerview.errors import LensError
from innerview.hooks import BoardRun, board_of
from innerview.models import text
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import EMPTY, Plan
from innerview.shows import ShowsItself


@dataclass(frozen=True, eq=False)
class Lens(ShowsItself):
    """What a lens reads in a text, layers from bottom to top.

    Attributes:
        model: The network.
        text: The prompt, as given.
        site: Sites read, as a pattern.
        tokens: Token ids, BOS shown.
        words: Each token's text.
        layers: A label for each layer read.
        top_ids: The likeliest tokens of each cell, shape [layer, pos, k].
        top_logprobs: Their log-probabilities in nats, shape [layer, pos, k].
        entropy: Of each cell's distribution in nats, shape [layer, pos].
        kl: KL(final ‖ layer) in nats, shape [layer, pos].
        final_rank: Rank in each cell of the word that the last layer read puts first there, 0 for the likeliest, shape [layer, pos].
        residual: Activations read, shape [layer, pos, d_model].
        edits: Labels of the edits of this reading.
        attached: Names of what was attached and in force.
        other: A second reading to compare with.
        other_label: What the second reading is.
        readout: Edits that the final norm and the head took when the lens was made.
    """

    model: Model = field(repr=False)
    text: str
    site: str
    tokens: list[int] = field(repr=False)
    words: list[str]
    layers: list[str]
    top_ids: Int[Tensor, "layer pos k"] = field(repr=False)
    top_logprobs: Float[Tensor, "layer pos k"] = field(repr=False)
    entropy: Float[Tensor, "layer pos"] = field(repr=False)
    kl: Float[Tensor, "layer pos"] = field(repr=False)
    final_rank: Int[Tensor, "layer pos"] = field(repr=False)
    residual: Float[Tensor, "layer pos d_model"] = field(repr=False)
    edits: list[str]
    attached: list[str]
    other: "Lens | None" = field(default=None, repr=False)
    other_label: str = ""
    readout: Plan = field(default=EMPTY, repr=False)

    @property
    def model_name(self) -> str:
        """The network's name."""
        return self.model.name

    def logits(self, layer: int) -> Float[Tensor, "pos vocab"]:
        """Logits that the network's own final norm and head give for one layer read."""
        return _read_out(self.model, self.readout, self.residual[layer])

    def rank(self, token_id: int) -> Int[Tensor, "layer pos"]:
        """Rank of a token in each cell, 0 for the likeliest.

        Raises:
            LensError: The network has no such token.
        """
        if not 0 <= token_id < (self.model.vocab or token_id + 1):
            raise LensError(f"no token {token_id}: {self.model.name} knows ids 0 to {(self.model.vocab or 0) - 1}")
        rows = []
        for layer in range(len(self.layers)):
            logits = self.logits(layer)
            rows.append((logits > logits[:, token_id : token_id + 1]).sum(dim=1))
        return torch.stack(rows)

    def frame(self) -> pd.DataFrame:
        """One row a cell: the likeliest word, its probability, entropy and KL."""
        rows = []
        for layer, label in enumerate(self.layers):
            for pos, word in enumerate(self.words):
                top = text.token_word(self.model.tokenizer, int(self.top_ids[layer, pos, 0]))
                chance = float(self.top_logprobs[layer, pos, 0].exp())
                rows.append(
                    (label, pos, word, top, chance, float(self.entropy[layer, pos]), float(self.kl[layer, pos]))
                )
        return pd.DataFrame(rows, columns=["layer", "pos", "token", "top", "probability", "entropy", "kl"])

    def figure(self) -> go.Figure:
        """Heat map of the top word's probability, layers upward, with the words in the cells."""
        words = [[text.token_word(self.model.tokenizer, int(i)) for i in row[:, 0]] for row in self.top_ids]
        columns = [f"{pos} {word}" for pos, word in enumerate(self.words)]
        heat = go.Heatmap(
            z=self.top_logprobs[:, :, 0].exp().tolist(), x=columns, y=self.layers, text=words, texttemplate="%{text}",
            colorscale="Teal", zmin=0, zmax=1, colorbar={"title": "probability"},
        )  # fmt: skip
        title = f"Logit lens · {self.model_name} · {self.text}"
        return go.Figure(
            heat, {"title": title, "xaxis": {"title": "token"}, "yaxis": {"title": "layer", "type": "category"}}
        )


def logit_lens(
    model: Model, prompt: Any, *, edits: Any = (), compare: Any = None, k: int = 10, sites: str = "blocks.*.resid", hermetic: bool = False
) -> Lens:  # fmt: skip
    """What each layer would say next, read by the network's own final norm and head.

    Args:
        model: A causal language model.
        prompt: One text, chat, or row of ids.
        edits: Edits to compare with the plain reading.
        compare: A second prompt to compare with.
        k: Words kept for each cell.
        sites: What to read; a wildcard over layers.
        hermetic: Leave out what is attached and the open blocks.
    Raises:
        LensError: The network has no final norm and head, an edit is behind the layers, or both `edits` and `compare` are given.
    Reference: arXiv:2303.08112
    """
    listed = checked(edits)
    if listed and compare is not None:
        raise LensError(f"a lens compares with one thing: {len(listed)} edits or a second prompt; give one of the two")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise LensError(f"k is a whole number from 1, not {k!r}")
    other, label = None, ""
    _refuse_behind(model, listed)
    if listed:
        other, label = _read(model, prompt, listed, k, sites, hermetic), "edited"
    elif compare is not None:
        other, label = _read(model, compare, (), k, sites, hermetic), str(compare)
    return replace(_read(model, prompt, (), k, sites, hermetic), other=other, other_label=label)


def _read(model: Model, prompt: Any, edits: tuple, k: int, sites: str, hermetic: bool) -> Lens:
    for site in ("final_norm", "logits"):
        if site not in model.table:
            raise LensError(
                f"{model.name} has no {site!r} to read layers with; open a causal language model of a known family"
            )
    last = f"blocks.{(model.n_layers or 1) - 1}.resid"
    chosen = _readable(model, sites)
    plan = EMPTY if hermetic else board_of(model).frozen_plan()
    acts = capture(model, prompt, [sites, last], edits=edits, hermetic=hermetic)
    assert acts.tokens is not None and acts.mask is not None
    if acts.tokens.shape[0] != 1:
        raise LensError(f"a lens reads one prompt, not {acts.tokens.shape[0]}; call it for each")
    residual = torch.stack([acts[site.name][0] for site in chosen])
    ids = acts.tokens[0].tolist()
    final = torch.log_softmax(_read_out(model, plan, acts[last][0]).float(), dim=-1)
    shown = _read_out(model, plan, residual[-1]).argmax(dim=-1, keepdim=True)
    cells = [_cell(model, plan, row, final, shown, k) for row in residual]
    top_ids, top_logprobs, entropy, kl, ranks = (torch.stack(parts) for parts in zip(*cells, strict=True))
    return Lens(
        model=model,
        text=_said(prompt),
        site=sites,
        tokens=ids,
        words=text.words(model, ids),
        layers=_labels(chosen),
        top_ids=top_ids,
        top_logprobs=top_logprobs,
        entropy=entropy,
        kl=kl,
        final_rank=ranks,
        residual=residual,
        edits=[edit.label for edit in edits],
        attached=[] if hermetic else [a.name for a in attached(model) if a.enabled],
        readout=plan,
    )


def _readable(model: Model, sites: str) -> list[Site]:
    """The sites that a pattern names.

    Raises:
        LensError: One is no residual stream, which alone the final norm and the head can read.
    """
    chosen = model.expand(sites)
    for site in chosen:
        if site.sizes != (model.d_model,):
            raise LensError(
                f"a lens reads activations of width {model.d_model}, and {site.name!r} is {site.shape}; read 'blocks.*.resid'"
            )
    return chosen


def _refuse_behind(model: Model, edits: Sequence[Edit]) -> None:
    """Refuse edits of the read-out itself, which every layer shares.

    Raises:
        LensError: An edit is at the final norm or the head.
    """
    behind = {model.table[name].module for name in ("final_norm", "logits") if name in model.table}
    for edit in edits:
        if any(site.module in behind for site in model.expand(edit.site)):
            raise LensError(
                f"{edit.label} comes behind the layers that a lens compares, so it would change nothing here; "
                "edit 'blocks.*.resid', or attach it, and the read-out of every layer takes it"
            )


def _read_out(model: Model, plan: Plan, rows: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos vocab"]:
    """The network's own final norm and head, on activations of one text, with the edits that they had when the lens was made."""
    norm, head = (model.module.get_submodule(model.table[name].module) for name in ("final_norm", "logits"))
    # Some networks scale what the head returns, or bound it: the site of the logits knows.
    logits = model.table["logits"]
    with torch.no_grad():
        return BoardRun(board_of(model), plan, None).inside(lambda: logits.read(head(norm(rows[None])))[0])


def _cell(model: Model, plan: Plan, rows: Tensor, final: Tensor, shown: Tensor, k: int) -> tuple[Tensor, ...]:
    """Top ids and log-probabilities, entropy and KL of one layer, and the rank of the word that the last one shows."""
    logits = _read_out(model, plan, rows)
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    top = logprobs.topk(min(k, logprobs.shape[-1]), dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    kl = (final.exp() * (final - logprobs)).sum(-1).clamp(min=0)
    rank = (logits > logits.gather(1, shown)).sum(dim=1)
    return top.indices.cpu(), top.values.cpu(), entropy.cpu(), kl.cpu(), rank.cpu()


def _labels(sites: Sequence[Any]) -> list[str]:
    layers = [site.layer for site in sites]
    return (
        [str(layer) for layer in layers]
        if None not in layers and len(set(layers)) == len(layers)
        else [s.name for s in sites]
    )


def _said(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
        return " / ".join(str(message.get("content", "")) for message in prompt)
    return f"{prompt}"
