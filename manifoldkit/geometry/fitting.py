"""How a diffusion manifold is fitted, and how functions on it are averaged: the machinery behind the estimator."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .._arrays import as_tensor, chunks, flatten
from .._parallel import in_batches
from .._saving import SaveMixin
from ._diagnostics import warn_of_noise, warn_of_spectrum
from ._parameters import check_parameters
from ._validation import choice
from .adaptive import AdaptiveTangents
from .growth import wide_growth
from .kernels import SHAPES, KernelShape
from .matrix_free import BACKENDS
from .neighbors import Floats, neighbor_search
from .nystrom import FAR_MODES, NystromRow, Weights
from .sampling import Sampling, locality_order, sample_neighborhoods
from .scale import KernelScale, choose_scale, unit_area
from .selection import adapt_neighbors, choose_components, count_for
from .spectrum import Spectrum, diffusion_spectrum, laplacian_eigenvalues
from .support import connected_pieces, kernel_matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from .exterior import ExteriorCalculus

__all__ = ["DiffusionFit"]

logger = logging.getLogger("manifoldkit")

#: Markov eigenvalues below this are not divided by: the components are dropped.
LEAST_MARKOV = 0.05
#: Neighbours that a sparse kernel reaches, or twice those of the bandwidth, if that is more.
KERNEL_NEIGHBORS = 64
#: So many queries are worth sorting by place.
SORTED_QUERIES = 500
#: Least and largest extent of the samples.
EXTENTS = (1e-100, 1e100)
#: Components unless their number is given.
N_COMPONENTS = 64
#: Components of the projection need at least this Markov eigenvalue, unless their number is given.
PROJECTION_MARKOV = 0.2


class DiffusionFit(SaveMixin):
    """`fit` of :class:`DiffusionManifold`, and the sums over training points that its methods share."""

    n_components: int | None
    n_neighbors: int | str
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
    n_tangent_neighbors: int | None
    dense_limit: int
    reduction: str
    distance_components: float | None
    n_jobs: int | None
    random_state: Any
    n_features_in_: int

    #: Attributes that follow from the others, made when they are needed.
    MADE_LATER = ("_exterior", "_local_fits", "_smoothed", "_rows")

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
        EigenSolverError
            If the eigen-solver failed.
        """
        self.__dict__.pop("_row_options", None)  # a failed fit leaves the estimator unfitted
        points = self._validate_samples(X)
        k = self.n_neighbors_ = check_parameters(self, *points.shape)
        random_state, shape = check_random_state(self.random_state), SHAPES[self.kernel]
        dense = self.reduction in BACKENDS or (self.n_kernel_neighbors is None and len(points) <= self.dense_limit)
        search_k = self.n_neighbors == "auto" and self.epsilon == "knn" and self.n_kernel_neighbors is None
        wide = wide_growth(points, check_random_state(self.random_state)) if search_k else np.inf
        if search_k and not dense and isinstance(self.neighbors, str):
            k = self.n_neighbors_ = count_for(points, k, wide, check_random_state(self.random_state))
        reach = None if dense else self.n_kernel_neighbors or max(KERNEL_NEIGHBORS, 2 * k)
        sampling, lists = sample_neighborhoods(
            points,
            k,
            self.bandwidth,
            self.neighbors,
            reach,
            distance_components=self.distance_components,
            random_state=random_state,
            n_jobs=self.n_jobs,
        )
        del points  # overwritten
        if search_k and dense:
            rng = check_random_state(self.random_state)
            sampling, lists = adapt_neighbors(sampling, lists, self.bandwidth, wide, rng)
            k = self.n_neighbors_ = lists.n_neighbors
        if (self.n_kernel_neighbors or 0) > (found := lists.indices.shape[1] - 1) < len(sampling.points) - 1:
            raise ValueError(
                f"the graph of neighbours has a row of {found}, and {self.n_kernel_neighbors} neighbours are needed: "
                f"pass n_kernel_neighbors={found} or less, or a graph with longer rows"
            )
        self._sampling = sampling
        n_components = self.n_components or min(N_COMPONENTS, len(sampling.points))
        if n_components > len(sampling.points):
            raise ValueError(
                f"n_components={self.n_components} exceeds the {len(sampling.points)} distinct samples: pass fewer"
            )
        scale = choose_scale(sampling, lists, shape, self.epsilon, random_state)
        n_pieces = lists.n_pieces()
        self.bandwidth_, self.epsilon_ = sampling.spread(sampling.rho), float(np.sqrt(scale.eps2))
        self.scaling_curve_ = scale.curve
        kernel, support, shape = kernel_matrix(
            sampling,
            lists,
            shape,
            scale.eps2,
            dense=dense,
            gather=(gather := len(sampling.points) > self.dense_limit),
            reduction=self.reduction,
            device=X.device if isinstance(X, torch.Tensor) else "cpu",
        )
        del lists
        self.n_connected_components_ = connected_pieces(kernel)
        diagonal = float(sampling.weights @ sampling.weights) / float(sampling.weights @ (kernel @ sampling.weights))
        spectrum = diffusion_spectrum(
            kernel,
            sampling.weights,
            n_components,
            solver=self.eigen_solver,
            order=None if dense or isinstance(self.neighbors, str) else locality_order(sampling.points),
            random_state=random_state,
        )
        del kernel
        self._set_spectrum(spectrum, sampling, shape, scale, diagonal)
        warn_of_spectrum(self, spectrum.markov, LEAST_MARKOV, n_pieces)
        warn_of_noise(self, wide)
        self._x_modes = self._modes(sampling.ambient(), self.n_projection_components_)
        self._forget()
        self._row_options: dict[str, Any] = {
            "eps2": scale.eps2,
            "n_neighbors": k,
            "convention": self.bandwidth,
            "shape": shape,
            "support": support,
            "gather": gather,
        }
        return self

    def _forget(self) -> None:
        """Empty what is made when it is needed, see `MADE_LATER`."""
        self._exterior: ExteriorCalculus | None = None
        self._local_fits: AdaptiveTangents | None = None
        self._smoothed: tuple[torch.Tensor, torch.Tensor] | None = None
        self._rows: dict[str, NystromRow] = {}

    def _saved_state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.MADE_LATER}

    @classmethod
    def _restored(cls, state: dict[str, Any]) -> Self:
        made = object.__new__(cls)
        made.__dict__.update(state)
        made._forget()
        return made

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_row_options")

    @property
    def eigenfunctions_(self) -> Floats:
        """Eigenfunctions at the training samples (n, N)."""
        return self._sampling.spread(self._functions)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again when it is needed: it shares arrays, or lives on a device the reader lacks."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        if "_rows" in state:
            state = {**state, **dict.fromkeys(self.MADE_LATER), "_rows": {}}
        return state

    def _validate_samples(self, X: Any) -> Floats:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().double().numpy()
        array = np.asarray(X)
        shape = array.shape
        if len(shape) > 2:
            X = array.reshape(shape[0], -1)
        points: Floats = validate_data(self, X, dtype=np.float64, ensure_min_samples=2, copy=True)
        self.sample_shape_ = tuple(shape[1:])
        extent = float(np.ptp(points, axis=0).max())
        if extent == 0:
            raise ValueError(f"X is constant: all {len(points)} samples are equal, which is no manifold to learn")
        if not EXTENTS[0] < extent < EXTENTS[1]:
            raise ValueError(f"X spans {extent:.1e}, whose powers floating-point numbers cannot hold: rescale it")
        return points

    def _set_spectrum(
        self, spectrum: Spectrum, sampling: Sampling, shape: KernelShape, scale: KernelScale, diagonal: float
    ) -> None:
        markov = spectrum.markov
        usable = int(np.sum(np.cumprod(markov >= LEAST_MARKOV)))
        self.n_components_ = self._n_features_out = usable
        self.markov_eigenvalues_ = markov[:usable]
        # row by row, as queries read them
        self._functions = np.ascontiguousarray(spectrum.functions[:, :usable])
        self._measure = spectrum.measure
        self.measure_ = sampling.spread(spectrum.measure / sampling.weights)
        clear = max(1, int(np.sum(self.markov_eigenvalues_ > PROJECTION_MARKOV)))
        self._n_smooth, self.dimension_ = choose_components(
            sampling,
            self._functions[:, :clear],
            self._measure,
            laplacian_eigenvalues(
                self.markov_eigenvalues_[:clear],
                shape,
                self._area_unit(sampling, shape, scale, "physical", scale.dimension, diagonal),
            ),
            scale,
            SHAPES[self.kernel],
            check_random_state(self.random_state),
            self.n_neighbors_,
        )
        self.tangent_dimension_ = self.dimension or int(np.clip(round(self.dimension_), 1, self.n_features_in_))
        d = self.dimension or (self.dimension_ if self.units == "physical" else self.tangent_dimension_)
        self._unit = self._area_unit(sampling, shape, scale, self.units, d, diagonal)
        self.eigenvalues_ = laplacian_eigenvalues(self.markov_eigenvalues_, shape, self._unit)
        self.n_projection_components_ = min(self.n_projection_components or self._n_smooth, usable)

    def _area_unit(
        self, sampling: Sampling, shape: KernelShape, scale: KernelScale, units: str, d: float, diagonal: float
    ) -> float:
        """The time of one step of the diffusion, c A: what turns Markov eigenvalues into those of the Laplacian."""
        area = scale.eps2 * unit_area(sampling, units, d, self.n_neighbors_, self.bandwidth)
        return area * shape.constant(d) * (1 - shape.excess(d, diagonal))

    @property
    def _tangent_neighbors(self) -> int:
        wanted = self.n_tangent_neighbors or max(2 * self.n_neighbors_, 3 * self.tangent_dimension_)
        return min(len(self._sampling.points), max(wanted, self.tangent_dimension_ + 1))

    @property
    def _adaptive(self) -> AdaptiveTangents:
        """The local fits behind ``tangent_basis(method="auto")``, chosen when first asked for."""
        if self._local_fits is None:
            sampling = self._sampling
            points, search = sampling.points, sampling.search
            if sampling.images is not None:  # tangent spaces are those of the samples, whatever measures distances
                points = sampling.images - sampling.frame.center
                search = neighbor_search(points)
            self._local_fits = AdaptiveTangents(points, self.tangent_dimension_, search)
            logger.info("tangent spaces: %d candidates compared at %d samples", *self._local_fits.compared)
        return self._local_fits

    @property
    def _smoothed_points(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Truncated series of the coordinates at the training points (u, r), in an orthonormal frame (D, r)."""
        if self._smoothed is None:
            frame, mixing = torch.linalg.qr(self._x_modes.T)
            functions = torch.from_numpy(self._functions[:, : self.n_projection_components_])
            self._smoothed = functions @ mixing.T, frame
        return self._smoothed

    def _modes(self, values: Floats, n_components: int) -> torch.Tensor:
        """Generalised Fourier coefficients (N, q) of `values` (u, q): inner products in the measure."""
        functions = self._functions[:, :n_components]
        return torch.from_numpy((functions * self._measure[:, None]).T @ values)

    def _series(self, modes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the Nystrom weights average so that the truncated series of `modes` (L, q) comes out.

        A table (u, L) whose average is to be multiplied by the second tensor (L, q); or, if q is the smaller number,
        the product of the two as the table.
        """
        length = len(modes)
        functions = torch.from_numpy(self._functions[:, :length])
        scaled = modes / torch.from_numpy(self.markov_eigenvalues_[:length, None])
        return (functions, scaled) if length < modes.shape[1] else (functions @ scaled, None)

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
        """The Nystrom weights on `device`; on the CPU they share the arrays of the fit."""
        if str(device) not in self._rows:
            self._rows[str(device)] = NystromRow(self._sampling, **self._row_options).to(device)
        return self._rows[str(device)]

    def _average(
        self, flat: torch.Tensor, table: torch.Tensor, modes: torch.Tensor | None = None, far: str | None = None
    ) -> torch.Tensor:
        """Nystrom averages (B, q) of `table` (u, q) at `flat` (B, D), times `modes`, in pieces that fit in memory."""
        mode = choice(self.far if far is None else far, "far", FAR_MODES)
        out: torch.Tensor = in_batches(partial(_averages, self, table.to(flat.device), mode), flat, self.n_jobs)
        return out if modes is None else out @ modes.to(flat.device)

    def _transform(
        self, flat: torch.Tensor, weights: Weights | None = None, n_components: int | None = None
    ) -> torch.Tensor:
        """The first eigenfunctions (B, N) at `flat` (B, D), with its Nystrom weights if they are at hand."""
        table = torch.from_numpy(self._functions[:, :n_components])
        averages = self._average(flat, table) if weights is None else weights.average(table.to(flat.device))
        return averages / torch.from_numpy(self.markov_eigenvalues_[:n_components]).to(flat.device)


def _averages(manifold: DiffusionFit, table: torch.Tensor, far: str, flat: torch.Tensor) -> torch.Tensor:
    row = manifold._row(flat.device)
    out = flat.new_empty(len(flat), table.shape[1])
    sort = row.gather and len(flat) >= SORTED_QUERIES  # near queries find the same samples in the cache
    order = torch.from_numpy(locality_order(row.coordinates(flat).cpu().numpy())).to(flat.device) if sort else None
    with torch.no_grad():
        for part in chunks(len(flat), row.bytes_per_query):
            some = part if order is None else order[part]
            out[some] = row.average(flat[some], table, far, manifold.reduction)
    return out
