"""The coordinates in which distances are measured: the samples less their mean, or their leading components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._saving import savable
from .neighbors import Floats

__all__ = ["Frame", "choose_frame"]


@savable
@dataclass(frozen=True)
class Frame:
    """The map ``x -> (x - center) @ basis``, under which distances are measured.

    Attributes
    ----------
    center : array (D,)
    basis : array (D, r) or None
        Orthonormal columns; None stands for the identity.

    Examples
    --------
    >>> import numpy as np
    >>> Frame(np.array([1.0, 1.0]), np.array([[0.0], [1.0]]))(np.array([[5.0, 3.0]]))
    array([[2.]])
    """

    center: Floats
    basis: Floats | None

    def __call__(self, x: Floats) -> Floats:
        """Coordinates (B, r) of points `x` (B, D)."""
        return x - self.center if self.basis is None else (x - self.center) @ self.basis


def choose_frame(X: Floats, n_components: float | None, random_state: Any) -> Frame:
    """Frame of samples `X` (n, D).

    Parameters
    ----------
    X : array (n, D)
    n_components : int, float between 0 and 1, or None
        Number of principal components, or the share of the variance that they must explain; None keeps all
        coordinates as they are.
    random_state : RandomState
        Of scikit-learn's randomised solver, which it takes for many coordinates and few components.
    """
    if n_components is None:
        return Frame(X.mean(axis=0), None)
    from sklearn.decomposition import PCA  # a tenth of a second, for what few ask for

    pca = PCA(n_components, random_state=random_state).fit(X)
    return Frame(pca.mean_, np.ascontiguousarray(pca.components_.T))
