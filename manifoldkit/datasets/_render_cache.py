"""Keeps what was drawn: files that know what they hold and whether they are whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ._fetch import cache_folder

__all__ = ["cached", "fingerprint"]

log = logging.getLogger("manifoldkit")

Bytes = NDArray[np.uint8]


def fingerprint(*parts: Any) -> str:
    """SHA-256 of arrays (with their shape and type) and of what JSON can say."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def cached(key: str, shape: tuple[int, ...], make: Callable[[], Bytes], folder: Path | None = None) -> Bytes:
    """The views that belong to `key`, from the cache if they are there undamaged, else made and kept.

    Parameters
    ----------
    key : str
        Fingerprint of everything that determines the views.
    shape : tuple of int
    make : callable
        Draws them.
    folder : Path, optional
        Default: "turntable" in the user's cache folder, which may be deleted at any time. One that cannot be written to
        costs a line in the log.
    """
    path = (cache_folder() / "turntable" if folder is None else folder) / f"{key}.safetensors"
    views = _read(path, key, shape)
    if views is not None:
        return views
    views = make()
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"views": views}, partial, metadata={"key": key, "sha256": fingerprint(views)})
        os.replace(partial, path)  # so that no other process ever sees half a file
    except (OSError, SafetensorError) as error:
        log.warning("views could not be kept in %s: %s", path, error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return views


def _read(path: Path, key: str, shape: tuple[int, ...]) -> Bytes | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            views: Bytes = file.get_tensor("views")
    except Exception as error:  # what a damaged header can raise is without bounds
        log.warning("%s is damaged (%s): the views are drawn again", path, error)
        return None
    if (
        metadata.get("key") != key
        or views.dtype != np.uint8
        or views.shape != shape
        or metadata.get("sha256") != fingerprint(views)
    ):
        log.warning("%s does not hold what it should: the views are drawn again", path)
        return None
    return views
