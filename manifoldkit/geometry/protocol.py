"""The seam of the library: what an attack, a metric or a picture may ask of a manifold.

Anything with these two methods is a manifold. Geometry knows nothing of networks, and whatever uses a manifold
knows nothing of how it was learned.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["LabelledManifold", "Manifold", "project_with_tangents"]


@runtime_checkable
class Manifold(Protocol):
    """A set that points can be projected onto and that has a tangent space at each of its points.

    The dimension of the manifold at a point is the number of columns of its tangent basis. Torch tensors come back
    as torch tensors, of the same device; no gradient need flow.
    """

    def project(self, x: Any) -> Any:
        """Points of the manifold near `x`: (B, *shape) -> (B, *shape)."""
        ...

    def tangent_basis(self, x: Any) -> Any:
        """Orthonormal tangent vectors at points on or near it: (B, *shape) -> (B, D, d), D = prod(shape).

        Where the dimension differs between the samples of a batch, the smaller bases end in columns of zeros.
        """
        ...


def project_with_tangents(manifold: Manifold, x: Any) -> tuple[Any, Any]:
    """``project(x)`` and ``tangent_basis(x)``, by a method of this name if the manifold has one that does both at once.

    Parameters
    ----------
    manifold : Manifold
    x : array or Tensor (B, *shape)

    Returns
    -------
    points : array or Tensor, of the shape of `x`
    basis : array or Tensor (B, D, d), at `x`

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.geometry import Circle
    >>> points, basis = project_with_tangents(Circle(), np.array([[0.0, 2.0]]))
    >>> points, abs(basis[0, :, 0])
    (array([[0., 1.]]), array([1., 0.]))
    """
    both = getattr(manifold, "project_with_tangents", None)
    return (manifold.project(x), manifold.tangent_basis(x)) if both is None else both(x)


@runtime_checkable
class LabelledManifold(Protocol):
    """A family of manifolds, one for each label; `at` picks the manifold of each sample."""

    def at(self, labels: Any) -> Manifold:
        """The manifold on which sample i of a batch is sent to the member for `labels[i]`."""
        ...
