"""Checks of single parameters, with messages that say what came and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["choice", "positive"]


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """`value` if it is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    return value


def positive(value: Any, name: str, otherwise: str = "") -> int:
    """`value` as int if it is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer{otherwise}, got {value!r}")
    return int(value)
