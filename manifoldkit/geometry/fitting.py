"""How a diffusion manifold is fitted, and how functions on it are averaged: the machinery behind the estimator."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .._arrays import as_tensor, chunks, flatten
from ._diagnostics import warn_of_spectrum
from ._parameters import check_parameters
from ._validation import choice
from .kernels import SHAPES
from .neighbors import Floats
from .nystrom import FAR_MODES, NystromRow
from .sampling import Sampling, sample_neighborhoods
from .scale import choose_scale, unit_area
from .spectrum import Spectrum, diffusion_spectrum, laplacian_eigenvalues
from .support import connected_pieces, kernel_matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from .adaptive import AdaptiveTangents
    from .exterior import ExteriorCalculus

__all__ = ["DiffusionFit"]

#: Markov eigenvalues below this are not divided by: the components are dropped.
LEAST_MARKOV = 0.05
#: Components of the projection need at least this Markov eigenvalue, unless their number is given.
PROJECTION_MARKOV = 0.2
#: Most components of the projection by default, by dimension: more let noise pass.
PROJECTION_COMPONENTS = {1: 15, 2: 60}


class DiffusionFit:
    """`fit` of :class:`DiffusionManifold`, and the sums over training points that its methods share."""

    n_components: int
    epsilon: float | str
    dimension: int | None
    bandwidth: str
    kernel: str
    units: str
    n_projection_components: int | None
    far: str
    neighbors: Any
    eigen_solver: Any
    n_kernel_neighbors: int | None
    dense_limit: int
    reduction: str
    random_state: Any
    n_features_in_: int

    def fit(self, X: Any, y: Any = None) -> Self:
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
        self.__dict__.pop("_map", None)  # a failed fit leaves the estimator unfitted
        points = self._validate_samples(X)
        k = self.n_neighbors_ = check_parameters(self, *points.shape)
        random_state, shape = check_random_state(self.random_state), SHAPES[self.kernel]
        sampling = self._sampling = sample_neighborhoods(points, k, self.bandwidth, self.neighbors)
        if self.n_components > len(sampling.points):
            raise ValueError(
                f"n_components={self.n_components} exceeds the {len(sampling.points)} distinct samples: pass fewer"
            )
        scale = choose_scale(sampling, shape, self.epsilon, random_state)
        self.bandwidth_, self.epsilon_ = sampling.spread(sampling.rho), float(np.sqrt(scale.eps2))
        self.dimension_, self.scaling_curve_ = scale.dimension, scale.curve
        self.tangent_dimension_ = self.dimension or int(np.clip(round(self.dimension_), 1, self.n_features_in_))
        kernel, support = kernel_matrix(
            sampling,
            shape,
            scale.eps2,
            n_neighbors=k,
            n_kernel_neighbors=self.n_kernel_neighbors,
            dense_limit=self.dense_limit,
        )
        self.n_connected_components_ = connected_pieces(kernel)
        spectrum = diffusion_spectrum(
            kernel, sampling.weights, self.n_components, solver=self.eigen_solver, random_state=random_state
        )
        del kernel
        self._set_spectrum(spectrum, sampling, scale.eps2)
        row = NystromRow(
            sampling,
            eps2=scale.eps2,
            n_neighbors=k,
            convention=self.bandwidth,
            shape=shape,
            support=support,
            gather=len(sampling.points) > self.dense_limit,
        )
        self._x_coefficients = self._coefficients(sampling.points, self.n_projection_components_)
        self._x_modes = self._modes(sampling.points, self.n_projection_components_)
        self._exterior: ExteriorCalculus | None = None
        self._local_fits: AdaptiveTangents | None = None
        self._smoothed: tuple[torch.Tensor, torch.Tensor] | None = None
        self._rows: dict[str, NystromRow] = {}
        self._map = row
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_map")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out copies on other devices, which the reader may not have."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {**state, "_rows": {}} if "_rows" in state else state

    def _validate_samples(self, X: Any) -> Floats:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().double().numpy()
        array = np.asarray(X)
        shape = array.shape
        if len(shape) > 2:
            X = array.reshape(shape[0], -1)
        points: Floats = validate_data(self, X, dtype=np.float64, ensure_min_samples=2, copy=True)
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
        clear = int(np.sum(self.markov_eigenvalues_ > PROJECTION_MARKOV))
        default = min(clear, PROJECTION_COMPONENTS.get(self.tangent_dimension_, clear))
        self.n_projection_components_ = max(1, min(self.n_projection_components or default, usable))
        warn_of_spectrum(self, markov, LEAST_MARKOV, sampling.n_pieces())

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
        vectors = len(self.sample_shape_) == 1 or hasattr(Y, "columns")
        if not isinstance(Y, torch.Tensor) and vectors and np.asarray(Y).ndim <= 2:
            Y = validate_data(self, Y, dtype=np.float64, reset=False)
        flat = flatten(as_tensor(Y, name), self.sample_shape_, name)
        if len(flat) == 0:
            raise ValueError(f"{name} is empty: found array with 0 samples, of shape {tuple(flat.shape)}")
        return flat

    def _row(self, device: torch.device) -> NystromRow:
        """The Nystrom weights on `device`; the one on the CPU is never moved."""
        if device.type == "cpu":
            return self._map
        if str(device) not in self._rows:
            self._rows[str(device)] = copy.deepcopy(self._map).to(device)
        return self._rows[str(device)]

    def _average(self, flat: torch.Tensor, values: torch.Tensor, far: str | None = None) -> torch.Tensor:
        """Nystrom averages (B, q) of `values` (u, q) at `flat` (B, D), cut into pieces that fit in memory."""
        mode = choice(self.far if far is None else far, "far", FAR_MODES)
        row, values = self._row(flat.device), values.to(flat.device)
        out = flat.new_empty(len(flat), values.shape[1])
        with torch.no_grad():
            for part in chunks(len(flat), row.bytes_per_query):
                out[part] = row.average(flat[part], values, mode, self.reduction)
        return out

    def _transform(self, flat: torch.Tensor, far: str | None = None) -> torch.Tensor:
        return self._average(flat, torch.from_numpy(self._functions / self.markov_eigenvalues_), far)
