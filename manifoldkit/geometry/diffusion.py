"""`DiffusionManifold`: the manifold that data lie on, learned by conformally invariant diffusion maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .._arrays import as_array, as_tensor, chunks, flatten, like
from ..exceptions import MedialAxisWarning
from ._diagnostics import warn_of_spectrum
from ._parameters import check_parameters
from ._validation import choice, positive
from .exterior import ExteriorCalculus
from .kernels import SHAPES
from .medial import near_medial_axis
from .neighbors import Floats
from .nystrom import FAR_MODES, NystromLayer, NystromRow
from .sampling import Sampling, sample_neighborhoods
from .scale import choose_scale, unit_area
from .spectrum import Spectrum, diffusion_spectrum, laplacian_eigenvalues
from .support import kernel_matrix
from .tangents import TANGENT_METHODS, tangent_basis

__all__ = ["DiffusionManifold"]

#: Markov eigenvalues below this are not divided by: the components are dropped.
LEAST_MARKOV = 0.05
#: Components of the projection need at least this Markov eigenvalue, unless their number is given.
PROJECTION_MARKOV = 0.2


class DiffusionManifold(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Learn the manifold that samples lie on, project points onto it, and move along it.

    The kernel of conformally invariant diffusion maps, with bandwidth :math:`\rho`,

    .. math:: K(x, y) = h\left(\frac{|x-y|^2}{\varepsilon^2 \rho(x) \rho(y)}\right), \qquad P = D^{-1} K,

    has eigenfunctions :math:`\phi_l` that converge to those of the Laplace-Beltrami operator of the conformal
    metric :math:`q^{2/d} g` (q: sampling density, d: dimension, g: the metric induced by the ambient space); for
    uniform samples to those of g. The Nystrom extension carries them, and every sampled function, to all of
    space; applied to the coordinates it is a differentiable projection onto the manifold.

    Parameters
    ----------
    n_components : int, default=64
        Number of eigenfunctions, the constant one included.
    n_neighbors : int or "auto", default="auto"
        k of the bandwidth function. "auto" is ``2 log2(n)``, rounded. Noise wants 2-4 % of n; curved sheets that
        run close to each other want ``3 * epsilon * rho`` below their distance.
    epsilon : {"knn", "max"} or float, default="knn"
        Dimensionless global bandwidth. "knn": its square is twice the mean of delta^2 over the k nearest
        neighbours. "max": where the slope of the kernel sum is steepest, the textbook rule, which picks far too
        large a scale on as plain a set as the circle. Look at `scaling_curve_` before you trust it.
    dimension : int, optional
        Dimension of tangent spaces. Default: `dimension_`, rounded. Noise raises that estimate, so pass what
        you know.
    bandwidth : {"mean", "kth"}, default="mean"
        Mean distance to the k nearest neighbours, or the distance of the k-th.
    kernel : {"exp(-z)", "exp(-z/2)", "exp(-z/4)", "indicator"}, default="exp(-z)"
        Shape function h. The indicator gives a piecewise constant extension.
    units : {"physical", "volume1"}, default="physical"
        Units of `eigenvalues_`: of g (its inverse squared length, by the mean log bandwidth), or of the metric
        :math:`q^{2/d} g` with total volume 1 (needs the dimension).
    n_projection_components : int, optional
        Components used by `project` and `extend`; fewer filter noise. Default: those with Markov eigenvalue
        above 0.2.
    far : {"shift", "plain", "knn"}, default="shift"
        Behaviour away from the samples, see :class:`~manifoldkit.geometry.NystromRow`.
    tangent_method : {"sec", "pca", "smoothed"}, default="sec"
        Default of `tangent_basis`.
    n_tangent_neighbors : int, optional
        Neighbours of the local methods "pca" and "smoothed". Default: ``max(2 k, 3 d)``.
    neighbors : {"auto", "tree", "brute"} or object with ``kneighbors``, default="auto"
        Neighbour engine.
    eigen_solver : {"auto", "lapack", "arpack"} or callable, default="auto"
        Eigen-solver; a callable takes the symmetric matrix and the number of pairs.
    n_kernel_neighbors : int, optional
        Keep only pairs of which one is among this many nearest neighbours of the other: in many dimensions only
        this keeps the diffusion local. `eigenvalues_` then lose their absolute scale. Default: every pair.
    dense_limit : int, default=6000
        Up to this many samples distances to all are computed, above it those with ``delta^2 < 16 epsilon^2``.
    reduction : {"torch", "keops"}, default="torch"
        Engine of Nystrom averages over a full kernel. "keops" forms no matrix, and compiles when first used.
    random_state : int, RandomState or None, default=0
        Start vector of ARPACK and rows of the scaling curve.

    Attributes
    ----------
    eigenvalues_ : array (n_components_,)
        Laplace-Beltrami eigenvalues, ascending, the first 0, in units of 1 / length^2.
    eigenfunctions_ : array (n, n_components_)
        Eigenfunctions at the training samples, orthonormal in `measure_`, the first equal to 1.
    markov_eigenvalues_ : array (n_components_,)
        Eigenvalues of P, descending from 1.
    measure_ : array (n,)
        Quadrature weights with sum 1.
    dimension_ : float
        Estimated dimension: slope of the kernel sum at `epsilon_`.
    epsilon_ : float
    bandwidth_ : array (n,)
        rho at the training samples, a length.
    scaling_curve_ : array (2, q)
        Values of epsilon and the slope of the kernel sum there; its plateaus show the dimension.
    tangent_dimension_ : int
        Number of columns of `tangent_basis`.
    n_components_, n_projection_components_, n_neighbors_ : int
    n_connected_components_ : int
        Number of pieces that the kernel does not join.
    sample_shape_ : tuple of int
    n_features_in_ : int

    Notes
    -----
    Eigenfunctions of one eigenvalue are defined up to rotation: compare subspaces, never vectors. All is computed
    in float64; answers come back as the kind, dtype and device of the query.

    References
    ----------
    .. [1] "On-manifold projected gradient descent", sections 2.1-2.3.
    .. [2] T. Berry, J. Harlim, "Variable bandwidth diffusion kernels", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> t = 2 * np.pi * np.arange(400) / 400
    >>> X = np.column_stack([np.cos(t), np.sin(t)])
    >>> m = DiffusionManifold(n_components=9).fit(X)
    >>> (m.eigenvalues_[:5] / m.eigenvalues_[1]).round(1)
    array([0., 1., 1., 4., 4.])
    >>> m.project([[0.0, 1.02]]).round(3) + 0.0
    array([[0., 1.]])
    """

    _map: NystromRow

    def __init__(
        self,
        n_components: int = 64,
        n_neighbors: int | str = "auto",
        epsilon: float | str = "knn",
        dimension: int | None = None,
        *,
        bandwidth: str = "mean",
        kernel: str = "exp(-z)",
        units: str = "physical",
        n_projection_components: int | None = None,
        far: str = "shift",
        tangent_method: str = "sec",
        n_tangent_neighbors: int | None = None,
        neighbors: Any = "auto",
        eigen_solver: Any = "auto",
        n_kernel_neighbors: int | None = None,
        dense_limit: int = 6000,
        reduction: str = "torch",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.epsilon = epsilon
        self.dimension = dimension
        self.bandwidth = bandwidth
        self.kernel = kernel
        self.units = units
        self.n_projection_components = n_projection_components
        self.far = far
        self.tangent_method = tangent_method
        self.n_tangent_neighbors = n_tangent_neighbors
        self.neighbors = neighbors
        self.eigen_solver = eigen_solver
        self.n_kernel_neighbors = n_kernel_neighbors
        self.dense_limit = dense_limit
        self.reduction = reduction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> DiffusionManifold:
        """Learn the manifold of the samples `X` (n, *shape).

        Parameters
        ----------
        X : array or Tensor (n, D) or (n, *shape)
            At least ``n_neighbors + 2`` samples, finite, not all equal.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For wrong parameters, too few or constant samples, NaN or infinity.
        RuntimeError
            If the eigen-solver failed.
        """
        points = self._validate_samples(X)
        self.n_neighbors_ = check_parameters(self, *points.shape)
        random_state = check_random_state(self.random_state)
        self._sampling = sampling = sample_neighborhoods(points, self.n_neighbors_, self.bandwidth, self.neighbors)
        if self.n_components > len(sampling.points):
            raise ValueError(f"n_components={self.n_components} exceeds the {len(sampling.points)} distinct samples")
        self.bandwidth_ = sampling.spread(sampling.rho)
        scale = choose_scale(sampling, SHAPES[self.kernel], self.epsilon, random_state)
        eps2 = scale.eps2
        self.epsilon_, self.dimension_, self.scaling_curve_ = float(np.sqrt(eps2)), scale.dimension, scale.curve
        self.tangent_dimension_ = self.dimension or int(np.clip(round(self.dimension_), 1, self.n_features_in_))
        kernel, support = kernel_matrix(
            sampling,
            SHAPES[self.kernel],
            eps2,
            n_neighbors=self.n_neighbors_,
            n_kernel_neighbors=self.n_kernel_neighbors,
            dense_limit=self.dense_limit,
        )
        spectrum = diffusion_spectrum(
            kernel, sampling.weights, self.n_components, solver=self.eigen_solver, random_state=random_state
        )
        del kernel
        self._set_spectrum(spectrum, sampling, eps2)
        self._map = NystromRow(
            sampling,
            eps2=eps2,
            n_neighbors=self.n_neighbors_,
            convention=self.bandwidth,
            shape=SHAPES[self.kernel],
            support=support,
            gather=len(sampling.points) > self.dense_limit,
        )
        self._x_coefficients = self._coefficients(sampling.points, self.n_projection_components_)
        self._x_modes = self._modes(sampling.points, self.n_projection_components_)
        self._exterior: ExteriorCalculus | None = None
        self._smoothed: tuple[torch.Tensor, torch.Tensor] | None = None
        return self

    def _validate_samples(self, X: Any) -> Floats:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        array = np.asarray(X)
        shape = array.shape
        if len(shape) > 2:
            X = array.reshape(shape[0], -1)
        points: Floats = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.sample_shape_ = tuple(shape[1:])
        if not np.ptp(points, axis=0).any():
            raise ValueError(f"X is constant: all {len(points)} samples are equal, which is no manifold to learn")
        return points

    def _set_spectrum(self, spectrum: Spectrum, sampling: Sampling, eps2: float) -> None:
        markov = spectrum.markov
        usable = int(np.sum(np.cumprod(markov >= LEAST_MARKOV)))
        self.n_components_ = self._n_features_out = usable
        self.markov_eigenvalues_ = markov[:usable]
        self._functions, self._measure = spectrum.functions[:, :usable], spectrum.measure
        self.eigenfunctions_ = sampling.spread(self._functions)
        self.measure_ = sampling.spread(spectrum.measure / sampling.weights)
        d = self.dimension or self.dimension_
        self._unit = eps2 * unit_area(sampling, self.units, d, self.n_neighbors_, self.bandwidth)
        self.eigenvalues_ = laplacian_eigenvalues(self.markov_eigenvalues_, SHAPES[self.kernel], self._unit, d)
        wanted = self.n_projection_components or int(np.sum(self.markov_eigenvalues_ > PROJECTION_MARKOV))
        self.n_projection_components_ = max(1, min(wanted, usable))
        pieces = sampling.n_pieces()
        self.n_connected_components_ = min(pieces, max(1, int(np.sum(markov > 1 - 1e-6))))
        warn_of_spectrum(self, markov, LEAST_MARKOV, pieces)

    def _modes(self, values: Floats, n_components: int) -> torch.Tensor:
        """Generalised Fourier coefficients (N, q) of `values` (u, q): inner products in the measure."""
        functions = self._functions[:, :n_components]
        return torch.from_numpy((functions * self._measure[:, None]).T @ values)

    def _coefficients(self, values: Floats, n_components: int) -> torch.Tensor:
        """Values (u, q) to be averaged by the Nystrom weights, so that the truncated series comes out."""
        functions = self._functions[:, :n_components] / self.markov_eigenvalues_[:n_components]
        return torch.from_numpy(functions) @ self._modes(values, n_components)

    def _query(self, Y: Any, name: str = "Y") -> torch.Tensor:
        """Queries as a float64 matrix (B, D)."""
        check_is_fitted(self)
        if not isinstance(Y, torch.Tensor) and (len(self.sample_shape_) == 1 or hasattr(Y, "columns")):
            Y = validate_data(self, Y, dtype=np.float64, reset=False)
        return flatten(as_tensor(Y, name), self.sample_shape_, name)

    def _average(self, flat: torch.Tensor, values: torch.Tensor, far: str | None = None) -> torch.Tensor:
        """Nystrom averages (B, q) of `values` (u, q) at `flat` (B, D), cut into pieces that fit in memory."""
        mode = choice(far or self.far, "far", FAR_MODES)
        self._map.to(flat.device)
        values = values.to(flat.device)
        out = flat.new_empty(len(flat), values.shape[1])
        with torch.no_grad():
            for part in chunks(len(flat), self._map.bytes_per_query):
                out[part] = self._map.average(flat[part], values, mode, self.reduction)
        return out

    def transform(self, X: Any) -> Any:
        """Diffusion coordinates of new points: the Nystrom extension of the eigenfunctions.

        Equals `eigenfunctions_` at the training samples. The first column is the constant 1.

        Parameters
        ----------
        X : array or Tensor (B, *shape)

        Returns
        -------
        array or Tensor (B, n_components_)
        """
        flat = self._query(X, "X")
        return like(self._transform(flat), X)

    def _transform(self, flat: torch.Tensor, far: str | None = None) -> torch.Tensor:
        return self._average(
            flat,
            torch.from_numpy(self._functions / self.markov_eigenvalues_),
            far,
        )

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit to `X` and return `eigenfunctions_`, as the kind of array that came in."""
        self.fit(X)
        return like(self.eigenfunctions_, X)

    def inverse_transform(self, X: Any) -> Any:
        """Ambient points of diffusion coordinates: the truncated series of the coordinate functions.

        Parameters
        ----------
        X : array or Tensor (B, n_components_)
            Diffusion coordinates, as `transform` gives them.

        Returns
        -------
        array or Tensor (B, *shape)
        """
        check_is_fitted(self)
        phi = flatten(as_tensor(X, "X"), (self.n_components_,), "X")
        points = phi[:, : self.n_projection_components_] @ self._x_modes.to(phi.device)
        return like(points.reshape(len(phi), *self.sample_shape_), X)

    def extend(self, F: Any, Y: Any, n_components: int | None = None, *, far: str | None = None) -> Any:
        """Extend functions that are known at the training samples to new points (regression, label read-out).

        Parameters
        ----------
        F : array or Tensor (n,) or (n, q)
            Values at the training samples. Angles belong in as (cos, sin) pairs, classes as one-hot rows.
        Y : array or Tensor (B, *shape)
        n_components : int, optional
            Length of the series, default `n_projection_components_`.
        far : {"shift", "plain", "knn"}, optional

        Returns
        -------
        array or Tensor (B,) or (B, q), of the kind of `Y`

        Examples
        --------
        >>> import numpy as np
        >>> t = 2 * np.pi * np.arange(200) / 200
        >>> m = DiffusionManifold(n_components=9).fit(np.column_stack([np.cos(t), np.sin(t)]))
        >>> c, s = m.extend(np.column_stack([np.cos(t), np.sin(t)]), [[0.5, 0.5]])[0]
        >>> round(float(np.degrees(np.arctan2(s, c))), 1)
        45.0
        """
        flat = self._query(Y)
        values = as_array(F, "F")
        if values.ndim not in (1, 2) or len(values) != len(self.eigenfunctions_):
            raise ValueError(
                f"F must hold a value or a row for each of the {len(self.eigenfunctions_)} training samples, "
                f"got shape {values.shape}"
            )
        length = self.n_projection_components_ if n_components is None else positive(n_components, "n_components")
        matrix = self._sampling.gather(values.reshape(len(values), -1))
        coefficients = self._coefficients(matrix, min(length, self.n_components_))
        result = self._average(flat, coefficients, far)
        return like(result[:, 0] if values.ndim == 1 else result, Y)

    def project(self, Y: Any, n_iter: int = 1, *, n_full: int = 1, far: str | None = None) -> Any:
        r"""Nystrom projection of points onto the manifold.

        :math:`\tilde\imath(y) = \sum_j p_j(y) C_j` with the coefficients C of the coordinate functions. Full
        iterations drift along the manifold into a few attracting points, so only the first `n_full` are full;
        the others remove the tangential part T T^T of the step,
        :math:`y \leftarrow y + (I - T T^T)(\tilde\imath(y) - y)`.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)
        n_iter : int, default=1
            Number of iterations.
        n_full : int, default=1
            How many of them are full.
        far : {"shift", "plain", "knn"}, optional
            Behaviour away from the samples; default: that of the constructor.

        Returns
        -------
        array or Tensor (B, *shape)

        Warns
        -----
        MedialAxisWarning
            If a point lies about as near to two far-apart places of the manifold (see `is_ambiguous`).
        """
        flat = self._query(Y)
        positive(n_iter, "n_iter")
        if n_full != 0:
            positive(n_full, "n_full", " or 0")
        if (count := int(self.is_ambiguous(flat).sum())) > 0:
            text = "points are about as near to two far-apart samples: their projection is ill-defined"
            warnings.warn(f"{count} of {len(flat)} {text}", MedialAxisWarning, stacklevel=2)
        for iteration in range(n_iter):
            step = self._average(flat, self._x_coefficients, far) - flat
            if iteration >= n_full:
                basis = self.tangent_basis(flat)
                step = step - (basis @ (basis.mT @ step[:, :, None]))[:, :, 0]
            flat = flat + step
        return like(flat.reshape(len(flat), *self.sample_shape_), Y)

    def distance(self, Y: Any) -> Any:
        """Distance (B,) of points to the manifold: from `Y` to its projection."""
        flat = self._query(Y)
        return like(torch.linalg.vector_norm(flat - self._average(flat, self._x_coefficients), dim=1), Y)

    def is_ambiguous(self, Y: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether points (B, *shape) lie near the medial axis, where their projection is ill-defined, as (B,)."""
        flat = self._query(Y)
        flags: np.ndarray[Any, np.dtype[np.bool_]] = near_medial_axis(self._map.to(flat.device), flat).cpu().numpy()
        return flags

    def tangent_basis(self, Y: Any, method: str | None = None) -> Any:
        """Orthonormal basis of the tangent space at points on (or near) the manifold.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)
            Project points first that are not near the manifold.
        method : {"sec", "pca", "smoothed"}, optional
            Default: `tangent_method`. "sec": smooth vector fields, stable under noise. "pca": principal
            directions of the nearest samples, the most accurate on clean data. "smoothed": those of the samples'
            projections under the Nystrom weights, for many dimensions.

        Returns
        -------
        array or Tensor (B, D, tangent_dimension_)
            Columns are ordered by how clearly they are tangent.

        Warns
        -----
        DegenerateTangentWarning
            If the directions found at a point do not span the dimension asked for.
        """
        flat = self._query(Y)
        method = self.tangent_method if method is None else choice(method, "method", TANGENT_METHODS)
        return like(tangent_basis(self, flat, method), Y)

    @property
    def exterior(self) -> ExteriorCalculus:
        """The exterior calculus behind ``tangent_basis(method="sec")``, made with its defaults when first asked for."""
        check_is_fitted(self)
        if self._exterior is None:
            self._exterior = ExteriorCalculus(self).fit()
        return self._exterior

    @property
    def _tangent_neighbors(self) -> int:
        wanted = self.n_tangent_neighbors or max(2 * self.n_neighbors_, 3 * self.tangent_dimension_)
        return min(len(self._sampling.points), max(wanted, self.tangent_dimension_ + 1))

    @property
    def _smoothed_points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Truncated series of the coordinates at the training points (u, r), in an orthonormal frame (D, r)."""
        if self._smoothed is None:
            frame, mixing = torch.linalg.qr(self._x_modes.T)
            functions = torch.from_numpy(self._functions[:, : self.n_projection_components_])
            self._smoothed = functions @ mixing.T, frame
        return self._smoothed

    def to_module(self, far: str | None = None) -> NystromLayer:
        """Return the projection as a differentiable torch layer, for use in ``nn.Sequential``.

        Parameters
        ----------
        far : {"shift", "plain", "knn"}, optional

        Returns
        -------
        NystromLayer
            ``layer(x)`` (B, *shape) -> (B, *shape), equal to ``project(x)``; its derivative is exact.
        """
        check_is_fitted(self)
        shape = self.sample_shape_
        mode = choice(far or self.far, "far", FAR_MODES)
        return NystromLayer(self._map, self._x_coefficients, shape, shape, mode, self.reduction)
