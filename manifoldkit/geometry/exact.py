"""Manifolds known in closed form: the oracles that learned manifolds and attacks are tested against.

Each class is a :class:`~manifoldkit.geometry.protocol.Manifold` whose projection is the true nearest point and whose
tangent spaces and Laplacian spectra come from a formula, so that an error seen on it is an error of the method
under test. numpy and torch are accepted, and the answer has the kind, dtype and device of the input; the arithmetic
is float64. `project` is differentiable for torch input that requires grad.

Where the nearest point is not unique (the medial axis, e.g. the centre of a circle) a fixed point is returned with a
:class:`~manifoldkit.exceptions.MedialAxisWarning`; no projection returns NaN.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from manifoldkit._arrays import as_array, as_tensor, like
from manifoldkit.exceptions import MedialAxisWarning

__all__ = ["Circle", "FlatTorus", "Plane", "Sphere"]

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class _Exact(ABC):
    """Input, output and shapes for the formulas of the subclasses, which see float64 matrices (B, D)."""

    dimension: int
    ambient_dimension: int

    @abstractmethod
    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Nearest points: (B, D) -> (B, D)."""

    @abstractmethod
    def _tangents(self, p: torch.Tensor) -> torch.Tensor:
        """Orthonormal tangent vectors at points of the manifold: (B, D) -> (B, D, d)."""

    def _flat(self, x: Any) -> torch.Tensor:
        tensor = as_tensor(x, "x")
        if isinstance(x, torch.Tensor) and x.requires_grad:
            tensor = x.to(torch.float64)  # as_tensor checked the numbers and cut the graph
        if tensor.ndim < 2 or math.prod(tensor.shape[1:]) != self.ambient_dimension:
            hint = ": wrap a single point as x[None]" if tensor.numel() == self.ambient_dimension else ""
            raise ValueError(f"x must have shape (B, {self.ambient_dimension}), got {tuple(tensor.shape)}{hint}")
        return tensor.reshape(len(tensor), self.ambient_dimension)

    def project(self, x: Any) -> Any:
        """Nearest points of the manifold.

        Parameters
        ----------
        x : array or tensor of shape (B, D)
            Points of the ambient space; any sample shape with D entries will do, such as (B, 1, 8, 8) for D = 64.

        Returns
        -------
        array or tensor
            The nearest points, in the shape, kind, dtype and device of `x`.

        Raises
        ------
        TypeError
            If `x` does not hold real numbers.
        ValueError
            If `x` has another number of coordinates, or holds NaN or infinity.

        Warns
        -----
        MedialAxisWarning
            Where the nearest point is not unique; the class says which one is returned.
        """
        flat = self._flat(x)
        return like(self._project(flat).reshape(x.shape if hasattr(x, "shape") else flat.shape), x)

    def tangent_basis(self, x: Any) -> Any:
        """Orthonormal bases of the tangent spaces at the projections of `x`: shape (B, D, d)."""
        with torch.no_grad():
            return like(self._tangents(self._project(self._flat(x))), x)


def _length(value: float, name: str) -> float:
    result = float(value)
    if not (math.isfinite(result) and result > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return result


def _wanted(n: int) -> int:
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"n must be a positive integer, the number of eigenvalues, got {n!r}")
    return int(n)


def _directions(v: torch.Tensor, radius: torch.Tensor | float) -> torch.Tensor:
    """Unit vectors v/|v| along the last axis; the first axis vector, with a warning, where |v| < 1e-12 radius."""
    scale = v.detach().abs().amax(dim=-1, keepdim=True)  # |v|^2 neither overflows nor vanishes after this scaling
    undecided = scale < 1e-12 * radius
    first = torch.zeros_like(v)
    first[..., 0] = 1.0
    if undecided.any():
        warnings.warn(
            f"{int(undecided.sum())} of {undecided.numel()} projections are of a centre, to which all points are "
            "equally near; the point in the direction of the first axis is returned",
            MedialAxisWarning,
            stacklevel=4,
        )
    safe = torch.where(undecided, first, v / torch.where(undecided, torch.ones_like(scale), scale))
    length: torch.Tensor = torch.linalg.vector_norm(safe, dim=-1, keepdim=True)
    return safe / length


