"""The IDX format of MNIST: a header of big-endian integers, then bytes."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_idx(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], str]:
    """Read an array of bytes of a known shape, gzip'ed or not.

    Parameters
    ----------
    path : Path
        The file; a name that ends in ``.gz`` is decompressed.
    shape : tuple of int
        The shape that the header must announce.

    Returns
    -------
    array : uint8 array
        The contents.
    md5 : str
        MD5 sum of the whole uncompressed file, the sum that is published for MNIST.

    Raises
    ------
    ValueError
        If the file is damaged or is something else.
    """
    header_size = 4 + 4 * len(shape)
    size = math.prod(shape)
    try:
        # One byte more than expected shows that a file is too long without reading what may be huge.
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(header_size + size + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}): {_REPLACE}") from error
    if len(raw) < header_size:
        raise ValueError(f"{path} is truncated: {len(raw)} bytes do not hold the header of an IDX file. {_REPLACE}")
    magic = bytes((0, 0, 8, len(shape)))
    if raw[:4] != magic:
        raise ValueError(
            f"{path} starts with the magic number 0x{raw[:4].hex()}, expected 0x{magic.hex()} "
            f"(IDX, bytes, {len(shape)} dimensions): {_REPLACE}"
        )
    found = struct.unpack(f">{len(shape)}I", raw[4:header_size])
    if found != shape:
        raise ValueError(f"{path} announces an array of shape {found}, expected {shape}: {_REPLACE}")
    if len(raw) != header_size + size:
        state = "is truncated" if len(raw) < header_size + size else "has bytes after its end"
        raise ValueError(f"{path} {state}: {len(raw) - header_size} values read, {size} expected. {_REPLACE}")
    md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    return np.frombuffer(raw, dtype=np.uint8, offset=header_size).reshape(shape), md5


_REPLACE = "replace the file by a fresh copy"
