"""`DiffusionManifold`: the manifold that data lie on, learned by conformally invariant diffusion maps."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._arrays import as_array, as_tensor, flatten, like
from .._saving import savable
from ..exceptions import MedialAxisWarning
from ._validation import choice, positive
from .exterior import ExteriorCalculus
from .fitting import DiffusionFit
from .landing import land
from .nystrom import FAR_MODES, NystromLayer, NystromRow
from .tangents import TANGENT_METHODS, neighbor_offsets, tangent_basis

__all__ = ["DiffusionManifold"]


@savable
class DiffusionManifold(DiffusionFit, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Learn the manifold that samples lie on, project points onto it, and move along it.

    The kernel of conformally invariant diffusion maps, with bandwidth :math:`\rho`,

    .. math:: K(x, y) = h\left(\frac{|x-y|^2}{\varepsilon^2 \rho(x) \rho(y)}\right), \qquad P = D^{-1} K,

    has eigenfunctions :math:`\phi_l` that converge to those of the Laplace-Beltrami operator of the conformal
    metric :math:`q^{2/d} g` (q: sampling density, d: dimension, g: the metric induced by the ambient space); for
    uniform samples to those of g. The Nystrom extension carries them, and every sampled function, to all of
    space; applied to the coordinates it is a differentiable projection onto the manifold.

    Parameters
    ----------
    n_components : int, optional
        Number of eigenfunctions, the constant one included. Default: 64, or all that there are and that can be used.
    n_neighbors : int or "auto", default="auto"
        k of the bandwidth function. "auto" is ``2 log2(n)``, rounded; on curves ``1.25 sqrt(n)``, at most 100, if
        that is more; up to 256 where so many samples resolve their noise; and up to `dense_limit` samples fewer, down
        to 6, where the kernel would join sheets that run close to each other. With another `epsilon` than "knn", or
        with `n_kernel_neighbors`, it is ``2 log2(n)``.
    epsilon : {"knn", "max"} or float, default="knn"
        Dimensionless global bandwidth. "knn": its square is twice the mean of delta^2 over the k nearest
        neighbours. "max": where the slope of the kernel sum is steepest, the textbook rule, which picks far too
        large a scale on as plain a set as the circle. Look at `scaling_curve_` before you trust it.
    dimension : int, optional
        Dimension of tangent spaces. Default: `dimension_`, rounded. Strong noise raises that estimate, and above some
        four dimensions it is too low (a sphere of 5 dimensions and 2,000 samples shows 3.8), so pass what you know.
    bandwidth : {"mean", "kth"}, default="mean"
        Mean distance to the k nearest neighbours, or the distance of the k-th.
    kernel : {"exp(-z)", "exp(-z/2)", "exp(-z/4)", "indicator"}, default="exp(-z)"
        Shape function h. The indicator gives a piecewise constant extension.
    units : {"physical", "volume1"}, default="physical"
        Units of `eigenvalues_`: of g (its inverse squared length, by the mean log bandwidth), or of the metric
        :math:`q^{2/d} g` with total volume 1 (needs the dimension).
    n_projection_components : int, optional
        Components used by `project` and `extend`; fewer filter noise. Default: those with Markov eigenvalue
        above 0.2, up to the first that carries noise instead of shape.
    far : {"shift", "plain", "knn"}, default="shift"
        Behaviour away from the samples, see :class:`~manifoldkit.geometry.NystromRow`.
    tangent_method : {"auto", "sec", "pca", "smoothed"}, default="auto"
        Default of `tangent_basis`.
    n_tangent_neighbors : int, optional
        Neighbours of the local methods "pca" and "smoothed". Default: ``max(2 k, 3 d)``.
    neighbors : str, object with ``kneighbors``, index of faiss, or sparse graph, default="auto"
        Neighbour engine. Exact: "auto" (a "tree" up to 15 coordinates, "brute" above), "faiss", "keops" (on a CUDA
        device). Approximate: "faiss-hnsw", "faiss-ivf", "pynndescent"; what they find is measured exactly. Engines
        and faiss indexes from outside must be built on the samples. A sparse graph (n, n) of distances, as from
        scikit-learn's ``kneighbors_graph(X, k, mode="distance")``, says which samples are neighbours; new points, of
        which it knows nothing, find theirs by "auto", and so do samples among which copies had to be merged.
    eigen_solver : {"auto", "lapack", "arpack", "lobpcg"} or callable, default="auto"
        Eigen-solver. "lobpcg", for sparse kernels, works on a hierarchy of aggregates, and is the choice of "auto"
        from 10,000 samples on in few dimensions. A callable takes the symmetric matrix and the number of
        pairs. Whoever solves, each pair must satisfy its equation to 2e-4 of 1 - lambda.
    n_kernel_neighbors : int, optional
        End the kernel, smoothly, at about the distance of this neighbour, a third further where points are isolated:
        in many dimensions only this keeps the diffusion local. (Where the data themselves, and not only the space, have
        dozens of dimensions, nothing does.) Good numbers are twice k for curves and surfaces, and 5 to 10 k in many
        dimensions. Default: every pair up to `dense_limit` samples, and ``max(64, 2 k)`` neighbours above.
    dense_limit : int, default=6000
        Up to this many samples the kernel is a full matrix, unless `n_kernel_neighbors` or `reduction` say otherwise.
    distance_components : int or float, optional
        Measure distances between the leading principal components of the samples, so many of them or so many that
        they explain this share (between 0 and 1) of the variance: a cheaper, less noisy distance of images. New
        points are mapped likewise, gradients included; projections have all coordinates. Default: distances are
        those of the samples as they are.
    reduction : {"torch", "chunked", "keops"}, default="torch"
        Engine of the kernel sums. "torch" makes matrices: of the kernel in `fit`, dense or sparse, and of the weights
        of some queries. The others keep every pair at every n, whatever `dense_limit`, in O(n) memory: "chunked" makes
        some rows of the full kernel at a time, "keops" compiles the sums when first used and wants a GPU (the fit runs
        on the device of X). Each multiplication with the kernel then takes n^2 exponentials.
    n_jobs : int, optional
        Number of joblib workers for neighbour lists, `transform`, `project`, `extend`, `distance` and
        `tangent_basis`: threads, or what ``joblib.parallel_config`` says (processes, Dask, Ray). Answers are those of
        one worker up to 1e-12. Batches below 1000 rows are not shared out.
    random_state : int, RandomState or None, default=0
        Start vector of ARPACK, rows of the scaling curve, and randomised principal components.

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
        Estimated dimension: slope of the kernel sum at `epsilon_`, of the points themselves or, if they are noisy,
        of the points smoothed with `n_projection_components_`.
    epsilon_ : float
    bandwidth_ : array (n,)
        rho at the training samples, a length.
    scaling_curve_ : array (2, q)
        Values of epsilon and the slope of the kernel sum there; its plateaus show the dimension.
    tangent_dimension_ : int
        Number of columns of `tangent_basis`.
    n_components_ : int
    n_projection_components_ : int
    n_neighbors_ : int
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

    def __init__(
        self,
        n_components: int | None = None,
        n_neighbors: int | str = "auto",
        epsilon: float | str = "knn",
        dimension: int | None = None,
        *,
        bandwidth: str = "mean",
        kernel: str = "exp(-z)",
        units: str = "physical",
        n_projection_components: int | None = None,
        far: str = "shift",
        tangent_method: str = "auto",
        n_tangent_neighbors: int | None = None,
        neighbors: Any = "auto",
        eigen_solver: Any = "auto",
        n_kernel_neighbors: int | None = None,
        dense_limit: int = 6000,
        reduction: str = "torch",
        distance_components: float | None = None,
        n_jobs: int | None = None,
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
        self.distance_components = distance_components
        self.n_jobs = n_jobs
        self.random_state = random_state

    def transform(self, X: Any) -> Any:
        """Diffusion coordinates of new points: the Nystrom extension of the eigenfunctions.

        Equals `eigenfunctions_` at the training samples, to 1e-5 where these were found by "lobpcg". The first column
        is the constant 1.

        Parameters
        ----------
        X : array or Tensor (B, *shape)

        Returns
        -------
        array or Tensor (B, n_components_)
        """
        flat = self._query(X, "X")
        return like(self._transform(flat), X)

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
        flat, values = self._query(Y), self._known(F)
        length = self.n_projection_components_ if n_components is None else positive(n_components, "n_components")
        if length > self.n_components_:
            raise ValueError(f"n_components={length} exceeds the {self.n_components_} fitted ones")
        modes = self._modes(values, length)
        result = self._average(flat, *self._series(modes), far)
        return like(result[:, 0] if np.ndim(F) == 1 else result, Y)

    def local_average(self, F: Any, Y: Any, *, far: str | None = None) -> Any:
        r"""Mean of a function over the training samples near each point, :math:`\sum_j p_j(x) f_j`.

        The same weights as in `extend`, which are not negative and add up to 1, but of f itself instead of its series:
        smoother, and never outside the range of f. So it gives the spread of values nearby, as the mean of the
        squares less the square of the mean; the series of a function that jumps overshoots, and the difference of two
        of them may be negative.

        Parameters
        ----------
        F : array or Tensor (n,) or (n, q)
            Values at the training samples.
        Y : array or Tensor (B, *shape)
        far : {"shift", "plain", "knn"}, optional

        Returns
        -------
        array or Tensor (B,) or (B, q), of the kind of `Y`

        Examples
        --------
        >>> import numpy as np
        >>> t = 2 * np.pi * np.arange(200) / 200
        >>> m = DiffusionManifold(n_components=9).fit(np.column_stack([np.cos(t), np.sin(t)]))
        >>> m.local_average(t > 3, [[1.0, 1.0], [-1.0, -1.0]]).round(2)
        array([0., 1.])
        """
        flat, values = self._query(Y), self._known(F)
        result = self._average(flat, torch.from_numpy(values), far=far)
        return like(result[:, 0] if np.ndim(F) == 1 else result, Y)

    def _known(self, F: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Values (n,) or (n, q) at the training samples as (u, q) at the distinct ones."""
        values = as_array(F, "F")
        if values.ndim not in (1, 2) or len(values) != len(self.eigenfunctions_):
            raise ValueError(
                f"F must hold a value or a row for each of the {len(self.eigenfunctions_)} training samples, "
                f"got shape {values.shape}"
            )
        return self._sampling.gather(values.reshape(len(values), -1))

    def project(self, Y: Any, n_iter: int = 1, *, n_full: int = 1, far: str | None = None) -> Any:
        r"""Nystrom projection of points onto the manifold.

        :math:`\tilde\imath(y) = \sum_j p_j(y) C_j` with the coefficients C of the coordinate functions. Full
        iterations drift along the manifold into a few attracting points, so only the first `n_full` are full;
        the others remove the tangential part T T^T of the step,
        :math:`y \leftarrow y + (I - T T^T)(\tilde\imath(y) - y)`. No gradient flows; for that take `to_module`.

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
        array or Tensor, of the shape of `Y`

        Warns
        -----
        MedialAxisWarning
            If a point lies about as near to two far-apart places of the manifold (see `is_ambiguous`).
        """
        flat = self._query(Y)
        positive(n_iter, "n_iter")
        if n_full != 0:
            positive(n_full, "n_full", " or 0")
        for iteration in range(n_iter):
            landing = land(self, flat, far, tangents=iteration >= n_full)
            if iteration == 0 and (count := int(landing.ambiguous.sum())) > 0:
                text = "points are about as near to two far-apart samples: their projection is ill-defined"
                warnings.warn(f"{count} of {len(flat)} {text}", MedialAxisWarning, stacklevel=2)
            step = landing.points - flat
            if landing.basis is not None:
                step = step - (landing.basis @ (landing.basis.mT @ step[:, :, None]))[:, :, 0]
            flat = flat + step
        return like(flat.reshape(Y.shape if hasattr(Y, "shape") else np.shape(Y)), Y)

    def project_with_tangents(self, Y: Any) -> tuple[Any, Any]:
        """``project(Y)`` and ``tangent_basis(Y)``, which share most of their cost; nothing is said of ambiguous points.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)

        Returns
        -------
        points : array or Tensor, of the shape of `Y`
        basis : array or Tensor (B, D, tangent_dimension_)
            At `Y`, not at its projection.
        """
        landing = land(self, self._query(Y), tangents=True)
        assert landing.basis is not None
        points = landing.points.reshape(Y.shape if hasattr(Y, "shape") else np.shape(Y))
        return like(points, Y), like(landing.basis, Y)

    def distance(self, Y: Any) -> Any:
        """Distance (B,) of points to the manifold: from `Y` to its projection.

        Where that is less than the samples allow, near the medial axis, it is the distance to the projection of the
        nearest sample.
        """
        flat = self._query(Y)
        landing = land(self, flat)
        result = torch.linalg.vector_norm(flat - landing.points, dim=1)
        # A projection near the medial axis is a mean of far-apart samples and may be nearer than all of the manifold.
        lost = result < landing.least
        if lost.any():
            nearest = torch.from_numpy(self._sampling.ambient(landing.nearest[lost].cpu().numpy())).to(flat)
            result[lost] = torch.linalg.vector_norm(flat[lost] - land(self, nearest).points, dim=1)
        return like(result, Y)

    def is_ambiguous(self, Y: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether points (B, *shape) lie near the medial axis, where their projection is ill-defined, as (B,)."""
        flags: np.ndarray[Any, np.dtype[np.bool_]] = land(self, self._query(Y)).ambiguous.cpu().numpy()
        return flags

    def boundary_score(self, Y: Any) -> Any:
        """How one-sided the neighbourhoods of points are: length of the mean offset over the mean distance.

        The neighbourhoods are those of 40 samples, or k if that is more. In the interior the score is about 0.2, at
        an edge 0.5 to 1. Eigenfunctions have no slope across an edge, so that fields are poor within one bandwidth of
        it and suspect within three.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)

        Returns
        -------
        array or Tensor (B,)
        """
        flat = self._query(Y)
        count = min(max(self.n_neighbors_, 40), len(self._sampling.points))
        offsets = neighbor_offsets(self, flat, count)
        lengths = torch.linalg.vector_norm(offsets, dim=2).mean(dim=1)
        return like(torch.linalg.vector_norm(offsets.mean(dim=1), dim=1) / lengths, Y)

    def tangent_basis(self, Y: Any, method: str | None = None, *, return_singular_values: bool = False) -> Any:
        """Orthonormal basis of the tangent space at points on (or near) the manifold.

        Parameters
        ----------
        Y : array or Tensor (B, *shape)
            Project points first that are not near the manifold.
        method : {"auto", "sec", "pca", "smoothed"}, optional
            Default: `tangent_method`. "auto": local fits of first or second degree, whose neighbourhoods follow the
            noise, the curvature and the edges (:class:`~manifoldkit.geometry.adaptive.AdaptiveTangents`); above 12
            dimensions, or with a few dozen samples, it is "pca". "sec": smooth vector fields. "pca": principal
            directions of `n_tangent_neighbors` samples. "smoothed": those of the samples' projections under the
            Nystrom weights, for many dimensions.
        return_singular_values : bool, default=False
            Also return how clearly each direction is tangent.

        Returns
        -------
        basis : array or Tensor (B, D, tangent_dimension_)
        singular_values : array or Tensor (B, tangent_dimension_)
            Descending; only if asked for. A last one far below the first says that the directions do not span.

        Raises
        ------
        ValueError
            If there are fewer fields or neighbours than dimensions.

        Warns
        -----
        DegenerateTangentWarning
            If the directions found at a point do not span the dimension asked for.

        Notes
        -----
        The first call of "auto" compares neighbourhoods at up to 1,024 samples, whatever the number of queries: a
        second for a surface in space, some ten for images. The others begin at once.
        """
        flat = self._query(Y)
        method = self.tangent_method if method is None else choice(method, "method", TANGENT_METHODS)
        basis, values = tangent_basis(self, flat, method)
        return (like(basis, Y), like(values, Y)) if return_singular_values else like(basis, Y)

    @property
    def exterior(self) -> ExteriorCalculus:
        """The exterior calculus behind ``tangent_basis(method="sec")``, made with its defaults when first asked for."""
        check_is_fitted(self)
        if self._exterior is None:
            self._exterior = ExteriorCalculus(self).fit()
        return self._exterior

    def to_module(self, far: str | None = None) -> NystromLayer:
        """Return the projection as a differentiable torch layer, for use in ``nn.Sequential``.

        Parameters
        ----------
        far : {"shift", "plain", "knn"}, optional

        Returns
        -------
        NystromLayer
            ``layer(x)`` (B, *shape) -> (B, *shape), equal to ``project(x)``; its derivative is exact. A copy: moving,
            casting or loading it leaves the manifold alone. With ``far="knn"``, or above `dense_limit` samples in many
            dimensions, it is smooth in pieces only: there a far sample may be no candidate yet when its weight begins.
            Gradients do not see the jumps.
        """
        check_is_fitted(self)
        mode = choice(self.far if far is None else far, "far", FAR_MODES)
        table, modes = self._series(self._x_modes)
        row = NystromRow(self._sampling, **self._row_options)
        if not row.gather and self.reduction == "torch":
            row.search = None  # all distances are computed
        return copy.deepcopy(NystromLayer(row, table.clone(), self.sample_shape_, mode, self.reduction, modes))
