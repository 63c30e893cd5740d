"""Triton's programs against the reference, in Triton's interpreter, which needs a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from innerview.kernels import fused, reference, trial
from innerview.kernels.path import Task
from innerview.kernels.rules import Encoder, Sparse

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="THE GPU KERNELS WERE NOT TESTED: Triton is not installed (it has wheels for Linux alone): pip install triton",
)


@needs_triton
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cases", ["fused_cases.py", "fused_screen_cases.py"])
def test_every_program_gives_in_the_interpreter_what_the_reference_gives(cases: str) -> None:
    run(cases, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.timeout(900)
def test_every_program_compiles(tmp_path: Path) -> None:
    run("compile_cases.py", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_row_that_a_gpu_is_measured_by_runs_in_the_interpreter() -> None:
    run("gpu_rows_cases.py", TRITON_INTERPRET="1")


def run(cases: str, **environment: str) -> None:
    """Run a file of cases in a process of its own; all of it passes."""
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=600"]
    own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    place = str(Path(__file__).with_name(cases))
    done = subprocess.run([*call, place], cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout


def task(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Task:
    return Task(8, 16, 4, dtype, device, "Above")


def test_without_a_gpu_the_fused_path_says_why_it_cannot() -> None:
    said = fused.FUSED.refusal(task())
    assert said in ("Triton is not installed", "Triton's programs run on cuda, not on cpu")
    assert "float32 at most" in str(fused.FUSED.refusal(task(torch.float64, "cuda")))


def test_importing_the_fused_path_imports_no_triton() -> None:
    code = "import sys, innerview.kernels.fused; assert 'triton' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_path_that_loses_a_code_or_does_not_run_is_not_believed() -> None:
    def losing(one: Encoder, x: torch.Tensor) -> Sparse:
        found = reference.encode(one, x)
        return Sparse(found.tokens[1:], found.features[1:], found.values[1:])

    def failing(one: Encoder, x: torch.Tensor) -> Sparse:
        raise RuntimeError("no such instruction")

    believed = trial.why_not(reference.encode, "Above", torch.float32, "cpu")
    assert believed is None
    assert trial.why_not(losing, "Above", torch.float32, "cpu") == (
        "its codes differ from the reference's in 2 of 2 trials on this device"
    )
    assert trial.why_not(failing, "Largest", torch.float32, "cpu") == (
        "its programs do not run here (RuntimeError: no such instruction)"
    )


def test_a_bound_that_is_too_small_is_found_by_trial() -> None:
    def rough(one: Encoder, x: torch.Tensor) -> Sparse:
        near = Encoder(one.weight.to(torch.bfloat16).float(), one.bias, one.rule)
        return reference.encode(near, x.to(torch.bfloat16).float())

    assert trial.why_not(rough, "Above", torch.float32, "cpu") is None
    assert "2 of 2 trials" in str(trial.why_not(rough, "Above", torch.float32, "cpu", is_exact=True))
