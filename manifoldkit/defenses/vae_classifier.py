"""A variational autoencoder and a classifier that share an encoder."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from .._modules import evaluating
from ..geometry.decoder import _home
from ..isometry._input import cell_ids, check_size, finite_samples, fresh
from ..priors._random import normal
from ..priors._training import minimise

__all__ = ["Prior", "VAEClassifier", "train_vae_classifier"]


class Prior(Protocol):
    """A density of codes, such as :class:`~manifoldkit.priors.GridPrior`."""

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log-density (...) of codes (..., m)."""


class VAEClassifier(nn.Module):
    r"""A variational autoencoder with a classifier on its codes, whose evidence lower bound says how usual a sample is.

    .. math:: \mathrm{ELBO}(x) = E_{z \sim q(z|x)}[\log p(x|z)] - D_{KL}(q(z|x) \,|\, p(z)), \qquad
              p(x|z) = N(f(z), \sigma_x^2 I)

    Trained on all three terms of :meth:`loss`, so that the class and what the decoder shows go together where the
    density is high; :func:`~manifoldkit.defenses.purify` then moves an attacked sample uphill. The answer of a call is
    that of the classifier at the mean code, so that attacks take the module as it is.

    Parameters
    ----------
    encoder : Module
        Samples (B, ...) to means and log-variances (B, 2 m), in this order.
    decoder : Module
        Codes (B, m) to samples (B, ...) or (B, D).
    head : Module
        Codes (B, m) to logits (B, c).
    obs_sigma : float, default=0.25
        :math:`\sigma_x`, standard deviation of a pixel. Purification is well posed only if the reconstruction
        outweighs the divergence: with :math:`\sigma_x = 1/\sqrt2` (plain squared error) and no bound it drags every
        image of a small data set to the same one.
    prior : object with log_prob, optional
        Density of the codes; standard normal by default, whose divergence is exact. Others are averaged over the
        codes drawn.

    Raises
    ------
    ValueError
        If `obs_sigma` is not positive; in the call, if encoder, decoder or prior answer in a wrong shape.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023, equations (29) and (30).
    .. [2] Yang, Xu, Zhang, Hartley and Tu, "Adversarial purification with the manifold hypothesis", arXiv 2210.14404.

    Examples
    --------
    >>> vae = VAEClassifier(nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(2, 3))
    >>> vae(torch.zeros(5, 4)).shape, vae.elbo(torch.zeros(5, 4)).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    #: Log-variances of codes are clamped to this range.
    LOGVAR_RANGE = (-12.0, 4.0)

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        *,
        obs_sigma: float = 0.25,
        prior: Prior | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(obs_sigma) and obs_sigma > 0):
            raise ValueError(f"obs_sigma must be positive, got {obs_sigma!r}")
        for name, network in (("encoder", encoder), ("decoder", decoder), ("head", head)):
            if not isinstance(network, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(network).__name__}")
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.obs_sigma = float(obs_sigma)
        self.prior = prior

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and log-variances (B, m) of the codes of samples (B, ...)."""
        answer = self.encoder(x)
        if answer.ndim != 2 or answer.shape[1] % 2:
            raise ValueError(
                f"the encoder must answer with means and log-variances (B, 2 m), got {tuple(answer.shape)}"
            )
        mu, logvar = answer.chunk(2, dim=1)
        return mu, logvar.clamp(*self.LOGVAR_RANGE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, c) at the mean codes."""
        result: torch.Tensor = self.head(self.encode(x)[0])
        return result

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Decoded mean codes, in the shape of x."""
        result: torch.Tensor = self.decoder(self.encode(x)[0])
        return result.reshape(x.shape)

    def elbo(self, x: torch.Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> torch.Tensor:
        """Evidence lower bound (B,) in nats from that many codes a sample; 0 takes the mean code, without chance.

        Differentiable by x.
        """
        n_samples = check_size(n_samples, "n_samples", 0)
        mu, logvar = self.encode(x)
        return self._elbo(x, mu, logvar, self._codes(mu, logvar, n_samples, generator))

    def loss(
        self, x: torch.Tensor, y: torch.Tensor, lam: float = 8.0, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        r"""Mean of :math:`-\mathrm{ELBO}(x) - \lambda \log h_y(z)` over a batch, one code z a sample.

        Labels y (B,) are integers in 0..c-1, others an error.
        """
        mu, logvar = self.encode(x)
        z = self._codes(mu, logvar, 1, generator)
        logits = self.head(z[0])
        nats = functional.cross_entropy(logits, _classes(y, len(x), logits))
        return lam * nats - self._elbo(x, mu, logvar, z).mean()

    @staticmethod
    def _codes(
        mu: torch.Tensor, logvar: torch.Tensor, n_samples: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """Codes (S, B, m)."""
        if n_samples == 0:
            return mu[None]
        return mu + (logvar / 2).exp() * normal((n_samples, *mu.shape), mu, fresh(generator))

    def _elbo(self, x: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        shown = self.decoder(z.flatten(0, 1)).flatten(1)
        if shown.shape != (len(z) * len(x), flat.shape[1]):
            raise ValueError(
                f"the decoder must answer with {flat.shape[1]} numbers a code, the entries of a sample, got "
                f"{tuple(shown.shape[1:])}"
            )
        shown = shown.reshape(len(z), *flat.shape)
        squares = (shown - flat).square().sum(-1).mean(0)
        constant = flat.shape[1] * math.log(2 * math.pi * self.obs_sigma**2)
        likelihood = -0.5 * (squares / self.obs_sigma**2 + constant)
        if self.prior is None:
            return likelihood - 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
        entropy = 0.5 * (logvar + 1 + math.log(2 * math.pi)).sum(1)
        density = self.prior.log_prob(z)
        if density.shape != z.shape[:-1]:
            raise ValueError(
                f"prior.log_prob must map codes (..., {z.shape[-1]}) to (...), got {tuple(density.shape)} for "
                f"{tuple(z.shape)}: a distribution of torch for each axis goes into torch.distributions.Independent"
            )
        return likelihood + density.mean(0) + entropy


def _classes(y: Any, n: int, logits: torch.Tensor) -> torch.Tensor:
    """Labels (n,), int64, of classes that the logits (..., c) have."""
    labels = cell_ids(y, n, "y", logits.device)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(f"y must lie in 0..{logits.shape[-1] - 1}, the classes of the head, got {low}..{high}")
    return labels


def train_vae_classifier(
    vae: VAEClassifier,
    X: Any,
    y: Any,
    *,
    lam: float = 8.0,
    steps: int = 1500,
    batch_size: int = 128,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> torch.Tensor:
    """Train encoder, decoder and head together by Adam on :meth:`VAEClassifier.loss`.

    Parameters
    ----------
    vae : VAEClassifier
        Its parameters are changed; its mode is kept.
    X : tensor or array (N, ...)
        Samples.
    y : ints (N,)
        Classes.
    lam : float, default=8.0
        Weight of the cross entropy, in units of nats of the whole image.
    steps, batch_size : int, default=1500, 128
        Number of updates, samples in each, drawn with repetition.
    lr : float, default=1e-3
        Learning rate.
    generator : torch.Generator, optional
        Source of batches and codes; None is a fresh one.
    progress : bool, default=False
        Show a bar.

    Returns
    -------
    Tensor (steps,)
        Loss of each batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, X holds NaN, y does not fit, or the loss becomes NaN.

    Examples
    --------
    >>> vae = VAEClassifier(nn.Linear(2, 2), nn.Linear(1, 2), nn.Linear(1, 2))
    >>> X = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> losses = train_vae_classifier(vae, X, [0, 1], steps=300, lr=0.02, batch_size=16)
    >>> bool(losses[-50:].mean() < losses[0])
    True
    """
    if not lam >= 0:
        raise ValueError(f"lam must not be negative, got {lam!r}")
    generator = fresh(generator)
    if not isinstance(vae, VAEClassifier):
        raise TypeError(f"vae must be a VAEClassifier, got {type(vae).__name__}")
    data = finite_samples(X, "X")
    data = data.to(_home(vae, vae, data.float()))
    try:
        with torch.no_grad(), evaluating(vae):
            logits = vae(data[:1])
    except RuntimeError as error:
        raise ValueError(f"the networks do not take samples {('B', *data.shape[1:])}, those of X: {error}") from error
    labels = _classes(y, len(data), logits)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        chosen = rows.to(data.device)
        return vae.loss(data[chosen], labels[chosen], lam, generator)

    return minimise(
        loss, vae.parameters(), len(data), steps=steps, batch_size=batch_size, lr=lr, generator=generator,
        progress=progress, name="VAE-classifier",
    )  # fmt: skip
