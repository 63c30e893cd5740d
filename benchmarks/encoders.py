"""The dictionaries that rows 1 to 8 encode with: random ones of a size, with a threshold that keeps so many features active a token."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import innerview as iv
from benchmarks.pairing import Contender, DisagreementError, Timings, measure
from benchmarks.result import Claim, Workload
from innerview.kernels.machine_code import compiled

# Tokens that are compared with float64.
CHECKED = 64
ROUNDS = 20
Target = tuple[str, str, float | None]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A random encoder and tokens to encode.

    Attributes:
        weight: A row of length 1 a feature, shape [n_features, d].
        threshold: One number: what about `l0` features of a token are above.
        x: Tokens, shape [n_tokens, d].
        l0: Active features a token that the threshold was chosen for.
    """

    weight: Tensor = field(repr=False)
    threshold: float
    x: Tensor = field(repr=False)
    l0: int

    @classmethod
    def of(cls, n_tokens: int, n_features: int, d: int, l0: int) -> "Drawn":
        """Normal numbers, the same each time."""
        drawn = torch.Generator().manual_seed(0)
        weight = torch.randn(n_features, d, generator=drawn)
        weight /= weight.norm(dim=1, keepdim=True)
        x = torch.randn(n_tokens, d, generator=drawn)
        pre = x[:CHECKED] @ weight.T
        # Between two pre-activations, so that those who sum in float32 alone can agree.
        threshold = float(pre.flatten().topk(l0 * len(pre) + 1).values[-2:].mean())
        # What is measured is encoding; numba's loops are loaded before.
        compiled()
        return cls(weight, threshold, x, l0)

    @property
    def name(self) -> str:
        """Its sizes in words."""
        m, d = self.weight.shape
        return f"{len(self.x)} tokens, d {d}, {m:,} features, float32, threads: {torch.get_num_threads()}"

    def dictionary(self, architecture: iv.JumpReLU | iv.TopK) -> iv.Dictionary:
        """Ours. What is not encoded with is one number wide, so that it takes no memory."""
        m = len(self.weight)
        extras = {"threshold": torch.full((m,), self.threshold)} if isinstance(architecture, iv.JumpReLU) else {}
        weights = iv.Weights(self.weight, torch.zeros(m), torch.zeros(m, 1), torch.zeros(1), extras=extras)
        return iv.Dictionary(weights, architecture, iv.Manifest(False, iv.Normalisation(), site="x", site_out="y"))


def checked(drawn: Drawn, ours: iv.Dictionary, peers: Sequence[Contender] = ()) -> str:
    """What was checked: our codes against float64 on some tokens, and each peer's dense codes against ours.

    Raises:
        DisagreementError: A code is lost or made up outside of float64's own rounding, or a value is off by more than float32's.
    """
    some = drawn.x[:CHECKED]
    pre = some.double() @ drawn.weight.double().T
    k = getattr(ours.architecture, "k", 0)
    cut = pre.topk(k, dim=1).values[:, -1:].clamp(min=0) if k else torch.full_like(pre[:, :1], drawn.threshold)
    active = pre >= cut if k else pre > cut
    lengths = some.double().norm(dim=1, keepdim=True)
    codes = ours.encode(some)
    got = codes.dense().double()
    wrong = ((got > 0) != active) & ((pre - cut).abs() > 2.0**-40 * lengths)
    if bool(wrong.any()):
        raise DisagreementError(f"{int(wrong.sum())} of {int(active.sum())} codes are lost or made up against float64")
    off = float(((got - pre).abs() / lengths)[got > 0].max())
    allowed = drawn.weight.shape[1] * 2.0**-24
    if off > allowed:
        raise DisagreementError(
            f"a value is {off:.2g} of the lengths away from float64; float32's rounding is {allowed:.2g}"
        )
    whole = ours.encode(drawn.x)
    for peer in peers:
        theirs = peer.call()
        dense = theirs if isinstance(theirs, Tensor) else theirs.dense()
        gap = float((dense[whole.tokens, whole.features] - whole.values).abs().max())
        others = int((dense != 0).sum()) - len(whole)
        # At the threshold float32 products of two libraries differ.
        if gap > 1e-3 * float(whole.values.max()) and gap > 1.01 * float(whole.values.min()):
            raise DisagreementError(f"{peer.name} differs by {gap:.3g}")
        if abs(others) > 1e-4 * len(whole) + 2:
            raise DisagreementError(f"{peer.name} has {others} codes more")
    told = f"; {', '.join(peer.name for peer in peers)} the same" if peers else ""
    return f"codes of {len(some)} tokens are float64's, none lost, values within {off / 2.0**-24:.1f} × 2⁻²⁴ of the lengths{told}"


def workload(
    name: str,
    gate: str,
    contenders: Sequence[Contender],
    rounds: int | None,
    targets: Sequence[Target],
    extra: Sequence[Claim] = (),
) -> Workload:
    """Times of everybody, and ratios `above ÷ below` against their targets."""
    timings: Timings = measure(contenders, rounds=rounds or ROUNDS, warm_up=2)
    claims = [Claim(f"time of {a} ÷ {b}'s", timings.ratio(a, b), "×", target) for a, b, target in targets]
    return Workload(name, gate, timings, [*claims, *extra])
