"""Activation patching: what of one prompt's answer comes back when its activations are put into another's forward.

Reference: arXiv:2202.05262 (causal tracing); arXiv:2309.16042 (best practices)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from innerview.attachments import attached
from innerview.causal.pairs import Pairs, positions_of
from innerview.causal.study import Cell, Study, Way, share_of_way, sites_of
from innerview.metrics import Measure
from innerview.models.model import Model


@dataclass(frozen=True, eq=False)
class Patch:
    """What a patch did, for each pair.

    Attributes:
        model_name: The network's name.
        sites: Sites that were patched, all at once.
        positions: Tokens that were patched in each pair; None for all.
        metric: What was measured, in words.
        direction: `"denoise"`: clean activations in the corrupt forward; `"noise"`: the other way round.
        prompts: Clean and corrupt text of each pair.
        clean: The metric of the clean prompts, shape [pair].
        corrupt: The metric of the corrupt prompts, shape [pair].
        patched: The metric of the patched forwards, shape [pair].
        attached: Names of what was attached and in force throughout.
    """

    model_name: str
    sites: list[str]
    positions: list[tuple[int, ...]] | None
    metric: str
    direction: Way
    prompts: list[tuple[str, str]] = field(repr=False)
    clean: Float[Tensor, "pair"]
    corrupt: Float[Tensor, "pair"]
    patched: Float[Tensor, "pair"]
    attached: list[str] = field(default_factory=list)

    @property
    def effect(self) -> float:
        """Share of the way from the patched prompts' own metric to the other side's: 0 nothing, 1 all. Means over the pairs, divided."""
        return float(share_of_way(self.patched.mean(), self.clean.mean(), self.corrupt.mean(), self.direction))

    @property
    def effects(self) -> Float[Tensor, "pair"]:
        """The same for each pair alone."""
        return share_of_way(self.patched, self.clean, self.corrupt, self.direction)

    def frame(self) -> pd.DataFrame:
        """One row a pair: its texts, the three raw numbers and the effect."""
        return pd.DataFrame(
            {
                "pair": range(len(self.prompts)),
                "clean_text": [clean for clean, _ in self.prompts],
                "corrupt_text": [corrupt for _, corrupt in self.prompts],
                "clean": self.clean.tolist(),
                "corrupt": self.corrupt.tolist(),
                "patched": self.patched.tolist(),
                "effect": self.effects.tolist(),
            }
        )

    def __repr__(self) -> str:
        sites = ", ".join(self.sites[:3]) + (f" and {len(self.sites) - 3} more" if len(self.sites) > 3 else "")
        return (
            f"Patch({self.direction} at {sites or 'no site'} of {self.model_name}: effect {self.effect:.3g} on {self.metric}; "
            f"clean {self.clean.mean():.4g}, corrupt {self.corrupt.mean():.4g}, patched {self.patched.mean():.4g}, "
            f"mean of {len(self.prompts)} pair{'s' * (len(self.prompts) > 1)})"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        table = self.frame().to_html(index=False, border=0, float_format=lambda x: f"{x:.4g}")
        return {"text/html": table, "text/plain": repr(self)}


def patch(
    model: Model, clean: Any, corrupt: Any, sites: str | Sequence[str], positions: Any = None, *, metric: Any, direction: Way = "denoise",
    batch_size: int = 32, progress: bool = True,
) -> Patch:  # fmt: skip
    """What a metric becomes when activations of one prompt are put into the forward of another, at all the sites at once.

    Args:
        model: The network; what is attached, and open blocks, are in force in every forward.
        clean: Prompts: a text, a chat, ids, or a list of them; for any other network what it takes, with rows along the first axis.
        corrupt: A prompt for each clean one, with as many tokens.
        sites: What to put in: names, wildcards, module paths.
        positions: Tokens to patch: one or several for all pairs, or for each pair its own list; negative ones count from the end;
            all when None.
        metric: As in `sweep`: `logit_difference`, `token_probability`, a Direction, or a function of the last logits [batch, 1, vocab].
        direction: `"denoise"` puts clean activations into the corrupt forward, `"noise"` corrupt ones into the clean forward.
        batch_size: Rows of a forward at most.
        progress: Whether to show a bar, where it takes longer than a second.
    Raises:
        PatchError: The prompts do not line up, or the metric does not tell clean from corrupt.
        EditError: A change at a site would not reach all that reads it.
    Reference: arXiv:2202.05262, arXiv:2309.16042
    """
    pairs = Pairs.of(model, clean, corrupt)
    chosen = sites_of(model, sites)
    places = positions_of(pairs, positions)
    study = Study(pairs, Measure.of(model, metric, len(pairs)), direction, batch_size)
    study.measure_sides()
    ledger = study.ledger(1)
    study.put_in([Cell(tuple(site.name for site in chosen), places)], ledger, progress)
    return Patch(
        model_name=model.name,
        sites=[site.name for site in chosen],
        positions=places,
        metric=study.measure.label,
        direction=direction,
        prompts=[(pairs.clean.said(pair), pairs.corrupt.said(pair)) for pair in range(len(pairs))],
        clean=study.clean,
        corrupt=study.corrupt,
        patched=ledger.values[0],
        attached=[one.name for one in attached(model) if one.enabled],
    )
