"""Which engine runs a reduction; pykeops, imported when it is first asked for."""

from __future__ import annotations

import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["BACKENDS", "announce", "choose_backend", "import_keops"]

logger = logging.getLogger("manifoldkit")

BACKENDS = ("auto", "torch", "keops")
#: Variables that pykeops reads when it is imported.
VERBOSITY = ("KEOPS_VERBOSE", "PYKEOPS_VERBOSE")
#: What to do about a pykeops that does not run.
HINT = (
    "KeOps needs pykeops (pip install pykeops) and a C++ compiler (g++ on the path, or the CXX variable): install "
    "them, or take plain torch, which is backend='torch' here and reduction='chunked' in DiffusionManifold"
)


def choose_backend(backend: str, device: torch.device) -> str:
    """`"torch"` or `"keops"`: "auto" is KeOps for CUDA tensors where it runs, and torch for all others."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend != "auto":
        return backend
    return "keops" if device.type == "cuda" and _keops_runs() else "torch"


@functools.cache
def _keops_runs() -> bool:
    """Whether pykeops can be imported and finds a compiler; if not, says so once."""
    try:
        import_keops()
        from pykeops.config import pykeops_base

        works = pykeops_base.get_cxx_compiler() is not None
    except ImportError:
        works = False
    if not works:
        logger.warning("plain torch runs the reductions: %s", HINT)
    return works


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time import pykeops, which compiles a module of its own then and reads what it writes."""
    try:
        import fcntl
    except ImportError:  # no POSIX: nothing to lock with
        yield
        return
    with open(os.path.join(tempfile.gettempdir(), f"manifoldkit-keops-{os.getuid()}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def import_keops() -> Any:
    """The class LazyTensor of pykeops.

    pykeops prints when it is imported and when it compiles. Unless somebody imported it before us or set one of its
    two variables, it is made silent, since a library logs and does not print. (Its own PYKEOPS_VERBOSE silences only
    half of it in 2.3, where keopscore reads the other variable before pykeops sets it.)

    Raises
    ------
    ImportError
        If pykeops is missing or broken.
    """
    silenced = () if "pykeops" in sys.modules or any(name in os.environ for name in VERBOSITY) else VERBOSITY
    try:
        os.environ.update(dict.fromkeys(silenced, "0"))
        with _alone():
            from pykeops.torch import LazyTensor
    except Exception as error:  # a broken installation fails in many ways
        raise ImportError(HINT) from error
    finally:
        for name in silenced:
            os.environ.pop(name, None)
    return LazyTensor


@functools.cache
def announce(formula: str, device: str, dtype: torch.dtype, **sizes: int) -> None:
    """Log, once for each formula, that KeOps is about to compile it."""
    told = ", ".join(f"{name}={size}" for name, size in sizes.items())
    logger.info(
        "KeOps compiles %s for %s, %s on %s, unless its cache has it: some 10 s, and as long for each derivative",
        formula,
        told,
        str(dtype).removeprefix("torch."),
        device,
    )