def _take(levels: Iterator[tuple[float, int]], n: int) -> FloatArray:
    """First n eigenvalues of an ascending iterator of (value, multiplicity)."""
    values: list[float] = []
    while len(values) < n:
        value, multiplicity = next(levels)
        values.extend([value] * min(multiplicity, n - len(values)))
    return np.array(values)


class Sphere(_Exact):
    """Round sphere of `dimension` d in R^(d+1), to test curved manifolds without a hole.

    The projection is ``c + r (x - c)/|x - c|``; at the centre it returns ``c + r e_1`` and warns. Tangent vectors are
    columns of the Householder reflection that carries the first axis to the normal.

    Parameters
    ----------
    dimension : int, default=2
        d >= 1.
    radius : float, default=1.0
        r > 0.
    center : array of shape (d + 1,), optional
        c, the origin by default.

    Attributes
    ----------
    dimension, ambient_dimension : int
        d and d + 1.

    Raises
    ------
    ValueError
        If the dimension or the radius is not positive, or the centre has another shape.

    References
    ----------
    .. [1] Ikeda and Taniguchi, "Spectra and eigenforms of the Laplacian on S^n and P^n(C)", Osaka J. Math., 1978.

    Examples
    --------
    >>> import numpy as np
    >>> sphere = Sphere(2)
    >>> sphere.project(np.array([[0.0, 0.0, 3.0]]))
    array([[0., 0., 1.]])
    >>> sphere.eigenvalues(5)
    array([0., 2., 2., 2., 6.])
    >>> sphere.hodge_eigenvalues(7)
    array([2., 2., 2., 2., 2., 2., 6.])
    """

    def __init__(self, dimension: int = 2, radius: float = 1.0, center: Any = None) -> None:
        if isinstance(dimension, bool) or int(dimension) != dimension or dimension < 1:
            raise ValueError(f"dimension must be a positive integer, got {dimension!r}")
        self.dimension = int(dimension)
        self.ambient_dimension = self.dimension + 1
        self.radius = _length(radius, "radius")
        self.center = np.zeros(self.ambient_dimension) if center is None else as_array(center, "center").copy()
        if self.center.shape != (self.ambient_dimension,):
            raise ValueError(f"center must have shape ({self.ambient_dimension},), got {self.center.shape}")

    @property
    def reach(self) -> float:
        """Largest distance within which nearest points are unique: the radius."""
        return self.radius

    def __repr__(self) -> str:
        return f"Sphere(dimension={self.dimension}, radius={self.radius:g}, center={self.center.tolist()})"

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        center = torch.as_tensor(self.center, device=x.device)
        return center + self.radius * _directions(x - center, self.radius)

    def _tangents(self, p: torch.Tensor) -> torch.Tensor:
        normal = (p - torch.as_tensor(self.center, device=p.device)) / self.radius
        mirror = normal.clone()
        mirror[:, 0] += torch.where(normal[:, 0] < 0, -1.0, 1.0)  # the sign that avoids cancellation
        mirror = mirror / torch.linalg.vector_norm(mirror, dim=1, keepdim=True)
        eye = torch.eye(self.ambient_dimension, dtype=p.dtype, device=p.device)
        reflection: torch.Tensor = eye - 2 * mirror[:, :, None] * mirror[:, None, :]
        return reflection[:, :, 1:]

    def eigenvalues(self, n: int) -> FloatArray:
        """First n eigenvalues of the Laplace-Beltrami operator, l(l + d - 1)/r^2, ascending with multiplicity.

        Level l has multiplicity C(l + d, d) - C(l + d - 2, d).
        """
        return _take(self._functions(0), _wanted(n))

    def hodge_eigenvalues(self, n: int) -> FloatArray:
        """First n eigenvalues of the Hodge Laplacian on 1-forms, ascending with multiplicity.

        Differentials of eigenfunctions repeat the spectrum of functions without zero. Co-closed forms have
        (l + 1)(l + d - 2)/r^2, l >= 1. On the 2-sphere the two families agree and every value comes twice as often;
        on the 1-sphere the forms are f dt, with the spectrum of functions, one harmonic form included.
        """
        d, n = self.dimension, _wanted(n)
        if d == 1:
            return self.eigenvalues(n)
        exact = _take(self._functions(1), n)
        return np.sort(np.concatenate([exact, _take(self._coclosed(), n)]))[:n]

    def _functions(self, start: int) -> Iterator[tuple[float, int]]:
        d = self.dimension
        for level in count(start):
            lower = math.comb(level + d - 2, d) if level + d >= 2 else 0
            yield level * (level + d - 1) / self.radius**2, math.comb(level + d, d) - lower

    def _coclosed(self) -> Iterator[tuple[float, int]]:
        d = self.dimension
        for level in count(1):
            top = level * (level + d - 1) * (2 * level + d - 1) * math.factorial(level + d - 3)
            multiplicity = top // (math.factorial(d - 2) * math.factorial(level + 1))
            yield (level + 1) * (level + d - 2) / self.radius**2, multiplicity


