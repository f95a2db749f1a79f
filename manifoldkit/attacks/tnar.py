"""Directions in which a network is locally most sensitive, along a manifold and away from it (TNAR)."""

from __future__ import annotations

from typing import Any

import torch

from manifoldkit._arrays import Array, like
from manifoldkit.attacks._input import (
    column,
    read_generator,
    read_images,
    read_manifold,
    read_module,
    read_number,
    read_radius,
    read_steps,
)
from manifoldkit.attacks._model import Network, as_found, check_logits
from manifoldkit.attacks.constraints import draw, unit
from manifoldkit.attacks.losses import cross_entropy
from manifoldkit.attacks.tangent import apply, bases, coefficients
from manifoldkit.geometry.protocol import Manifold

__all__ = ["tnar_normal", "tnar_tangent"]


def tnar_tangent(
    model: torch.nn.Module,
    manifold: Manifold,
    images: Array,
    eps: Any,
    *,
    n_power: int = 10,
    generator: torch.Generator | None = None,
) -> Any:
    r"""Tangent change of length `eps` that moves the network's predicted probabilities most, to second order.

    .. math:: r = \epsilon\, T c, \qquad c = \arg\max_{|c| = 1} c^\top T^\top H T c,

    H the Hessian in r of :math:`\mathrm{KL}(p(\cdot \mid x) \,\|\, p(\cdot \mid x + r))` at r = 0, by power iterations
    with Hessian-vector products. The source solves the same problem in the coordinates of a decoder, with a linear
    system in each iteration; with an orthonormal basis T there is none to solve. The sign of r is that of a random
    start; as extra starts of an attack, pass ``start=x + r`` and ``start=x - r``.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    manifold : Manifold
        Gives the tangent basis T at the images.
    images : tensor or array of shape (B, ...)
    eps : float or array of shape (B,)
        Length of the change.
    n_power : int, default=10
        Power iterations, each at the cost of three passes through the network.
    generator : torch.Generator, optional
        Source of the random start; None is a fresh one.

    Returns
    -------
    tensor or array of shape (B, ...)
        The changes r; zero where the network does not react at all, or the manifold has dimension 0.

    References
    ----------
    .. [1] Yu et al., "Tangent-normal adversarial regularization for semi-supervised learning", CVPR 2019.

    Examples
    --------
    >>> from manifoldkit.geometry.exact import Plane
    >>> model = torch.nn.Linear(3, 2)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0, 9.0], [0.0, 0.0, 0.0]]))
    >>> r = tnar_tangent(model, Plane(torch.eye(3)[:, :2]), torch.zeros(1, 3), eps=0.5)
    >>> abs(r).round(decimals=3)
    tensor([[0.3000, 0.4000, 0.0000]])
    """
    read_manifold(manifold)
    with torch.inference_mode(False), torch.no_grad(), as_found(read_module(model, "model")):
        x = read_images(images, *Network(model, cross_entropy, False).home(), None)
        basis = bases(manifold.tangent_basis(x), x)
        if basis.shape[2] == 0:  # a manifold of points has no tangent change
            return like(_sized(torch.zeros_like(x), eps), images)
        c = draw(basis[:, 0, :], _source(generator), normal=True)
        for _ in range(read_steps(n_power, "n_power", 1)):
            c = coefficients(basis, _hessian_product(model, x, apply(basis, unit(c)).reshape(x.shape)).flatten(1))
        r = apply(basis, unit(c)).reshape(x.shape)
        return like(_sized(r, eps), images)


def tnar_normal(
    model: torch.nn.Module,
    images: Array,
    eps: Any,
    tangent: Array,
    *,
    lam: float = 0.0,
    n_power: int = 10,
    generator: torch.Generator | None = None,
) -> Any:
    r"""Change of length `eps`, orthogonal to one tangent change, that moves the predicted probabilities most.

    Power iterations :math:`r \leftarrow (I - \hat t \hat t^\top) H r + \lambda r` with the unit vector :math:`\hat t`
    of the change given. It is orthogonal to that one vector only, not to the tangent space; for that,
    see :class:`SubspacePGD` with ``component="normal"``.

    Parameters
    ----------
    model, images, eps, n_power, generator
        As for :func:`tnar_tangent`.
    tangent : tensor or array of shape (B, ...)
        The change to be orthogonal to, from :func:`tnar_tangent`.
    lam : float, default=0.0
        Shift of the power iteration; not negative. The source has 1. H is positive semi-definite, so that none is
        needed, and one that is large beside the eigenvalues of H hardly lets the iteration move.

    Returns
    -------
    tensor or array of shape (B, ...)
        The changes r; zero where the network does not react off the tangent at all (with ``lam=0``).

    References
    ----------
    .. [1] Yu et al., "Tangent-normal adversarial regularization for semi-supervised learning", CVPR 2019.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 2)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> r = tnar_normal(model, torch.zeros(1, 2), 0.5, torch.tensor([[0.1, 0.0]]))
    >>> abs(r).round(decimals=3)
    tensor([[0.0000, 0.5000]])
    """
    read_number(lam, "lam", 0)
    with torch.inference_mode(False), torch.no_grad(), as_found(read_module(model, "model")):
        x = read_images(images, *Network(model, cross_entropy, False).home(), None)
        away = unit(read_images(tangent, x.device, x.dtype, None))
        if away.shape != x.shape:
            raise ValueError(f"tangent must have the shape of the images, {tuple(x.shape)}, got {tuple(away.shape)}")
        r = _without(unit(draw(x, _source(generator), normal=True)), away)
        for _ in range(read_steps(n_power, "n_power", 1)):
            r = unit(r)
            r = _without(_hessian_product(model, x, r), away) + lam * r
        return like(_sized(unit(_without(r, away)), eps), images)


def _hessian_product(model: torch.nn.Module, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """H v for every sample, (B, ...): twice back through KL(p(x) || p(x + r)) at r = 0."""
    with torch.enable_grad():
        r = torch.zeros_like(x, requires_grad=True)
        log_p = torch.log_softmax(check_logits(model(x + r), len(x)), dim=1)
        p = log_p.detach().exp()
        (gradient,) = torch.autograd.grad(-(p * log_p).sum(), r, create_graph=True)
        if not gradient.requires_grad:
            raise ValueError("the network cannot be differentiated twice: look for detach() in its forward")
        (product,) = torch.autograd.grad((gradient * v).sum(), r)
    if not torch.isfinite(product).all():
        raise ValueError("the Hessian of the network's output by the image is NaN or infinite")
    return product


def _without(r: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
    return r - away * column((r * away).flatten(1).sum(dim=1), r)


def _sized(r: torch.Tensor, eps: Any) -> torch.Tensor:
    radius = read_radius(eps, "eps")
    if radius.ndim and len(radius) != len(r):
        raise ValueError(f"eps holds {len(radius)} radii for {len(r)} images: give one each, or a single number")
    return column(radius.expand(len(r)), r) * r


def _source(generator: torch.Generator | None) -> torch.Generator:
    generator = read_generator(generator)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator
