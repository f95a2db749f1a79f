"""A classifier whose risks are known exactly, and whose adversarial risk is nothing but nearby normal risk."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attacks._input import read_number, read_steps

__all__ = ["pessimistic_classifier"]

Floats = NDArray[np.float64]


def pessimistic_classifier(
    n: int, eps: float, *, height: float = 1.0
) -> tuple[Callable[[Any], Floats], dict[str, float]]:
    r"""Classifier on [0, 1] x {0} in the plane, all labels +1, that is wrong almost nowhere and vulnerable everywhere.

    The interval is cut into :math:`A_0 B_1 A_1 \dots B_n A_n` with :math:`|A_i| = (n - 1) / (n (n + 1))` and
    :math:`|B_i| = 1/n^2`. The score at (x, t) is :math:`g(x) - |t|` with g = eps / 2 on the B and `height` on the A:
    thin slots, each with an error near it, that a change of size eps reaches from everywhere.

    Parameters
    ----------
    n : int
        Number of slots, at least 2.
    eps : float
        Budget, between 0 and 1/2.
    height : float, default=1.0
        g on the A_i, larger than eps. With 1.5 eps the inequality of the source fails if its event A is taken with
        the radius 2 eps that is printed there, and holds with eps.

    Returns
    -------
    score : callable
        Points (B, 2) -> scores (B,); positive is class +1.
    risks : dict
        `std`, `in_manifold`, `normal`, `nnr` and `adv`, for x uniform on [0, 1], exact.

    Notes
    -----
    :math:`R_\mathrm{adv} = 1/n + (n - 1) \min(\ell, \sqrt3 \epsilon) + 2 \min(\ell, \sqrt3 \epsilon / 2)` with
    :math:`\ell = |A_i|`: the intervals at the ends have a slot on one side only, so that the threshold printed in the
    source, n > 1 / (sqrt 3 eps), does not make it 1.

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024,
       Theorem 2.

    Examples
    --------
    >>> score, risks = pessimistic_classifier(40, 0.1)
    >>> score([[0.5, 0.0]]) > 0
    array([ True])
    >>> {name: round(value, 4) for name, value in risks.items()}
    {'std': 0.0, 'in_manifold': 0.0, 'normal': 0.025, 'nnr': 0.975, 'adv': 1.0}
    """
    read_steps(n, "n", 2)
    if not 0 < read_number(eps, "eps") < 0.5:
        raise ValueError(f"eps must lie between 0 and 1/2, got {eps!r}")
    if not read_number(height, "height") > eps:
        raise ValueError(
            f"height must exceed eps={eps}, got {height!r}: below, the A_i have a normal risk of their own"
        )
    wide, slot = (n - 1) / (n * (n + 1)), 1 / n**2

    def score(points: Any) -> Floats:
        p = np.asarray(points, dtype=np.float64)
        if p.ndim != 2 or p.shape[1] != 2:
            raise ValueError(f"points must have shape (B, 2), got {p.shape}")
        place = np.mod(p[:, 0], wide + slot)
        inside = (place >= wide) & (p[:, 0] >= 0) & (p[:, 0] <= 1)
        return np.where(inside, eps / 2, height) - np.abs(p[:, 1])

    reach = math.sqrt(3) * eps / 2
    risks = {
        "std": 0.0,
        "in_manifold": 0.0,
        "normal": 1 / n,
        "nnr": (n - 1) * min(wide, 4 * eps) + 2 * min(wide, 2 * eps),
        "adv": 1 / n + (n - 1) * min(wide, 2 * reach) + 2 * min(wide, reach),
    }
    return score, risks
