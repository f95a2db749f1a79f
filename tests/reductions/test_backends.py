"""Which engine is taken, what is said about it, and what is refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch

from manifoldkit.reductions import _backend, kernel_product, nearest, softmax_average

LINE, ONES = torch.arange(4.0, dtype=torch.float64)[:, None], torch.ones(4, dtype=torch.float64)


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


CALL = (
    "import torch, sys; from manifoldkit.reductions import nearest; x = torch.rand(9, 3, dtype=torch.float64); "
    "nearest(x, x, 4, backend={!r}); print('pykeops' in sys.modules)"
)


def test_auto_on_a_cpu_is_torch_and_leaves_pykeops_alone():
    assert run(CALL.format("auto")).stdout.strip() == "False"


def test_keops_prints_nothing_and_leaves_the_environment_alone():
    result = run(CALL.format("keops") + "; import os; print('KEOPS_VERBOSE' in os.environ)")
    assert result.stdout.split() == ["True", "False"], result.stdout + result.stderr


def test_no_compiler(tmp_path):
    """PATH without g++ and an empty cache."""
    result = run(CALL.format("keops"), PATH=str(tmp_path), CXX="", KEOPS_CACHE_FOLDER=str(tmp_path))
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: KeOps needs pykeops")
    assert "install" in last
    assert "reduction='chunked'" in last


def test_auto_falls_back_to_torch_and_says_so_once(monkeypatch, caplog):
    def fail():
        raise ImportError("no compiler")

    _backend._keops_runs.cache_clear()
    monkeypatch.setattr(_backend, "import_keops", fail)
    with caplog.at_level(logging.WARNING, "manifoldkit"):
        for _ in range(3):
            assert _backend.choose_backend("auto", torch.device("cuda")) == "torch"
    _backend._keops_runs.cache_clear()
    assert [record.message.startswith("plain torch runs") for record in caplog.records] == [True]


def test_auto_is_keops_for_cuda_tensors():
    assert _backend.choose_backend("auto", torch.device("cuda")) == "keops"
    assert _backend.choose_backend("auto", torch.device("cpu")) == "torch"


def test_compilation_is_announced_once(caplog):
    _backend.announce.cache_clear()
    with caplog.at_level(logging.INFO, "manifoldkit"):
        for _ in range(2):
            for size in (1, 3):  # one formula
                kernel_product(LINE, ONES, LINE, ONES, torch.ones(4, size).double(), 1.0, backend="keops")
    (record,) = caplog.records
    assert "compiles the kernel product for coordinates=4, columns=4, float64 on cpu" in record.message


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backend": "jax"}, ValueError, "backend must be one of"),
        ({"scale": 0.0}, ValueError, "scale must be a positive number"),
        ({"scale": float("nan")}, ValueError, "scale must be a positive number"),
        ({"rho": ONES[:2]}, ValueError, r"rho must have shape \(n\) with B = 4, D = 1, n = 4, got \(2,\)"),
        ({"points": LINE.expand(4, 2)}, ValueError, r"points must have shape \(n, D\)"),
        ({"values": ONES}, ValueError, r"values must have shape \(n, q\)"),
        ({"values": torch.ones(4, 0).double()}, ValueError, "there must be points, coordinates and columns"),
        ({"values": LINE.float()}, TypeError, "values of torch.float32"),
        ({"x": LINE.long()}, TypeError, "x of torch.int64"),
        ({"rho": ONES.to("meta")}, TypeError, "rho on meta"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"x": LINE, "rho_x": ONES, "points": LINE, "rho": ONES, "values": LINE, "scale": 1.0, **change}
    with pytest.raises(error, match=message):
        kernel_product(**arguments)
    with pytest.raises(error, match=message):
        softmax_average(**arguments, log_weights=ONES)


@pytest.mark.parametrize("k", [0, 5, True, 2.0])
def test_bad_number_of_neighbours(k):
    with pytest.raises(ValueError, match="k must be an integer from 1 to the number of points, 4"):
        nearest(LINE, LINE, k)
