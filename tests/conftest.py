"""What all tests share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def one_compiler_of_keops_at_a_time(request):
    """KeOps compiles into one cache, and a worker may load what another has only half written."""
    if "keops" not in request.node.nodeid.lower() and "backends" not in request.node.nodeid:
        yield
        return
    fcntl = pytest.importorskip("fcntl")
    with (Path(tempfile.gettempdir()) / "manifoldkit-keops-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
