"""`GridVAE`: codes whose axes are discrete symbols, with continuous variation inside a cell."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from .._arrays import as_tensor, flatten, like
from .._modules import evaluating
from ..datasets._validation import check_count, check_real
from ..geometry.coded import CodedManifold
from ..geometry.decoder import _home
from ..isometry.networks import MLP, ShapedDecoder, initialise
from ..isometry.solvers import run_adam
from ..isometry.training import batches
from .grid import GridPrior
from .kl import KL_MODES, matched_levels
from .objective import EvidenceLoss, GaussianEncoder

__all__ = ["GridVAE"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class GridVAE(CodedManifold):
    r"""Variational autoencoder whose prior is a mixture of Gaussians on a grid.

    .. math:: L = \frac1n \sum_i E_{q(z \mid x_i)} \frac{|x_i - f(z)|^2}{2 \sigma_x^2}
                  + \beta\, KL(q(z \mid x_i) \,\|\, p(z))

    Each axis of the codes becomes a symbol (:meth:`message`): a cell of the grid is a combination of symbols, and
    inside a cell codes vary continuously. Without attributes, which symbol stands for what depends on the random
    start; with them (`attributes` of :meth:`fit`) the cells are given. Trained, it is a manifold as well
    (:class:`~manifoldkit.geometry.DecoderManifold`): samples are projected through refined codes, and attacks can be
    kept in a cell or cross to others (:class:`~manifoldkit.attacks.CellPGD`).

    Parameters
    ----------
    prior : GridPrior
        ``GridPrior(n, [0.0], 1.0)`` with ``kl="nearest"`` makes it the usual variational autoencoder.
    encoder, decoder : torch.nn.Module, optional
        Networks (B, *shape) -> (B, 2n), means and then logarithms of variances, and (B, n) -> (B, *shape), of which
        copies are trained; perceptrons with layers `hidden` and ReLU by default.
    hidden : sequence of int, default=(256, 256)
        Widths of the encoder's layers; the decoder's are the reverse.
    kl : {"conditional", "aggregate", "nearest"}, default="conditional"
        Of :func:`grid_kl`.
    beta : float or callable, default=1.0
        Weight of the divergence; a function of the progress, from 0 to 1, is a schedule, such as
        :func:`~manifoldkit.isometry.annealed`.
    obs_sigma : float, default=0.25
        :math:`\sigma_x`, standard deviation of the decoder's Gaussian, in the units of the samples. It says how much
        of the variation is noise, and decides what the symbols stand for: a small one makes them tell apart what is
        large in squared error, be it meant or not.
    batch_size : int, default=256
        Most samples of a step; all batches of an epoch are about equally large.
    max_steps : int, default=3000
        Gradient steps, rounded up to whole epochs.
    learning_rate : float, default=1e-3
        Of Adam, from where it falls to zero as a cosine.
    n_init : int, default=1
        Runs from different random starts, of which the one with the least loss over the training samples is kept. No
        labels are looked at. The first begins at the weights of `encoder` and `decoder`, where given.
    init_steps : int, optional
        Gradient steps of each of these runs, of which the one with the least loss goes on for `max_steps` more, as if
        fitted again from its weights: many short starts cost less than many whole runs. None is whole runs. Both are
        rounded up to whole epochs, and schedules of beta and sigma run from end to end in either.
    dtype : {"float32", "float64"}, default="float32"
        In which the networks compute.
    random_state : int, RandomState or None, default=0
        Source of weights, batches and draws.
    progress : bool, default=False
        Show a progress bar for each run.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        Trained networks; ``encoder_(x)`` are means, ``encoder_.gaussian(x)`` means and logarithms of variances.
    losses_ : list of float
        Final loss of every run; with `init_steps` of every short one.
    loss_ : float
        The least of them; with `init_steps` that of the run that went on.
    history_ : list of dict
        Loss, reconstruction error and divergence after every epoch of the run that is kept; with `init_steps` after it
        went on.
    n_iter_ : int
        Its epochs.
    sample_shape_ : tuple of int
    n_features_in_ : int

    Raises
    ------
    TypeError, ValueError
        If parameters are out of range, samples are not finite, networks do not fit prior or samples, attributes are
        no levels, or the loss becomes NaN.

    Notes
    -----
    Source: [1]_, equations (24) to (28). There the networks are four-layer ResNets, and sigma_x is not stated.

    Without attributes what the symbols mean is a matter of the data, the training and the start, and the run of least
    loss need not be that of the best symbols. How well each `kl` names the digits of pairs without labels, beside a
    usual variational autoencoder and k-means, over many starts and for short and long training, is measured in
    ``benchmarks/gridvae.md``, with the few starts on which schedules of beta and of sigma were tried. On pairs of MNIST
    digits the best of eight short starts by the aggregate divergence (``n_init=8, init_steps=300``) did best: 68 %
    named right on average over ten seeds, whole runs 62 %.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers in
       Computer Science 5, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.priors import GridPrior, GridVAE
    >>> rng = np.random.default_rng(0)
    >>> symbols = rng.integers(3, size=(500, 2))
    >>> X = symbols @ rng.normal(size=(2, 5)) + 0.05 * rng.normal(size=(500, 5))
    >>> prior = GridPrior(2, levels=[0.0, 1.0, 2.0], sigma=0.2)
    >>> model = GridVAE(prior, hidden=(32,), obs_sigma=0.3, max_steps=300, learning_rate=0.01)
    >>> model = model.fit(X, attributes=symbols)
    >>> float((model.message(X) == symbols).mean())
    1.0
    """

    encoder_: GaussianEncoder
    decoder_: ShapedDecoder
    history_: list[dict[str, float]]

    def __init__(
        self,
        prior: GridPrior,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        hidden: Sequence[int] = (256, 256),
        kl: str = "conditional",
        beta: float | Callable[[float], float] = 1.0,
        obs_sigma: float = 0.25,
        batch_size: int = 256,
        max_steps: int = 3000,
        learning_rate: float = 1e-3,
        n_init: int = 1,
        init_steps: int | None = None,
        dtype: str = "float32",
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        self.prior = prior
        self.encoder = encoder
        self.decoder = decoder
        self.hidden = hidden
        self.kl = kl
        self.beta = beta
        self.obs_sigma = obs_sigma
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.n_init = n_init
        self.init_steps = init_steps
        self.dtype = dtype
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, *, attributes: Any = None) -> GridVAE:
        """Train on samples (n, *shape), numpy or torch.

        Parameters
        ----------
        X : array or tensor (n, *shape)
        y : None
            Ignored, as is a vector of targets; a table of attributes goes to `attributes`, by name.
        attributes : array or tensor (n, n_dims), optional
            Levels of the prior that samples have on the axes, NaN where unknown.
        """
        table = tuple(y.shape) if hasattr(y, "shape") else np.asarray(y).shape
        if len(table) == 2 and table[1] > 1:
            raise ValueError(f"y is ignored, got a table of shape {table}: pass attributes by name, attributes=...")
        rows, x = self._samples(X)
        self._check()
        x = x.to(_DTYPES[self.dtype])
        targets = None
        if attributes is not None:
            targets = matched_levels(attributes, self.prior, len(x), "attributes").to(x)
        size = -(-len(x) // -(-len(x) // min(self.batch_size, len(x))))
        if self.kl == "aggregate" and 1 in (size, len(x) % size):
            raise ValueError(
                f"kl='aggregate' compares the samples of a batch, and batch_size={self.batch_size} leaves a batch of "
                f"one of the {len(x)} samples: take a larger batch_size"
            )
        draws = check_random_state(self.random_state)
        seeds = [int(draws.randint(2**31 - 1)) for _ in range(self.n_init)]
        steps = self.max_steps if self.init_steps is None else self.init_steps
        losses: list[float] = []
        for run, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            networks = self._networks(x, generator, run > 0)
            objective, history = self._train(*networks, x, targets, size, steps, generator)
            losses.append(self._final(objective, size))
            if losses[-1] == min(losses):
                best, record = objective, history
        loss = min(losses)
        if self.init_steps is not None:
            generator = torch.Generator().manual_seed(seeds[0])
            best, record = self._train(best.encoder, best.decoder, x, targets, size, self.max_steps, generator)
            loss = self._final(best, size)
        validate_data(self, rows, skip_check_array=True)
        self.encoder_, self.decoder_ = best.encoder, best.decoder
        self.losses_, self.loss_, self.history_ = losses, loss, record
        self.sample_shape_, self._n_features_out = tuple(x.shape[1:]), self.prior.n_dims
        return self

    def message(self, X: Any) -> Any:
        """Symbols (B, n) of samples: on each axis the number, from 0, of the level nearest to the code; int64.

        The encoder is the sender of a language whose vocabulary on axis d are the levels of that axis.
        """
        x = self._query(X)
        index = self.prior.nearest(self._run(self.encoder_, x), return_index=True)[1]
        return index.to(X.device) if isinstance(X, torch.Tensor) else index.cpu().numpy()

    def traverse(self, Z: Any, dim: int, values: Any) -> Any:
        """Samples (B, V, *shape) of codes (B, n) whose entry `dim` takes the V values in turn."""
        check_is_fitted(self)
        codes = flatten(as_tensor(Z, "Z"), (self._n_features_out,), "Z")
        line = as_tensor(values, "values").to(codes.device)
        if line.ndim != 1 or len(line) == 0:
            raise ValueError(f"values must be a sequence of one number at least, got shape {tuple(line.shape)}")
        axis = check_count(dim, "dim", 0)
        if axis >= codes.shape[1]:
            raise ValueError(f"dim must be below {codes.shape[1]}, the number of axes, got {axis}")
        along = codes[:, None].repeat(1, len(line), 1)
        along[:, :, axis] = line
        images = self._run(self.decoder_, along.flatten(0, 1))
        return like(images.reshape(len(codes), len(line), *self.sample_shape_), Z)

    def sample(self, n: int, random_state: Any = None) -> Any:
        """Samples (n, *shape), float64 array: the decoder's means at codes drawn from the prior."""
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        codes = self.prior.sample(n, torch.Generator().manual_seed(seed))
        return self._run(self.decoder_, codes).double().cpu().numpy()

    @property
    def n_iter_(self) -> int:
        """Epochs of the run that is kept."""
        check_is_fitted(self, "history_")
        return len(self.history_)

    def _train(
        self,
        encoder: GaussianEncoder,
        decoder: ShapedDecoder,
        x: torch.Tensor,
        targets: torch.Tensor | None,
        size: int,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[EvidenceLoss, list[dict[str, float]]]:
        """One run."""
        home = _home(encoder, decoder, x).device
        objective = EvidenceLoss(
            encoder, decoder, self.prior, self.kl, self._weight, self.obs_sigma, x.to(home),
            None if targets is None else targets.to(home), generator,
        )  # fmt: skip
        if not any(parameter.requires_grad for parameter in objective.parameters()):
            raise ValueError("encoder and decoder have no parameter that requires a gradient: unfreeze one to train")
        epochs = -(-steps // -(-len(x) // size))
        objective.last = epochs * -(-len(x) // size)
        history: list[dict[str, float]] = []

        def watch(entry: dict[str, float]) -> bool:
            history.append(entry)
            return False

        with evaluating(encoder, decoder):
            run_adam(
                objective, torch.optim.Adam(objective.parameters(), lr=self.learning_rate),
                torch.arange(len(x), device=home), epochs=epochs, batch_size=size,
                watcher=watch, progress=self.progress,
            )  # fmt: skip
        for parameter in objective.parameters():
            parameter.grad = None
        return objective, history

    def _networks(
        self, x: torch.Tensor, generator: torch.Generator, fresh: bool
    ) -> tuple[GaussianEncoder, ShapedDecoder]:
        n, entries = self.prior.n_dims, x[0].numel()
        encoder: nn.Module
        decoder: nn.Module
        if self.encoder is None:
            encoder = MLP([entries, *self.hidden, 2 * n], nn.ReLU, generator=generator)
        else:
            encoder = copy.deepcopy(self.encoder)
        if self.decoder is None:
            decoder = MLP([n, *reversed(self.hidden), entries], nn.ReLU, generator=generator)
        else:
            decoder = copy.deepcopy(self.decoder)
        if fresh:
            for given, network in ((self.encoder, encoder), (self.decoder, decoder)):
                if given is not None:
                    initialise(network, generator)
        sender = GaussianEncoder(encoder, n).to(x.dtype).eval()
        receiver = ShapedDecoder(decoder, tuple(x.shape[1:])).to(x.dtype).eval()
        try:  # networks that do not fit are refused before the work begins
            with torch.no_grad():
                receiver(sender(x[:2].to(_home(sender, receiver, x).device)))
        except RuntimeError as error:
            raise ValueError(
                f"encoder and decoder must take samples {('B', *x.shape[1:])} to (B, {2 * n}) and codes (B, {n}) back: "
                f"{error}"
            ) from error
        return sender, receiver

    def _weight(self, progress: float) -> float:
        """Weight of the divergence at a share of the steps."""
        return check_real(self.beta(progress), "beta(progress)", 0.0) if callable(self.beta) else float(self.beta)

    def _final(self, objective: EvidenceLoss, size: int) -> float:
        """Loss over all samples with the same batches and draws for every run."""
        mine = objective.generator
        objective.generator = torch.Generator().manual_seed(0)
        with evaluating(objective.encoder, objective.decoder):
            loss = objective.evaluate(list(batches(len(objective.x), size, objective.generator)))
        objective.generator = mine
        return loss

    def _check(self) -> None:
        if not isinstance(self.prior, GridPrior):
            raise TypeError(f"prior must be a GridPrior, got {type(self.prior).__name__}")
        for name in ("encoder", "decoder"):
            network = getattr(self, name)
            if not (network is None or isinstance(network, nn.Module)):
                raise TypeError(f"{name} must be a torch.nn.Module or None, got {network!r}")
        if self.kl not in KL_MODES:
            raise ValueError(f"kl must be one of {KL_MODES}, got {self.kl!r}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be 'float32' or 'float64', got {self.dtype!r}")
        if not callable(self.beta):
            check_real(self.beta, "beta", 0.0)
        for name in ("obs_sigma", "learning_rate"):
            check_real(getattr(self, name), name, 0.0, open_low=True)
        for name in ("batch_size", "max_steps", "n_init"):
            check_count(getattr(self, name), name)
        if self.init_steps is not None:
            check_count(self.init_steps, "init_steps")
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str):
            raise TypeError(f"hidden must be a sequence of widths, such as (256, 256), got {self.hidden!r}")
        for width in self.hidden:
            check_count(width, "hidden")