class Circle(Sphere):
    """Circle in the plane, the simplest manifold with a hole.

    The projection is ``c + r (x - c)/|x - c|``; at the centre it returns the point at angle 0 and warns. The tangent
    vector is the counter-clockwise one.

    Parameters
    ----------
    radius : float, default=1.0
        r > 0.
    center : array of shape (2,), optional
        c, the origin by default.

    Raises
    ------
    ValueError
        If the radius is not positive or the centre has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> circle = Circle(radius=2.0)
    >>> circle.project(np.array([[0.0, 5.0]]))
    array([[0., 2.]])
    >>> circle.tangent_basis(np.array([[5.0, 0.0]]))[0].T.tolist()
    [[-0.0, 1.0]]
    >>> circle.eigenvalues(5)
    array([0.  , 0.25, 0.25, 1.  , 1.  ])
    """

    def __init__(self, radius: float = 1.0, center: Any = None) -> None:
        super().__init__(1, radius, center)

    def __repr__(self) -> str:
        return f"Circle(radius={self.radius:g}, center={self.center.tolist()})"

    def _tangents(self, p: torch.Tensor) -> torch.Tensor:
        normal = (p - torch.as_tensor(self.center, device=p.device)) / self.radius
        return torch.stack([-normal[:, 1], normal[:, 0]], dim=1)[:, :, None]


