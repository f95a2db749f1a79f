r"""Spectral exterior calculus (SEC): vector fields and the Hodge Laplacian from eigenfunctions alone.

Every product of functions and gradients is read off the triple products :math:`c_{ijs} = \int \phi_i \phi_j \phi_s`:
by the product rule :math:`\nabla\phi_i \cdot \nabla\phi_j = \sum_s g_{ijs} \phi_s` with
:math:`g_{ijs} = (\xi_i + \xi_j - \xi_s) c_{ijs} / 2`. The 1-forms
:math:`b^{ij} = \phi_i d\phi_j - \phi_j d\phi_i` span all 1-forms; their Gram matrix G and Dirichlet energy
:math:`E(v, w) = \langle dv, dw \rangle + \langle \delta v, \delta w \rangle` give smooth fields and their energies.
"""

from __future__ import annotations

import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
import torch
from scipy.sparse.linalg import eigsh
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._arrays import like
from ..exceptions import ScaleWarning
from ._validation import choice, positive
from .neighbors import Floats

if TYPE_CHECKING:
    from .diffusion import DiffusionManifold
    from .nystrom import Weights

__all__ = ["ExteriorCalculus"]

#: Generalised eigenvalues theta = 1 / (1 + energy) below this are spurious.
LEAST_THETA = 1e-8
#: Ratio of neighbouring eigenvalues that separates multiplets.
CLEAR_JUMP = 1.05
#: Energy, in units of the first eigenvalue, below which it is no rounding of zero.
NEGATIVE = -0.1
#: Modes of the coordinates that are differentiated, per mode that carries their shape: slopes live on finer modes.
COORDINATES = 1.15


