"""The encoders that the GPU rows run, what is checked of them first, and how they are timed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import innerview as iv
from benchmarks.gpu.rates import wait
from benchmarks.pairing import Contender, DisagreementError, Role, Span, measure
from benchmarks.result import Claim, Workload
from innerview.kernels import Above, Encoder, Largest, Sparse, reference
from innerview.kernels.encode import encode

# Tokens that are compared with the reference, in float64.
CHECKED = 128
ROUNDS = 30
Target = tuple[str, str, float | None]


@dataclass(frozen=True)
class Size:
    """How much a row encodes: tokens, features, width, active features a token."""

    n: int
    m: int
    d: int
    l0: int = 70


@dataclass(frozen=True, eq=False)
class Drawn:
    """A random encoder of rows of length 1, and tokens.

    Attributes:
        weight: Shape [n_features, d].
        x: Shape [n_tokens, d].
        threshold: What about `l0` features of a token are above.
    """

    weight: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    threshold: float

    @classmethod
    def of(cls, size: Size, dtype: torch.dtype, device: str) -> "Drawn":
        """Normal numbers, the same each time."""
        drawn = torch.Generator(device).manual_seed(0)
        weight = torch.empty(size.m, size.d, dtype=dtype, device=device)
        for part in weight.split(1 << 14):
            rows = torch.randn(part.shape, generator=drawn, device=device)
            part.copy_(torch.nn.functional.normalize(rows))
        x = torch.randn(size.n, size.d, generator=drawn, device=device).to(dtype)
        some = x[:CHECKED].float() @ weight[: 1 << 16].float().T
        share = min(1.0, size.l0 / size.m)
        threshold = float(some.flatten().topk(max(1, round(share * some.numel()))).values[-1])
        return cls(weight, x, threshold)

    @property
    def device(self) -> str:
        """Kind of device."""
        return self.x.device.type

    @property
    def name(self) -> str:
        """Its sizes in words."""
        m, d = self.weight.shape
        return f"{len(self.x):,} tokens, d {d}, {m:,} features, {str(self.x.dtype).removeprefix('torch.')}"

    def encoder(self, k: int = 0) -> Encoder:
        """JumpReLU; TopK where there is a k."""
        m, made = len(self.weight), self.weight
        rule = Largest(k) if k else Above(made.new_full((m,), self.threshold))
        return Encoder(made, made.new_zeros(m), rule)

    def dictionary(self, k: int = 0) -> iv.Dictionary:
        """Ours. What is not encoded with is one number wide, so that it takes no memory."""
        m, made = len(self.weight), self.weight
        extras = {} if k else {"threshold": made.new_full((m,), self.threshold)}
        weights = iv.Weights(made, made.new_zeros(m), made.new_zeros(m, 1), made.new_zeros(1), extras=extras)
        plain = iv.Manifest(False, iv.Normalisation(), site="x", site_out="y")
        return iv.Dictionary(weights, iv.TopK(k) if k else iv.JumpReLU(), plain)


@contextmanager
def tensors_like(one: Tensor) -> Iterator[None]:
    """Inside, peers' new tensors are of a tensor's format and on its device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(one.dtype)
    try:
        with torch.device(one.device):
            yield
    finally:
        torch.set_default_dtype(before)


def contender(name: str, role: Role, device: str, call: Callable[[], Any]) -> Contender:
    """A contender whose work is done when its call returns."""

    def waited() -> Any:
        made = call()
        wait(device)
        return made

    return Contender(name, role, waited)


def checked(drawn: Drawn, path: str, k: int = 0) -> str:
    """What was checked: codes of some tokens against float64's, in which only pre-activations at the cut may be on another side.

    Raises:
        DisagreementError: A code is lost or made up, or a value is off.
    """
    one, some = drawn.encoder(k), drawn.x[:CHECKED]
    got = encode(one, some, path)
    # float64 sums exactly enough; bfloat16 and float32 products may be cut at each addition.
    is_exact = path == "fused_screen"
    d = one.d
    band = 2.0**-40 if is_exact else (d + 2) * 2.0**-22
    rounding = 2.0**-24 if one.weight.dtype == torch.float32 else 2.0**-8
    lost, off, active = 0, 0.0, 0
    for token, x in enumerate(some):
        pre = one.weight.double() @ x.double()
        cut = max(0.0, float(pre.topk(k).values[-1])) if k else drawn.threshold
        is_active = pre >= cut if k else pre > cut
        mine = got.tokens == token
        found = torch.zeros_like(is_active).index_fill_(0, got.features[mine], True)
        length = float(x.double().norm())
        lost += int(((found != is_active) & ((pre - cut).abs() > band * length)).sum())
        active += int(is_active.sum())
        gaps = (got.values[mine].double() - pre[got.features[mine]]).abs() - rounding * pre[got.features[mine]].abs()
        off = max(off, float(gaps.max() / length) if len(gaps) else 0.0)
    if lost or off > (d + 2) * 2.0**-22:
        raise DisagreementError(
            f"{lost} of {active} codes are lost or made up, values are off by {off:.2g} of the lengths"
        )
    return f"codes of {len(some)} tokens are float64's but within {band:.2g} of the lengths of their cut, values within rounding"


def same(drawn: Drawn, path: str, k: int, peers: Sequence[Contender]) -> str:
    """What was checked: each peer's dense or sparse codes are ours, but for a few at the cut.

    Raises:
        DisagreementError: They are not.
    """
    ours = encode(drawn.encoder(k), drawn.x, path)
    for peer in peers:
        theirs = count(peer.call())
        if abs(theirs - len(ours)) > 2 + 5e-3 * len(ours):
            raise DisagreementError(f"{peer.name} gives {theirs} codes, innerview {len(ours)}")
    return f"; as many codes of {', '.join(one.name for one in peers)}" if peers else ""


def count(codes: Any) -> int:
    """Codes of what a contender gives: dense, sparse, or values and features of the largest."""
    if isinstance(codes, Tensor):
        return int(codes.to_dense().count_nonzero()) if codes.layout != torch.strided else int(codes.count_nonzero())
    if isinstance(codes, Sparse):
        return len(codes)
    values = next(one for one in codes if isinstance(one, Tensor) and one.is_floating_point())
    return int((values > 0).sum())


def workload(
    name: str, gate: str, contenders: Sequence[Contender], rounds: int | None, targets: Sequence[Target]
) -> Workload:
    """Times of everybody, and ratios `above ÷ below` against their targets."""
    timings = measure(contenders, rounds=rounds or ROUNDS, warm_up=3)
    claims = [Claim(f"time of {a} ÷ {b}'s", timings.ratio(a, b), "×", target) for a, b, target in targets]
    return Workload(name, gate, timings, claims)


def once(number: float) -> Span:
    """A number that is counted, not timed."""
    return Span(number, number, number, number, number)


def dense_jump(drawn: Drawn) -> Callable[[Tensor], Tensor]:
    """JumpReLU in plain PyTorch, as the peers compute it."""
    weight, threshold = drawn.weight, drawn.threshold

    def encode(x: Tensor) -> Tensor:
        pre = x @ weight.T
        return pre.relu() * (pre > threshold)

    return encode


def sparse(dense: Tensor) -> Sparse:
    """What of dense codes is not 0."""
    return reference.gathered(dense)
