"""The GPU rows of the benchmark, at sizes of nothing: that they run, check and agree. Run in Triton's interpreter by test_fused.py."""

import json

import pytest

from benchmarks.gpu import (
    growth,
    rates,
    row_1_jump_relu,
    row_2_jump_relu_narrow,
    row_3_exact_codes,
    row_4_top_k,
    row_5_few_tokens,
    row_6_memory,
    row_7_chosen,
    row_8_decoding,
)
from benchmarks.gpu.drawn import Size
from benchmarks.gpu.run import ROWS

SMALL = (Size(2, 40, 16, 6),)
FOUND = (
    row_1_jump_relu, row_2_jump_relu_narrow, row_3_exact_codes, row_4_top_k, row_5_few_tokens, row_6_memory, row_7_chosen, row_8_decoding
)  # fmt: skip


def test_every_row_is_run_by_the_command() -> None:
    assert [module.__name__.split(".")[-1] for module in FOUND] == list(ROWS.values())


@pytest.mark.parametrize("number", list(ROWS))
def test_a_row_runs_and_its_gate_holds(number: str) -> None:
    module = FOUND[int(number) - 1]
    done = module.row(20, "cpu", SMALL).to_dict()
    assert done["number"] == number and done["workloads"]
    for workload in done["workloads"]:
        assert workload["gate"] and {one["role"] for one in workload["times"]} >= {"ours", "peer"}
        assert any(claim["target"] is not None for claim in workload["claims"])
    json.dumps(done)


def test_rates_and_growth_are_counted_at_each_size() -> None:
    assert all(rate > 0 for rate in rates.rates("cpu", 32).values())
    made = growth.growth("cpu", (2, 4), (20, 40), SMALL[0])
    assert [(one["row"], one["axis"]) for one in made] == [
        ("1", "tokens"),
        ("1", "features"),
        ("4", "tokens"),
        ("4", "features"),
    ]
