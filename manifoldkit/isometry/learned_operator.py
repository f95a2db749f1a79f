"""An operator on functions over a grid, learned: mass, eigenfunctions and eigenvalues."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..datasets._validation import check_count, check_real
from ._input import fresh
from .polar import polar

__all__ = ["LearnedOperator", "Spectrum", "commutation_mask"]

_MASS_FLOOR = 1e-8


class Spectrum(NamedTuple):
    """Mass (N,), eigenfunctions in the columns of (N, k), ascending eigenvalues (k,)."""

    mass: Tensor
    eigenfunctions: Tensor
    eigenvalues: Tensor

    def analyse(self, functions: Tensor) -> Tensor:
        """Coefficients (B, k, c) of functions (B, N, c) in the eigenfunctions."""
        return (self.mass[:, None] * self.eigenfunctions).mT @ functions

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Functions (B, N, c) with the coefficients (B, k, c)."""
        return self.eigenfunctions @ coefficients


class LearnedOperator(nn.Module):
    r"""A self-adjoint operator :math:`\Omega = \Phi \Lambda \Phi^\top M` on functions over N places, of rank k.

    Mass :math:`M = m^2 + 10^{-8}`; eigenfunctions :math:`\Phi = M^{-1/2} \operatorname{polar}(M^{1/2} U)`, so that
    :math:`\Phi^\top M \Phi = I`; eigenvalues :math:`\Lambda \ge 0`, ascending. Free parameters are m, U and the roots
    of the eigenvalues (or of their differences).

    Parameters
    ----------
    n_places : int
        N.
    n_eigenfunctions : int
        k, at most N.
    eigenvalues : {"cumulative", "clustered"}, default "cumulative"
        How they start, and what their parameters are: running sums of squares of draws from N(0, 1/k^2), about 0 to
        1/k, or squares of draws from N(0, 1), most of them near 0.
    generator : torch.Generator, optional
        Source of the initial values; None is a fresh one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import LearnedOperator
    >>> spectrum = LearnedOperator(16, 5, generator=torch.Generator().manual_seed(0))()
    >>> gram = spectrum.eigenfunctions.mT @ (spectrum.mass[:, None] * spectrum.eigenfunctions)
    >>> bool(torch.allclose(gram, torch.eye(5), atol=1e-5))
    True
    """

    def __init__(
        self,
        n_places: int,
        n_eigenfunctions: int,
        *,
        eigenvalues: Literal["cumulative", "clustered"] = "cumulative",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n, k = check_count(n_places, "n_places"), check_count(n_eigenfunctions, "n_eigenfunctions")
        if k > n:
            raise ValueError(
                f"n_eigenfunctions must be at most the {n} places of the grid, got {k}: no more functions than places "
                "can be orthogonal"
            )
        if eigenvalues not in ("cumulative", "clustered"):
            raise ValueError(f"eigenvalues must be 'cumulative' or 'clustered', got {eigenvalues!r}")
        self.cumulative = eigenvalues == "cumulative"
        generator = fresh(generator)
        self.root_mass = nn.Parameter(torch.ones(n))
        self.raw_eigenfunctions = nn.Parameter(0.01 * torch.randn(n, k, generator=generator))
        spread = 1.0 / k if self.cumulative else 1.0
        self.root_eigenvalues = nn.Parameter(spread * torch.randn(k, generator=generator))

    def forward(self) -> Spectrum:
        """Mass, eigenfunctions and eigenvalues, with gradients."""
        mass = self.root_mass.square() + _MASS_FLOOR
        root = mass.sqrt()[:, None]
        eigenfunctions = polar(root * self.raw_eigenfunctions) / root
        eigenvalues = self.root_eigenvalues.square()
        if self.cumulative:
            return Spectrum(mass, eigenfunctions, eigenvalues.cumsum(0))
        order = eigenvalues.argsort()
        return Spectrum(mass, eigenfunctions[:, order], eigenvalues[order])

    @torch.no_grad()
    def assign(self, eigenfunctions: Tensor, eigenvalues: Tensor) -> None:
        """Take these eigenfunctions (N, k), in columns, and ascending eigenvalues (k,) >= 0, in place.

        Functions that are not orthonormal with respect to the mass become the nearest that are.
        """
        for name, value in (("eigenfunctions", eigenfunctions), ("eigenvalues", eigenvalues)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}: use torch.as_tensor")
        if eigenfunctions.shape != self.raw_eigenfunctions.shape or eigenvalues.shape != self.root_eigenvalues.shape:
            raise ValueError(
                f"eigenfunctions must have shape {tuple(self.raw_eigenfunctions.shape)} and eigenvalues shape "
                f"{tuple(self.root_eigenvalues.shape)}, got {tuple(eigenfunctions.shape)}, {tuple(eigenvalues.shape)}"
            )
        if not torch.isfinite(eigenfunctions).all():
            raise ValueError("eigenfunctions contain NaN or infinity")
        steps = eigenvalues.diff(prepend=eigenvalues.new_zeros(1))
        if not (torch.isfinite(eigenvalues).all() and (steps >= 0).all()):
            raise ValueError(f"eigenvalues must be finite, >= 0 and ascending, got {eigenvalues}")
        self.raw_eigenfunctions.copy_(eigenfunctions)
        self.root_eigenvalues.copy_((steps if self.cumulative else eigenvalues).sqrt())

    def contract(self, factor: float) -> None:
        """Multiply all eigenvalues by a factor in (0, 1], in place.

        A second training then starts with eigenfunctions that are nearly right and a mask that forbids little: those
        eigenvalues unite that transport needs to be equal, even if the first had driven them apart.
        """
        with torch.no_grad():
            self.root_eigenvalues.mul_(check_real(factor, "factor", 0.0, 1.0, open_low=True) ** 0.5)


def commutation_mask(eigenvalues: Tensor) -> Tensor:
    r"""Weights :math:`P_{ij} = e^{-|\lambda_i - \lambda_j|}`, (k, k): near 1 where eigenvalues agree.

    Parameters
    ----------
    eigenvalues : Tensor (k,)

    Returns
    -------
    Tensor (k, k)

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import commutation_mask
    >>> commutation_mask(torch.tensor([0.0, 0.0, 40.0])).round()
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 1.]])
    """
    if eigenvalues.ndim != 1 or len(eigenvalues) == 0:
        raise ValueError(f"eigenvalues must have shape (k,), got {tuple(eigenvalues.shape)}")
    return torch.exp(-(eigenvalues[:, None] - eigenvalues[None, :]).abs())
