"""Run the Triton suite where it can run: on a GPU, or in the interpreter and the compiler.

TRITON_INTERPRET works only if it is set before Triton is imported, and then for everything in the
process: each run has a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
SUITES = sorted(map(str, (HERE / "triton").glob("suite_*.py")))
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "triton_poison"]
PYTEST += ["-p", "no:cacheprovider", "--no-xvfb"]
INTERPRETER = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
ONE_OF_EACH = "suite_lattice or operators and 21 or mean_field_and_gradients and diagonal"
"""The build, the filter, and all updates with their gradients, once each."""

pytest.importorskip("triton", reason="Triton is not installed: pip install 'napari-deepcrf[gpu]'")


def run(command: list[str], **variables: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(HERE / "triton")
    result = subprocess.run(
        command, env=environment | variables, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{result.stdout[-8000:]}\n{result.stderr[-2000:]}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_benchmark_without_a_gpu_says_so():
    script = HERE.parents[1] / "benchmarks" / "gpu.py"
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("No CUDA GPU here: nothing was measured")


def test_one_kernel_of_each_kind_in_the_interpreter():
    run([*PYTEST, *SUITES, "-k", ONE_OF_EACH], **INTERPRETER)


@pytest.mark.slow
def test_kernels_in_the_interpreter():
    run([*PYTEST, *SUITES, str(HERE / "test_contract.py")], **INTERPRETER)


@pytest.mark.slow
def test_kernels_compile_for_ampere_and_hopper(tmp_path):
    def compile_all(capability: str) -> None:
        script = str(HERE / "triton" / "compile_kernels.py")
        run([sys.executable, script, capability], TRITON_CACHE_DIR=str(tmp_path / capability))

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(compile_all, capability) for capability in ("80", "90")]:
            done.result()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_on_the_gpu():
    contract = str(HERE / "test_contract.py")
    run(
        [*PYTEST, *SUITES, contract], LATTICE_TESTS_DEVICE="cuda", CUBLAS_WORKSPACE_CONFIG=":4096:8"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_under_compute_sanitizer():
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        pytest.skip("compute-sanitizer is not installed")
    selected = ["-k", "consistent or operators or mean_field or batch or split"]
    run(
        [tool, "--error-exitcode", "9", *PYTEST, *SUITES, *selected],
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )
