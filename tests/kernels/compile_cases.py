"""Triton's compiler takes every program, for the GPUs they are written for, where there is none too. Run by test_fused.py.

The interpreter takes what the compiler refuses: types of names, globals, loops. This file is no test file by its name, since Triton is
imported here without the interpreter.
"""

from typing import Any

import pytest

from innerview.kernels import rescoring, slots, sums, tiles
from innerview.kernels.program import Program

REALS, WHOLES = "*fp32", "*i64"
TILES = {
    "bias": REALS,
    "first": REALS,
    "second": REALS,
    "third": REALS,
    "by_row": REALS,
    "words": WHOLES,
    "counts": "*i32",
}
SIZES = {"n_rows": "i32", "n_features": "i32", "d": "i32", "capacity": "i32"}
SHAPE = {
    "ROWS": 64,
    "FEATURES": 64,
    "DEPTH": 64,
    "GROUP": 8,
    "LANE": 16,
    "PRECISION": "ieee",
    "IS_WIDENED": False,
    "LEAST": 0.0,
}
RULES = [("above", 0), ("behind", 0), ("at_least", 0), ("upper", 0), ("from_cut", 0), ("largest", 4), ("best_upper", 4)]


def assembly(program: Program, types: dict[str, str], fixed: dict[str, Any], capability: int = 90) -> str:
    """PTX of a program, its pointers and `d` taken to be multiples of 16, as torch's tensors are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = program._compiled
    names = function.arg_names
    assert set(names) == {*types, *fixed}
    signature = {name: types.get(name, "constexpr") for name in names}
    even = [i for i, name in enumerate(names) if name == "d" or types.get(name, "").startswith("*")]
    source = ASTSource(
        function,
        signature,
        constexprs={(i,): fixed[name] for i, name in enumerate(names) if name in fixed},
        attrs={(i,): [["tt.divisibility", 16]] for i in even},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, "num_stages": 3})
    assert len(made.asm["cubin"]) > 0
    return made.asm["ptx"]


@pytest.mark.parametrize(("rule", "best"), RULES)
def test_tiles_of_bfloat16_compile_to_the_tensor_cores_of_hopper(rule: str, best: int) -> None:
    fixed = {**SHAPE, "RULE": rule, "BEST": best, "IS_EVEN": True}
    assert "wgmma" in assembly(tiles.tiles, {"x": "*bf16", "weight": "*bf16", **TILES, **SIZES}, fixed)


def test_tiles_of_float32_compile_without_tf32() -> None:
    fixed = {**SHAPE, "DEPTH": 32, "RULE": "above", "BEST": 0, "IS_EVEN": False}
    made = assembly(tiles.tiles, {"x": REALS, "weight": REALS, **TILES, **SIZES}, fixed, 80)
    assert "mma.sync" not in made and "fma.rn.f32" in made


def test_reading_compiles() -> None:
    types = {
        "words": WHOLES,
        "counts": "*i32",
        "rows": WHOLES,
        "starts": WHOLES,
        "tokens": WHOLES,
        "features": WHOLES,
        "values": REALS,
    }
    for capacity, is_ordered in ((256, False), (4096, True)):
        assembly(slots.reading, types, {"CAPACITY": capacity, "CHUNK": 32, "IS_ORDERED": is_ordered})


def test_sums_compile() -> None:
    types = {"starts": WHOLES, "features": WHOLES, "values": "*bf16", "decoder": "*bf16", "made": REALS, "d": "i32"}
    assembly(sums.sums, types, {"WIDTH": 1024, "AT_ONCE": 8})


def test_rounding_compiles() -> None:
    types = {
        "x": REALS,
        "is_massive": "*u8",
        "numbers": "*bf16",
        "by_row": REALS,
        "n_rows": "i32",
        "d": "i32",
        "width": "i32",
    }
    types |= {"summed": "fp32", "shortest": "fp32", "longest": "fp32"}
    assembly(rescoring.rounding, types, {"ABOVE_0": 2.0**-100, "UP": 1 + 2.0**-20, "DEPTH": 1024})


@pytest.mark.parametrize("rule", ["relu", "above", "behind"])
def test_rescoring_compiles_to_sums_of_float64(rule: str) -> None:
    types = dict.fromkeys(("x", "weight", "bias", "first", "second", "third"), REALS)
    types |= {"words": WHOLES, "counts": "*i32", "found": "*i32", "d": "i32", "capacity": "i32"}
    assert ".f64" in assembly(rescoring.rescoring, types, {"RULE": rule, "CANDIDATES": 16, "DEPTH": 128})
