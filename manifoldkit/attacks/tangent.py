"""What attacks ask of a manifold, checked, and the two parts of a change: along the manifold and away from it."""

from __future__ import annotations

from typing import cast

import torch

from manifoldkit.attacks.constraints import unit
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = [
    "apply",
    "bases",
    "check_orthonormal",
    "checked",
    "choose",
    "coefficients",
    "tangent_normal_split",
    "tangent_share",
]


def tangent_normal_split(v: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tangent and normal part of vectors, which add up to them.

    Parameters
    ----------
    v : Tensor (B, ...)
    basis : Tensor (B, D, d)
        Orthonormal columns (or zero ones), D entries of a sample.

    Returns
    -------
    tangent, normal : Tensor (B, ...)

    Examples
    --------
    >>> basis = torch.tensor([[[1.0], [0.0]]])
    >>> tangent_normal_split(torch.tensor([[3.0, 4.0]]), basis)
    (tensor([[3., 0.]]), tensor([[0., 4.]]))
    """
    if basis.ndim != 3 or basis.shape[:2] != (len(v), v[0].numel()):
        raise ValueError(f"basis must have shape ({len(v)}, {v[0].numel()}, d), got {tuple(basis.shape)}")
    check_orthonormal(basis, "the columns of basis")
    tangent = apply(basis, coefficients(basis, v.flatten(1))).reshape(v.shape)
    return tangent, v - tangent


def tangent_share(change: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Share ``|T T^T v|^2 / |v|^2`` of each change (B, ...) that is tangent, (B,) in [0, 1]; 0 for no change.

    Examples
    --------
    >>> tangent_share(torch.tensor([[3.0, 4.0]]), torch.tensor([[[1.0], [0.0]]]))
    tensor([0.3600])
    """
    tangent = apply(basis, coefficients(basis, unit(change).flatten(1)))
    return tangent.square().sum(dim=1).clamp_max(1)


def choose(manifold: Manifold | LabelledManifold, members: torch.Tensor | None) -> Manifold:
    """The manifold itself, or the members of a family that the samples belong to."""
    if members is None:
        return cast("Manifold", manifold)
    return cast("LabelledManifold", manifold).at(members)


def coefficients(basis: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """T^T v: (B, D, d), (B, D) -> (B, d)."""
    return torch.einsum("bik,bi->bk", basis, vectors)


def apply(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """T c: (B, D, d), (B, d) -> (B, D)."""
    return torch.einsum("bik,bk->bi", basis, coefficients)


def checked(value: object, x: torch.Tensor, name: str, shape: tuple[int | None, ...]) -> torch.Tensor:
    """The answer of a manifold in the dtype and device of `x`, or an error that names the manifold as its cause."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"the manifold's {name} must return a tensor when given one, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(e is None or e == s for e, s in zip(shape, value.shape, strict=True))
    if not fits:
        expected = "(" + ", ".join("d" if e is None else str(e) for e in shape) + ")"
        raise ValueError(f"the manifold's {name} must return shape {expected}, got {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"the manifold's {name} returned NaN or infinity: fit it on data like these images")
    return value.detach().to(x)


def bases(value: object, x: torch.Tensor) -> torch.Tensor:
    """Tangent bases (B, D, d) from a manifold, checked as :func:`checked` does, and orthonormal."""
    basis = checked(value, x, "tangent_basis", (len(x), x[0].numel(), None))
    check_orthonormal(basis, "the columns of the manifold's tangent_basis")
    return basis


def check_orthonormal(basis: torch.Tensor, name: str) -> None:
    """Refuse bases (B, D, d) whose columns are not orthonormal, the columns of zeros at the end apart."""
    wide = basis if basis.dtype == torch.float64 else basis.float()
    gram = wide.mT @ wide
    lengths = gram.diagonal(dim1=1, dim2=2)
    expected = torch.diag_embed((lengths > 0.5).to(gram))
    error = (gram - expected).abs().amax() if gram.numel() else 0.0
    if error > 1e-3 + 2 * torch.finfo(basis.dtype).eps:  # numbers of two bytes round by more
        raise ValueError(
            f"{name} must be orthonormal (or zero), but T^T T is off by {float(error):.3g}: take the Q of "
            "torch.linalg.qr"
        )