class FlatTorus(_Exact):
    """Product of k circles in R^(2k), a manifold without curvature whose first Betti number is k.

    Coordinates 2i and 2i + 1 lie on a circle of radius r_i about the origin, and each pair is projected by itself; a
    pair at the origin goes to ``(r_i, 0)``, with a warning.

    Parameters
    ----------
    radii : sequence of float, default=(1.0, 1.0)
        r_1, ..., r_k, all positive.

    Attributes
    ----------
    dimension, ambient_dimension : int
        k and 2k.

    Raises
    ------
    ValueError
        If there are no radii or one is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> torus = FlatTorus((1.0, 2.0))
    >>> torus.project(np.array([[3.0, 0.0, 0.0, -3.0]]))
    array([[ 1.,  0.,  0., -2.]])
    >>> torus.eigenvalues(4)
    array([0.  , 0.25, 0.25, 1.  ])
    >>> torus.hodge_eigenvalues(4)
    array([0.  , 0.  , 0.25, 0.25])
    """

    def __init__(self, radii: Sequence[float] = (1.0, 1.0)) -> None:
        self.radii = tuple(_length(radius, "every radius") for radius in radii)
        if not self.radii:
            raise ValueError("radii must hold at least one radius")
        self.dimension = len(self.radii)
        self.ambient_dimension = 2 * self.dimension

    @property
    def reach(self) -> float:
        """Largest distance within which nearest points are unique: the smallest radius."""
        return min(self.radii)

    def __repr__(self) -> str:
        return f"FlatTorus(radii={self.radii})"

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        radii = torch.tensor(self.radii, dtype=x.dtype, device=x.device)[:, None]
        pairs = x.reshape(len(x), self.dimension, 2)
        return (radii * _directions(pairs, radii)).reshape(len(x), self.ambient_dimension)

    def _tangents(self, p: torch.Tensor) -> torch.Tensor:
        result = p.new_zeros(len(p), self.ambient_dimension, self.dimension)
        for i, radius in enumerate(self.radii):
            result[:, 2 * i, i] = -p[:, 2 * i + 1] / radius
            result[:, 2 * i + 1, i] = p[:, 2 * i] / radius
        return result

    def eigenvalues(self, n: int) -> FloatArray:
        """First n eigenvalues of the Laplacian: sums of m_i^2/r_i^2 over integers m_i, ascending with multiplicity."""
        n, cutoff = _wanted(n), 1 / max(self.radii) ** 2
        while True:
            values = np.zeros(1)
            for radius in self.radii:
                steps = math.floor(radius * math.sqrt(cutoff) * (1 + 1e-12))
                values = np.add.outer(values, (np.arange(-steps, steps + 1) / radius) ** 2).ravel()
                values = values[values <= cutoff * (1 + 1e-12)]
            if len(values) >= n:
                return np.sort(values)[:n]
            cutoff *= 2

    def hodge_eigenvalues(self, n: int) -> FloatArray:
        """First n eigenvalues of the Hodge Laplacian on 1-forms: those of functions, each k times.

        The forms are ``f dt_i`` with an eigenfunction f; the k constant ones are harmonic.
        """
        n = _wanted(n)
        return np.repeat(self.eigenvalues(-(-n // self.dimension)), self.dimension)[:n]


class Plane(_Exact):
    """Affine subspace of any dimension: the flat manifold, on which tangent and manifold steps are the same.

    The projection is ``o + Q Q^T (x - o)``, Q an orthonormal basis (QR) of the span of `basis`.

    Parameters
    ----------
    basis : array of shape (D, d)
        Linearly independent columns, 1 <= d <= D; they need not be orthonormal.
    origin : array of shape (D,), optional
        o, any point of the plane; zero by default.

    Attributes
    ----------
    basis : ndarray of shape (D, d)
        Q, which spans the columns given.
    dimension, ambient_dimension : int
        d and D.

    Raises
    ------
    ValueError
        If the columns are linearly dependent or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> line = Plane([[1.0], [1.0]], origin=[0.0, 1.0])
    >>> line.project(np.array([[1.0, 0.0]])).round(12)
    array([[0., 1.]])
    """

    def __init__(self, basis: Any, origin: Any = None) -> None:
        columns = as_array(basis, "basis")
        if columns.ndim != 2 or not 1 <= columns.shape[1] <= columns.shape[0]:
            raise ValueError(f"basis must have shape (D, d) with 1 <= d <= D, got {columns.shape}: vectors are columns")
        sizes = np.linalg.norm(columns, axis=0)
        columns = columns / np.where(sizes > 0, sizes, 1.0)
        if np.linalg.svd(columns, compute_uv=False)[-1] < 1e-12:
            raise ValueError("the columns of basis are linearly dependent: leave the redundant ones out")
        self.basis: FloatArray = np.linalg.qr(columns)[0]
        self.ambient_dimension, self.dimension = columns.shape
        self.origin = np.zeros(len(columns)) if origin is None else as_array(origin, "origin").ravel().copy()
        if self.origin.shape != (self.ambient_dimension,):
            raise ValueError(f"origin must have {self.ambient_dimension} entries, got {self.origin.size}")

    @property
    def reach(self) -> float:
        """Largest distance within which nearest points are unique: infinite."""
        return math.inf

    def __repr__(self) -> str:
        return f"Plane(dimension={self.dimension}, ambient_dimension={self.ambient_dimension})"

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        q = torch.as_tensor(self.basis, device=x.device)
        origin = torch.as_tensor(self.origin, device=x.device)
        nearest: torch.Tensor = origin + (x - origin) @ q @ q.T
        return nearest

    def _tangents(self, p: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.basis, device=p.device).expand(len(p), -1, -1).clone()