class ExteriorCalculus(BaseEstimator):
    r"""Smooth vector fields on a learned manifold, ordered by their Hodge energy.

    The generalised eigenproblem :math:`E a = \eta\, G a` over 1-forms has eigenvalues :math:`\eta` of the Hodge
    1-Laplacian; those near zero are harmonic, and their number is the first Betti number (independent loops).

    Parameters
    ----------
    manifold : DiffusionManifold
        A fitted manifold. It is not changed.
    n_functions : int, optional
        M: functions that build the frame. Default: 9 in one dimension, 16 to 21 above, cut at the clearest gap
        of the spectrum, since a multiplet cut in two gives spurious fields.
    n_products : int, optional
        N0, better 2.5 M or more: functions in which products are expanded. With N0 = M the energies are wrong.
    n_coordinates : int, optional
        Modes of the coordinate functions that are differentiated; fewer filter noise. Default: 1.15 times those that
        carry the shape and not the noise (see :class:`DiffusionManifold`), at most `n_products`.
    frame : {"antisymmetric", "plain"}, default="antisymmetric"
        "plain" uses :math:`\phi_i d\phi_j`; it needs complete products.
    tol : float, default=0.03
        Directions of the frame whose size is below `tol` times the largest are dropped.
    pushforward : {"markov", "spectral"}, default="markov"
        How gradients become ambient vectors. "spectral" multiplies noise by the eigenvalues.

    Attributes
    ----------
    eigenvalues_ : array (R,)
        Hodge energies, ascending, in the units of ``manifold.eigenvalues_``.
    coefficients_ : array (R, M, M)
        Field r is :math:`\sum_{ij} U_{rij} \phi_i \nabla\phi_j`, of unit norm in L2.
    n_functions_, n_products_, n_coordinates_ : int

    Notes
    -----
    Cost: O(n M C N0) for the products, 2 M^4 N0 flops for the matrices G and E of M^4 / 4 entries each, and the
    eigenproblem of one of them, M^6 / 6 flops for its tridiagonal form alone, which is most of the cost from M = 50.

    References
    ----------
    .. [1] T. Berry, D. Giannakis, "Spectral exterior calculus", Comm. Pure Appl. Math. 73, 2020.
    .. [2] "On-manifold projected gradient descent", section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit import DiffusionManifold
    >>> t = 2 * np.pi * np.arange(300) / 300
    >>> m = DiffusionManifold(n_components=21).fit(np.column_stack([np.cos(t), np.sin(t)]))
    >>> sec = ExteriorCalculus(m).fit()
    >>> (sec.eigenvalues_[:5] / m.eigenvalues_[1]).round(1) + 0.0  # one harmonic field: the circle has one loop
    array([0., 1., 1., 4., 4.])
    """

    eigenvalues_: Floats
    coefficients_: Floats
    n_functions_: int
    n_products_: int
    n_coordinates_: int

    def __init__(
        self,
        manifold: DiffusionManifold,
        n_functions: int | None = None,
        n_products: int | None = None,
        n_coordinates: int | None = None,
        *,
        frame: str = "antisymmetric",
        tol: float = 0.03,
        pushforward: str = "markov",
    ) -> None:
        self.manifold = manifold
        self.n_functions = n_functions
        self.n_products = n_products
        self.n_coordinates = n_coordinates
        self.frame = frame
        self.tol = tol
        self.pushforward = pushforward

    def __sklearn_clone__(self) -> ExteriorCalculus:
        """Clone the parameters, and keep the manifold: unfitted it would be of no use."""
        return type(self)(**self.get_params(deep=False))

    def fit(self, X: Any = None, y: Any = None) -> ExteriorCalculus:
        """Solve the Hodge eigenproblem. `X` and `y` are ignored.

        Raises
        ------
        ValueError
            If a parameter is wrong or the manifold has too few eigenfunctions.
        """
        check_is_fitted(self.manifold)
        if self.manifold.n_connected_components_ > 1:
            raise ValueError(
                f"the manifold has {self.manifold.n_connected_components_} connected components: fit each alone, "
                "since the scale of the fields is its first non-zero eigenvalue"
            )
        if self.manifold.n_components_ < 3:
            raise ValueError(f"vector fields need n_components >= 3, the manifold has {self.manifold.n_components_}")
        self._choose_sizes()
        m, first_nonzero = self.n_functions_, self.manifold.eigenvalues_[1]
        xi = self.manifold.eigenvalues_[: self.n_products_] / first_nonzero
        table = self._triple_products()
        products = table[:, :m]
        gradients = _product_rule(xi[:m], xi[:m], xi) * products
        gram, energy = _forms(products, gradients, xi, self._pairs, self.frame == "antisymmetric")
        eta, vectors = _stable_eigenpairs(gram, energy, self._sizes(xi), self.tol)
        if eta[0] < NEGATIVE:
            warnings.warn(
                f"the least energy of a field is {eta[0]:.2f} of the first eigenvalue, and none is negative: "
                "too few eigenfunctions hold their products. Fit the manifold with more n_components, or pass fewer "
                "n_functions",
                ScaleWarning,
                stacklevel=2,
            )
        self.eigenvalues_ = eta * first_nonzero
        first, second = self._pairs
        self.coefficients_ = np.zeros((len(eta), m, m))
        self.coefficients_[:, first, second] = vectors.T
        if self.frame == "antisymmetric":
            self.coefficients_[:, second, first] = -vectors.T
        self._push = self._pushforward(table[:, : self.n_coordinates_])
        self._modes = self.manifold._modes(self.manifold._sampling.ambient(), self.n_coordinates_)
        return self

    def _choose_sizes(self) -> None:
        xi = self.manifold.eigenvalues_
        choice(self.frame, "frame", ("antisymmetric", "plain"))
        choice(self.pushforward, "pushforward", ("markov", "spectral"))
        if not isinstance(self.tol, Real) or not 0 < float(self.tol) < 1:
            raise ValueError(f"tol must be a number between 0 and 1, got {self.tol!r}")
        for name in ("n_functions", "n_products", "n_coordinates"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), name, " or None")
        one_dimensional = self.manifold.tangent_dimension_ == 1
        half = max(2, len(xi) // 2)  # few components: keep twice as many for the products
        low, high = (8, 10) if one_dimensional else (14, 22)
        m = self.n_functions or _cut_at_gap(xi, min(low, half), min(high, half))
        n0 = self.n_products or _cut_at_gap(xi, *((20, 24) if one_dimensional else (4 * m, 5 * m)))
        coordinates = self.n_coordinates or max(2, min(n0, round(COORDINATES * self.manifold._n_smooth)))
        for name, value, least in (
            ("n_functions", m, 2),
            ("n_products", n0, m),
            ("n_coordinates", coordinates, 2),
        ):
            if not least <= value <= len(xi):
                raise ValueError(
                    f"{name}={value} must lie between {least} and the manifold's n_components_={len(xi)}: "
                    "fit the manifold with more components, or ask for fewer here"
                )
        if n0 < 2 * m:
            warnings.warn(
                f"n_products={n0} is less than twice n_functions={m}: energies may be far off",
                ScaleWarning,
                stacklevel=3,
            )
        self.n_functions_, self.n_products_, self.n_coordinates_ = int(m), int(n0), int(coordinates)

    @property
    def _pairs(self) -> tuple[Any, Any]:
        """Indices i, j of the frame elements: i < j, or all i with j >= 1."""
        m = self.n_functions_
        if self.frame == "antisymmetric":
            return np.triu_indices(m, 1)
        first, second = np.divmod(np.arange(m * (m - 1)), m - 1)
        return first, second + 1

    def _sizes(self, xi: Floats) -> Floats:
        """A-priori H1 size of each frame element; the computed diagonal may be negative."""
        i, j = self._pairs
        b = xi[i] + xi[j] if self.frame == "antisymmetric" else xi[j]
        sizes: Floats = np.sqrt(b * (1 + xi[i] + xi[j]))
        return sizes

    def _triple_products(self) -> Floats:
        """c_ijs for i < M, j < max(M, C), s < N0."""
        phi, mu = self.manifold._functions, self.manifold._measure
        columns = phi[:, : max(self.n_functions_, self.n_coordinates_)]
        weighted = mu[:, None] * phi[:, : self.n_products_]
        return np.stack([(phi[:, i, None] * columns).T @ weighted for i in range(self.n_functions_)])

    def _pushforward(self, table: Floats) -> Floats:
        r"""Tensor (M, C, N0) with :math:`\nabla\phi_j \cdot \nabla\phi_m = \sqrt{\xi_1} \sum_s T_{jms} \phi_s`.

        The Markov form is the carre du champ :math:`(P(fh) - f P h - h P f + f h) / (2 c \varepsilon^2)` of the
        diffusion operator; expanded in its own eigenfunctions it needs no product with the kernel matrix.
        """
        m, c, n0 = self.n_functions_, self.n_coordinates_, self.n_products_
        manifold = self.manifold
        if self.pushforward == "spectral":
            rate = manifold.eigenvalues_
        else:
            rate = (1 - manifold.markov_eigenvalues_) / manifold._unit
        return _product_rule(rate[:m], rate[:c], rate[:n0]) * table / np.sqrt(manifold.eigenvalues_[1])

    def fields(self, Y: Any, n_fields: int | None = None) -> Any:
        """Ambient components of the smoothest fields at points on (or near) the manifold.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)
        n_fields : int, optional
            Default: all.

        Returns
        -------
        array or Tensor (B, n_fields, D)
            Field r has mean square length about 1 in the metric of `manifold.eigenvalues_`: a few per cent less,
            by the step size of the diffusion.
        """
        check_is_fitted(self)
        count = len(self.eigenvalues_) if n_fields is None else n_fields
        if positive(count, "n_fields", " or None") > len(self.eigenvalues_):
            raise ValueError(f"n_fields must lie between 1 and {len(self.eigenvalues_)}, got {n_fields!r}")
        return like(self._fields(self.manifold._query(Y), count), Y)

    def _fields(self, flat: torch.Tensor, n_fields: int, weights: Weights | None = None) -> torch.Tensor:
        phi = self.manifold._transform(flat, weights, self.n_products_)
        push = torch.from_numpy(self._push).to(phi)
        coefficients = torch.from_numpy(self.coefficients_[:n_fields]).to(phi)
        frame = torch.einsum("rij,bi->brj", coefficients, phi[:, : self.n_functions_])
        gradients = torch.einsum("jms,bs->bjm", push, phi)
        return frame @ gradients @ self._modes.to(phi)


def _product_rule(first: Floats, second: Floats, third: Floats) -> Floats:
    """Factors (M, C, N0) that turn triple products into inner products of gradients."""
    factors: Floats = 0.5 * (first[:, None, None] + second[None, :, None] - third)
    return factors


def _cut_at_gap(xi: Floats, low: int, high: int) -> int:
    """Count in [low, high] after which the spectrum makes its largest relative jump; all if none is seen."""
    counts = np.arange(min(low, len(xi)), min(high, len(xi) - 1) + 1)
    jumps = xi[counts] / np.maximum(xi[counts - 1], 1e-3 * xi[1]) if len(counts) else np.array([])
    if len(xi) <= high and not (jumps > CLEAR_JUMP).any():
        return len(xi)
    return int(counts[jumps.argmax()])


def _forms(c: Floats, g: Floats, xi: Floats, pairs: tuple[Any, Any], antisymmetric: bool) -> tuple[Floats, Floats]:
    """Gram matrix and Dirichlet energy of the frame, exactly symmetric; the rows (i, j) of one i at a time."""
    first, second = pairs
    gram, energy = np.empty((2, len(first), len(first)))
    codifferential = xi[None, : len(c), None] * c - g  # of phi_i dphi_j
    for i in range(first[-1] + 1):
        rows = slice(*np.searchsorted(first, [i, i + 1]))
        later, low = slice(rows.start, None), i if antisymmetric else 0  # k >= i, and l > k if antisymmetric
        j, third, fourth = slice(second[rows.start], None), first[later] - low, second[later] - low
        left, right = g[j, low:] @ c[i, low:].T, g[j, low:] @ g[i, low:].T  # sums over s, (J, l, k)
        curl = right[:, fourth, third] - right[:, third, fourth]
        if antisymmetric:
            left += c[j, low:] @ g[i, low:].T
            inner = left[:, fourth, third] - left[:, third, fourth]
            spread = (xi[fourth + low] - xi[third + low]) * (xi[second[rows]] - xi[i])[:, None]
            total = 4 * curl + spread * (c[low:, low:] @ c[i, j].T)[third, fourth].T
        else:
            inner, total = left[:, fourth, third], curl + (codifferential @ codifferential[i, j].T)[third, fourth].T
        for form, block in ((gram, inner), (energy, total)):
            form[rows, later] = block
            form[later, rows] = block.T
    return gram, energy


def _stable_eigenpairs(gram: Floats, energy: Floats, sizes: Floats, tol: float) -> tuple[Floats, Floats]:
    """Energies ascending, and coefficients (F, R) of L2-orthonormal fields, of a redundant frame. Overwrites the forms.

    The eigenproblem is solved for theta = 1 / (1 + energy) in the H1-orthonormal part of the frame, which needs
    no inverse of G: spurious directions have theta near 0 and sort last.
    """
    scale = 1 / sizes
    for form in (gram, energy):
        form *= scale[:, None]
        form *= scale
    energy += gram
    values, vectors = scipy.linalg.eigh(energy, subset_by_value=(tol * _largest(energy), np.inf), overwrite_a=True)
    root = vectors / np.sqrt(values)
    theta, y = scipy.linalg.eigh(root.T @ gram @ root)
    theta, y = theta[::-1], y[:, ::-1]
    kept = theta > LEAST_THETA
    return 1 / theta[kept] - 1, scale[:, None] * (root @ y[:, kept]) / np.sqrt(theta[kept])


def _largest(matrix: Floats) -> float:
    """The largest eigenvalue, by few products with a large matrix."""
    if len(matrix) < 100:
        return float(scipy.linalg.eigvalsh(matrix)[-1])
    return float(eigsh(matrix, k=1, which="LA", v0=np.ones(len(matrix)), return_eigenvectors=False)[0])
