"""`IsometricAutoencoder`: coordinates that keep lengths, and the way back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from .._arrays import as_tensor
from .._modules import evaluating
from ..geometry.coded import CodedManifold
from ._input import check_size
from .networks import ACTIVATIONS, MLP, Normalised, ShapedDecoder, TiedDecoder
from .penalties import CODE_LAWS, DecoderIsometry, EncoderIsometry, Penalty
from .solvers import Objective, isomap_codes, principal_codes, regress, run_adam, run_lbfgs

__all__ = ["IsometricAutoencoder"]

Record = dict[str, float]
_ISOMAP_LIMIT = 3000
_ROUND = 100  # iterations of L-BFGS with the same random draws
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class IsometricAutoencoder(CodedManifold):
    r"""Learn codes whose decoder is a local isometry and whose encoder is the projection: a non-linear PCA.

    .. math:: L = \frac1n \sum_i |f(g(x_i)) - x_i|^2 + \lambda\, E_{z,u} (|df(z) u| - 1)^2
                  + \lambda\, E_{x,u} (|u^\top dg(x)| - 1)^2

    with g the encoder, f the decoder, u uniform on the unit sphere. Lengths of curves are then the same among codes and
    samples, as far as the curvature of the data allows. The model is a manifold as well
    (:class:`~manifoldkit.geometry.DecoderManifold`): every attack and metric of the library runs on it.

    With the defaults, made for surfaces of up to some thousands of samples, small smooth networks begin at Isomap
    coordinates and are trained by L-BFGS in double precision, in rounds with fixed random draws. For images take
    ``solver="adam"`` with a `batch_size`, ``dtype="float32"``, ``init=None`` and networks of your own.

    Parameters
    ----------
    n_components : int, default=2
        d, at most the number of entries of a sample.
    encoder, decoder : torch.nn.Module, optional
        Networks (B, *shape) -> (B, d) -> (B, *shape) of your own, of which copies are trained; perceptrons with layers
        `hidden` by default. ``decoder="tied"`` uses the transposed weights of a perceptron encoder. Weights with
        ``requires_grad=False`` stay as they are.
    hidden : sequence of int, default=(64, 64)
        Widths of the encoder's layers; the decoder's are the reverse. The source has (256,) * 5 for surfaces.
    activation : {"tanh", "softplus"} or callable, default="tanh"
        "softplus" is the source's, of sharpness 100, nearly a ReLU; a callable makes a Module.
    isometry_weight : float, default=0.1
        :math:`\lambda`; the source has 0.01 to 0.5. It is weighed against the squared error of a whole sample, which
        the normalisation below lets begin at about D; on images take ``normalize=False``, as the source does.
    penalties : sequence of callables, optional
        Other terms in the place of the two isometric ones, see :mod:`manifoldkit.isometry.penalties`; () is the plain
        autoencoder. :func:`baseline` gives those of the literature.
    codes : {"gaussian", "box", "between"}, default="gaussian"
        Where the decoder is to be isometric, see :class:`DecoderIsometry`.
    corruption : float, default=0.0
        Standard deviation of noise on the encoder's input, relative to normalised samples (denoising autoencoder).
    solver : {"lbfgs", "adam"}, default="lbfgs"
        Rounds of L-BFGS on all samples, or Adam on batches.
    init : {"isomap", "pca"}, None or array (n, d), default="isomap"
        Codes that encoder and decoder are first fitted to by least squares, in the units of the samples; None begins
        at random weights. A frozen encoder has its codes already, which the decoder is fitted to instead; a frozen
        decoder leaves no choice of codes, and the encoder begins at its weights.
    n_neighbors : int, default=10
        Of Isomap.
    max_iter : int, default=1500
        Iterations of L-BFGS after the initial fit, or epochs of Adam.
    batch_size : int, optional
        Samples of a step of Adam; all by default.
    learning_rate : float, default=1e-3
        Of Adam, from where it falls to zero as a cosine.
    normalize : bool, default=True
        Centre the samples and divide them by the root mean square of their entries while training; one factor for
        all, so that an isometry stays one. Codes and reconstructions are in the units of the samples.
    dtype : {"float64", "float32"}, default="float64"
        In which the networks compute.
    warm_start : bool, default=False
        Let `fit` go on from the networks (and the state of Adam) of the last call, also of one that was interrupted.
        For Adam, going on means more epochs, not the rest of those that were interrupted: each call has `max_iter` of
        them, over which the rate falls from `learning_rate` to zero anew. What made these networks (`encoder`,
        `decoder`, `hidden`, `activation`, `init`, `normalize`) is not looked at.
    random_state : int, RandomState or None, default=0
        Source of weights, batches and random vectors.
    callbacks : sequence of callables, default=()
        ``callback(model, record)`` after every round or epoch; the training ends when one returns True.
    progress : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        Trained networks, in the units of the samples.
    history_ : list of dict
        "loss", "reconstruction" and each penalty under its name after every round or epoch, in normalised units; a
        second penalty of the same name has "_2" behind it, and so on.
    n_iter_ : int
        Rounds or epochs done.
    sample_shape_ : tuple of int
    n_features_in_ : int

    Raises
    ------
    TypeError, ValueError
        If parameters are out of range, samples are NaN, networks do not fit the samples or have nothing to train, a
        warm start finds networks of another size or dtype, or the loss or a gradient becomes NaN; the weights are then
        those before the step (Adam) or the round (L-BFGS) that failed.

    References
    ----------
    .. [1] Gropp, Atzmon and Lipman, "Isometric autoencoders", 2020.

    Examples
    --------
    >>> from manifoldkit.datasets import make_s_curve
    >>> from manifoldkit.isometry import IsometricAutoencoder
    >>> X = make_s_curve(200, random_state=0).points
    >>> model = IsometricAutoencoder(2, hidden=(16,), max_iter=100).fit(X)
    >>> model.transform(X).shape, model.project(X).shape
    ((200, 2), (200, 3))
    """

    encoder_: Normalised
    decoder_: Normalised
    history_: list[Record]
    _optimizer: torch.optim.Optimizer | None
    _generator: torch.Generator

    def __init__(
        self,
        n_components: int = 2,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | str | None = None,
        hidden: Sequence[int] = (64, 64),
        activation: str | Callable[[], nn.Module] = "tanh",
        isometry_weight: float = 0.1,
        penalties: Sequence[Penalty] | None = None,
        codes: str = "gaussian",
        corruption: float = 0.0,
        solver: str = "lbfgs",
        init: Any = "isomap",
        n_neighbors: int = 10,
        max_iter: int = 1500,
        batch_size: int | None = None,
        learning_rate: float = 1e-3,
        normalize: bool = True,
        dtype: str = "float64",
        warm_start: bool = False,
        random_state: Any = 0,
        callbacks: Sequence[Callable[[IsometricAutoencoder, Record], Any]] = (),
        progress: bool = False,
    ) -> None:
        self.n_components = n_components
        self.encoder = encoder
        self.decoder = decoder
        self.hidden = hidden
        self.activation = activation
        self.isometry_weight = isometry_weight
        self.penalties = penalties
        self.codes = codes
        self.corruption = corruption
        self.solver = solver
        self.init = init
        self.n_neighbors = n_neighbors
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.normalize = normalize
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.callbacks = callbacks
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> IsometricAutoencoder:
        """Train on samples (n, *shape), numpy or torch; interrupted, the networks are kept, see `warm_start`."""
        going_on = self.warm_start and hasattr(self, "encoder_")
        rows, x = self._samples(X)
        self._check(x[0].numel())
        x, penalties = x.to(_DTYPES[self.dtype]), self._penalties()
        if going_on:
            self._goes_on(x)
            validate_data(self, rows, reset=False, skip_check_array=True)
        else:
            self._begin(rows, x)
        inner = _normalised(x, self.encoder_)
        encoder, decoder = self.encoder_.network, self.decoder_.network
        objective = Objective(encoder, decoder, penalties, self.corruption, self._generator)
        with evaluating(encoder, decoder):  # whatever a solver does to their mode
            if self.solver == "lbfgs":
                rounds = -(-self.max_iter // _ROUND)
                per_round = -(-self.max_iter // max(1, rounds))
                run_lbfgs(
                    objective, inner, rounds=rounds, iterations=per_round, watcher=self._watch, progress=self.progress
                )
            elif self.max_iter:
                if not going_on or self._optimizer is None:
                    self._optimizer = torch.optim.Adam(objective.parameters(), lr=self.learning_rate)
                for group in self._optimizer.param_groups:
                    group["lr"] = group["initial_lr"] = self.learning_rate
                run_adam(
                    objective, self._optimizer, inner, epochs=self.max_iter, batch_size=self.batch_size,
                    watcher=self._watch, progress=self.progress,
                )  # fmt: skip
        return self

    @property
    def n_iter_(self) -> int:
        """Rounds of L-BFGS or epochs of Adam done."""
        check_is_fitted(self, "history_")
        return len(self.history_)

    def _goes_on(self, x: torch.Tensor) -> None:
        """Refuse samples and parameters that the networks of the last call do not fit."""
        had = {
            "samples of shape": (self.sample_shape_, tuple(x.shape[1:])),
            "n_components": (self._n_features_out, self.n_components),
            "dtype": (self.encoder_.shift.dtype, x.dtype),
        }
        for name, (before, now) in had.items():
            if before != now:
                raise ValueError(f"warm_start goes on with {name} {before}, got {now}: set warm_start=False")
        self._refuse_frozen(self.encoder_, self.decoder_)

    def _begin(self, rows: Any, x: torch.Tensor) -> None:
        """Fresh networks around the samples; those of an earlier fit are kept until these have found their start."""
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(int(seed))
        shift = x.mean(dim=0) if self.normalize else torch.zeros_like(x[0])
        spread = float((x - shift).square().mean().sqrt()) if self.normalize else 1.0
        scale = torch.tensor(spread if spread > 0 else 1.0).to(x)
        shape = tuple(x.shape[1:])
        networks = self._networks(x[0].numel(), generator)
        weights = [p for network in networks for p in network.parameters()]
        home = torch.zeros(0, dtype=_DTYPES[self.dtype], device=weights[0].device if weights else "cpu")
        encoder, decoder = (
            Normalised(network, shift, scale, shape, encodes=encodes).to(home).eval()
            for network, encodes in zip(networks, (True, False), strict=True)
        )
        self._fits(x, encoder, decoder)
        self._refuse_frozen(encoder, decoder)
        if self.init is not None:
            self._start_at(_normalised(x, encoder), encoder, decoder, generator)
        validate_data(self, rows, skip_check_array=True)
        self.encoder_, self.decoder_ = encoder, decoder
        self.sample_shape_, self._n_features_out = shape, self.n_components
        self.history_, self._optimizer, self._generator = [], None, generator

    def _networks(self, size: int, generator: torch.Generator) -> tuple[nn.Module, nn.Module]:
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        if self.encoder is None:
            sizes = [size, *self.hidden, self.n_components]
            encoder: nn.Module = MLP(sizes, activation, generator=generator)
        else:
            encoder = copy.deepcopy(self.encoder)
        if self.decoder is None:
            sizes = [self.n_components, *reversed(self.hidden), size]
            return encoder, MLP(sizes, activation, generator=generator)
        if isinstance(self.decoder, str):
            return encoder, TiedDecoder(encoder)
        return encoder, copy.deepcopy(self.decoder)

    def _fits(self, x: torch.Tensor, encoder: Normalised, decoder: Normalised) -> None:
        """Refuse networks that do not fit the samples, and bring those that answer in vectors to their shape."""
        with torch.no_grad(), evaluating(encoder, decoder):
            codes = encoder(x[:2].to(encoder.shift))
            if codes.shape != (len(x[:2]), self.n_components):
                raise ValueError(
                    f"the encoder must return codes (B, {self.n_components}), got {tuple(codes.shape)} for "
                    f"{len(x[:2])} samples: set n_components to its number of outputs"
                )
            images = decoder.network(codes)
        if images.shape[0] != len(codes) or images[0].numel() != x[0].numel():
            raise ValueError(
                f"the decoder must return samples of shape {tuple(x.shape[1:])}, got {tuple(images.shape[1:])}"
            )
        if images.shape[1:] != x.shape[1:]:  # else the error would be one of all pairs of samples
            decoder.network = ShapedDecoder(decoder.network, tuple(x.shape[1:]))

    def _refuse_frozen(self, encoder: Normalised, decoder: Normalised) -> None:
        if self.max_iter and not (_learns(encoder) or _learns(decoder)):
            raise ValueError(
                "encoder and decoder have no weight to train: set requires_grad on some, or max_iter=0 to use the "
                "networks as they are"
            )

    def _start_at(
        self, inner: torch.Tensor, encoder: Normalised, decoder: Normalised, generator: torch.Generator
    ) -> None:
        """Fit the networks to the initial codes, as far as they are not frozen."""
        if not _learns(decoder.network):
            return
        with evaluating(encoder, decoder):
            if _learns(encoder.network):
                targets = self._initial_codes(inner, encoder, generator)
                regress(encoder.network, inner, targets, 3 * _ROUND)
            else:
                with torch.no_grad():
                    targets = encoder.network(inner)
            if not isinstance(getattr(decoder.network, "network", decoder.network), TiedDecoder):
                regress(decoder.network, targets, inner, 3 * _ROUND)

    def _initial_codes(self, inner: torch.Tensor, encoder: Normalised, generator: torch.Generator) -> torch.Tensor:
        """Codes that the training is to begin at, in normalised units."""
        flat = inner.flatten(1).double().cpu().numpy()
        if not isinstance(self.init, str):
            codes = (as_tensor(self.init, "init").cpu() / encoder.scale.double().cpu()).numpy()
            if codes.shape != (len(flat), self.n_components):
                raise ValueError(f"init must have shape {(len(flat), self.n_components)}, got {codes.shape}")
        elif self.init == "pca":
            codes = principal_codes(flat, self.n_components)
        else:
            rng = np.random.default_rng(int(torch.randint(2**31 - 1, (), generator=generator)))
            codes = isomap_codes(flat, self.n_components, self.n_neighbors, _ISOMAP_LIMIT, rng)
        return torch.from_numpy(np.ascontiguousarray(codes)).to(inner)

    def _penalties(self) -> Sequence[Penalty]:
        if self.penalties is not None:
            return self.penalties
        if not self.isometry_weight:
            return ()
        return (DecoderIsometry(self.isometry_weight, self.codes), EncoderIsometry(self.isometry_weight))

    def _watch(self, record: Record) -> bool:
        self.history_.append(record)
        answers = [callback(self, record) for callback in self.callbacks]
        return True in answers

    def _check(self, size: int) -> None:
        check_size(self.n_components, "n_components")
        if self.n_components > size:
            raise ValueError(
                f"n_components={self.n_components} exceeds the {size} entries of a sample: no isometry "
                "leads into a smaller space"
            )
        check_size(self.max_iter, "max_iter", 0)
        for name in ("encoder", "decoder"):
            network = getattr(self, name)
            tied = name == "decoder" and isinstance(network, str) and network == "tied"
            if not (network is None or tied or isinstance(network, nn.Module)):
                raise TypeError(f"{name} must be a torch.nn.Module or None, got {network!r}")
        if np.ndim(self.hidden) != 1:
            raise TypeError(
                f"hidden must be a sequence of the widths of the layers, such as (64, 64), got {self.hidden!r}"
            )
        if self.codes not in CODE_LAWS:
            raise ValueError(f"codes must be one of {CODE_LAWS}, got {self.codes!r}")
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be a callable or one of {tuple(ACTIVATIONS)}, got {self.activation!r}")
        if self.solver not in ("lbfgs", "adam"):
            raise ValueError(f"solver must be 'lbfgs' or 'adam', got {self.solver!r}")
        if isinstance(self.init, str) and self.init not in ("isomap", "pca"):
            raise ValueError(f"init must be 'isomap', 'pca', None or codes (n, d), got {self.init!r}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be 'float64' or 'float32', got {self.dtype!r}")
        if not 0 <= self.corruption < float("inf"):
            raise ValueError(f"corruption must be a finite number >= 0, got {self.corruption!r}")


def _normalised(x: torch.Tensor, encoder: Normalised) -> torch.Tensor:
    """Samples in the units in which the networks are trained, where they are trained."""
    return (x.to(encoder.shift.device) - encoder.shift) / encoder.scale


def _learns(network: nn.Module) -> bool:
    return any(p.requires_grad for p in network.parameters())
