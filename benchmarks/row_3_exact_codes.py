"""Row 3: exact float32 codes at low-precision speed, JumpReLU and TopK, in three sizes."""

import torch

import innerview as iv
from benchmarks.encoders import Drawn, checked, workload
from benchmarks.pairing import Contender
from benchmarks.result import Row, Workload
from benchmarks.row import run
from benchmarks.ways import with_peers
from innerview.bundled import bundled_dictionaries, bundled_dictionary
from innerview.kernels import bounds, screened, trust, work
from innerview.kernels.bounds import Kind

SIZES = ((512, 16_384, 2304, 70), (512, 24_576, 768, 116), (64, 131_072, 4096, 64))
TARGETS = {"the float32 product": 1 / 4, "SAELens": 1 / 6, "the rough product": 1 / 0.75}
K = 64


def row(rounds: int | None) -> Row:
    """Ours against the float32 product alone, SAELens' float32 encode, and the rough product alone."""
    kind = fastest()
    workloads = []
    for size in SIZES:
        drawn = Drawn.of(*size)
        workloads += [_exact(drawn, architecture, kind, rounds) for architecture in (iv.JumpReLU(), iv.TopK(K))]
    return Row(
        "3", "Exact float32 codes at low-precision speed", workloads, [*NOTES, *trained(kind)], with_peers.load()[1]
    )


NOTES = [
    "The rough product is the one whose screen is chosen on this machine. A processor without bfloat16 units emulates bfloat16's products, and takes int8's.",
    "Exact: the active set is float64's but for pre-activations within 2⁻⁴⁰ of the lengths of their threshold, and values are within float32's rounding. docs/explanation/exact-codes.md derives it.",
    "Targets are ours ÷ theirs: 0.25× is four times as fast.",
]


def fastest() -> Kind:
    """The kind of screen that is chosen here, by the rates that were measured."""
    rates = {
        kind: work.products_a_second("cpu", getattr(torch, kind))
        for kind in bounds.WIDEST
        if trust.why_not(kind) is None
    }
    return max(rates, key=lambda kind: rates[kind])


def _exact(drawn: Drawn, architecture: iv.JumpReLU | iv.TopK, kind: Kind, rounds: int | None) -> Workload:
    ours = drawn.dictionary(architecture)
    rows, columns = bounds.rounded(drawn.x, kind).numbers, bounds.rounded(drawn.weight, kind).numbers
    contenders = [
        Contender("the rough product", "limit", lambda: _tiles(rows, columns, kind)),
        Contender("innerview", "ours", lambda: ours.encode(drawn.x)),
        Contender("the float32 product", "peer", lambda: drawn.x @ drawn.weight.T),
    ]
    dense: list[Contender] = []
    if "sae_lens" in with_peers.load()[0]:
        k = getattr(architecture, "k", 0)
        make = (
            with_peers.sae_lens_top_k(drawn.weight, k)
            if k
            else with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
        )
        dense = [Contender("SAELens", "peer", lambda: make(drawn.x))]
    gate = f"{checked(drawn, ours, dense)}; {_let_through(ours, drawn.x, kind)}"
    names = {one.name for one in (*contenders, *dense)}
    targets = [("innerview", name, target) for name, target in TARGETS.items() if name in names]
    return workload(
        f"{architecture.name}, {drawn.name}, screen of {kind}", gate, [*contenders, *dense], rounds, targets
    )


def _tiles(rows: torch.Tensor, columns: torch.Tensor, kind: Kind) -> None:
    """The rough product, a tile that stays near the processor at a time, by as many threads as torch takes."""
    width = max(2048, (1 << 20) // len(rows))
    for first in range(0, len(columns), width):
        trust.product(rows, columns[first : first + width], kind)


def _let_through(ours: iv.Dictionary, x: torch.Tensor, kind: Kind) -> str:
    counted = screened.Counted()
    assert ours.encoder is not None
    screened.encode(ours.encoder, x, kind, counted)
    return f"{counted.candidates / max(1, counted.active):.2f} candidates for each active feature, {counted.active / len(x):.0f} active a token"


def trained(kind: Kind) -> list[str]:
    """Candidates beside active features on the bundled dictionaries, at the activations that they learned from."""
    lines: list[str] = []
    if not bundled_dictionaries("pocket"):
        return lines
    model = iv.open_model("pocket")
    texts = [one.text for name in ("country", "animal") for one in iv.pocket.sentences(name, pairs=100)]
    for name in bundled_dictionaries("pocket"):
        own = iv.load_dictionary(bundled_dictionary("pocket", name))
        if not isinstance(own, iv.Dictionary) or own.encoder is None:
            continue
        acts = iv.capture(model, texts, own.site)
        x = acts[own.site].flatten(0, -2) if acts.mask is None else acts[own.site][acts.mask]
        told = ", ".join(
            f"{one} {_let_through(own, own.prepared(x), one)}" for one in dict.fromkeys((kind, "bfloat16"))
        )
        lines.append(f"On a trained dictionary ({name}, {own.n_features} features of {own.d_in}): {told}.")
    return lines


if __name__ == "__main__":
    run(row)
