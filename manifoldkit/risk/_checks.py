"""Classes, labels and budgets of risk estimates, read and checked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..attacks._model import Network, as_found
from ..attacks.losses import cross_entropy
from ..exceptions import ReachWarning

__all__ = ["check_eps", "check_reach", "differ", "read_classes", "read_targets"]

Ints = NDArray[np.int64]


def check_eps(eps: Any) -> float:
    """A positive finite number."""
    try:
        value = float(eps)
    except (TypeError, ValueError) as error:
        raise TypeError(f"eps must be a number, got {eps!r}") from error
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"eps must be positive and finite, got {eps!r}")
    return value


def check_reach(manifold: Any, eps: float, allow: bool) -> None:
    """Refuse an eps that is not below the reach of the manifold, where that is known; or warn."""
    reach = getattr(manifold, "reach", None)
    if reach is None or eps < reach:
        return
    text = (
        f"eps={eps:g} is not below the reach {reach:g} of the manifold, so that projections are not unique and the "
        "bound need not hold"
    )
    if not allow:
        raise ValueError(f"{text}: take a smaller eps, or pass allow_large_eps=True")
    warnings.warn(text, ReachWarning, stacklevel=3)


def read_classes(score: Callable[[Any], Any], points: NDArray[np.float64]) -> tuple[Ints, int | None]:
    """Classes (B,) of points, and how many there are; None if they are the signs (-1, 0 or 1) of a score."""
    if isinstance(score, torch.nn.Module):
        device, dtype = Network(score, cross_entropy, False).home()
        with torch.no_grad(), as_found(score):
            returned = score(torch.as_tensor(points).to(device=device, dtype=dtype))
        if not isinstance(returned, torch.Tensor):
            raise TypeError(f"score must return a tensor, got {type(returned).__name__}: wrap it in a Module")
        answer = returned.double().cpu().numpy()
    else:
        answer = np.asarray(score(points), dtype=np.float64)
    if answer.ndim not in (1, 2) or len(answer) != len(points) or (answer.ndim == 2 and answer.shape[1] < 2):
        raise ValueError(
            f"score must return logits ({len(points)}, K) with K > 1 or scores ({len(points)},), got {answer.shape}"
        )
    if np.isnan(answer).any():
        raise ValueError("score returns NaN: check the classifier and the points")
    if answer.ndim == 1:
        return np.sign(answer).astype(np.int64), None
    return answer.argmax(axis=1).astype(np.int64), answer.shape[1]


def read_targets(y: Any, n: int, binary: bool, n_classes: int | None = None) -> Ints:
    """Labels (n,): -1 and 1 for a score, class indices otherwise."""
    labels = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"y must hold integers, got dtype {labels.dtype}")
    if labels.shape != (n,):
        raise ValueError(f"y must have shape ({n},), one label for each sample, got {labels.shape}")
    if n == 0:
        raise ValueError("X is empty: give at least one sample")
    if binary and not np.isin(labels, (-1, 1)).all():
        raise ValueError(f"the labels of a score must be -1 or 1, got {np.unique(labels)[:5].tolist()}")
    if not binary and labels.min() < 0:
        raise ValueError(f"y must hold class indices from 0 on, got {labels.min()}")
    if n_classes is not None and labels.max() >= n_classes:
        raise ValueError(f"y must hold class indices in 0..{n_classes - 1}, one for each logit, got {labels.max()}")
    return labels.astype(np.int64)


def differ(a: Ints, b: Ints | int, binary: bool) -> NDArray[np.bool_]:
    """Whether classes differ; a score of zero is an error for either sign."""
    result: NDArray[np.bool_] = a * b <= 0 if binary else a != b
    return result
