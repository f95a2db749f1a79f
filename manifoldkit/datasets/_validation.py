"""Checks of the makers' arguments: each says what came, what was expected and what to do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import as_array


def check_count(value: Any, name: str = "n_samples", minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}: pass int({name})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}: ask for more")
    return int(value)


def check_real(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `open_low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    number = float(value)
    inside = math.isfinite(number) and low <= number <= high and not (open_low and number == low)
    if not inside:
        interval = f"{'(' if open_low or low == -math.inf else '['}{low:g}, {high:g}{')' if high == math.inf else ']'}"
        raise ValueError(f"{name} must be a finite number in {interval}, got {number}: choose a value inside")
    return number


def check_numbers(values: Any, name: str) -> NDArray[np.float64]:
    """`values` as a float64 array; truth values, masked arrays and what has no order are refused."""
    kind = type(values).__name__
    if values is None or isinstance(values, (set, frozenset, Iterator)):
        raise TypeError(f"{name} must hold real numbers, got {kind}: pass a list or an array")
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must hold real numbers, got a masked array: pass {name}.compressed() or .filled(...)")
    entries = values if isinstance(values, (list, tuple)) else [values]
    if any(isinstance(v, (bool, np.bool_)) or str(getattr(v, "dtype", "")).endswith("bool") for v in entries):
        raise TypeError(f"{name} must hold real numbers, got truth values: pass numbers")
    try:
        return as_array(values, name)
    except OverflowError as error:
        raise ValueError(f"{name} holds a number beyond those of double precision ({error})") from error


def check_flag(value: Any, name: str) -> bool:
    """`value` as a bool; numbers are refused because a count passed by mistake would be taken for True."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def check_density(value: Any) -> float:
    """The amplitude a of a density 1 + a cos or 1 + a z; "uniform" is a = 0."""
    if isinstance(value, str):
        if value != "uniform":
            raise ValueError(f'density must be "uniform" or a number in [-1, 1], got {value!r}')
        return 0.0
    return check_real(value, "density", -1.0, 1.0)


def check_rng(random_state: Any) -> np.random.Generator:
    """A generator that depends on `random_state` alone and never on numpy's global seed."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        # Draws from the old stream, so that two calls with one RandomState differ as they do in scikit-learn.
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4).tolist())
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must not be negative, got {random_state}: use 0, 1, 2, ...")
        return np.random.default_rng(int(random_state))
    raise TypeError(
        "random_state must be None, an int, a numpy Generator or a RandomState, "
        f"got {random_state!r} of type {type(random_state).__name__}"
    )
