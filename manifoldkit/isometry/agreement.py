"""How well a learned operator agrees with a known one: eigenspaces, blocks, and the Laplacian of a discrete torus."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..datasets._validation import check_count

__all__ = ["eigenspace_energy", "off_block_energy", "toric_harmonics"]


def toric_harmonics(height: int, width: int) -> tuple[Tensor, Tensor]:
    r"""Spectrum of the Laplacian of a periodic grid, whose eigenspaces every cyclic shift maps into themselves.

    :math:`\lambda_{pq} = 4 - 2 \cos(2 \pi p / h) - 2 \cos(2 \pi q / w)`, with products of cosines and sines as
    eigenfunctions.

    Parameters
    ----------
    height, width : int
        h and w.

    Returns
    -------
    eigenvalues : Tensor (h w,), float64
        Ascending.
    eigenfunctions : Tensor (h w, h w), float64
        In columns, orthonormal; places in the order of ``image.flatten()``.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive integer.

    Examples
    --------
    >>> from manifoldkit.isometry import toric_harmonics
    >>> toric_harmonics(4, 4)[0].round(decimals=6).unique(return_counts=True)
    (tensor([0., 2., 4., 6., 8.], dtype=torch.float64), tensor([1, 4, 6, 4, 1]))
    """
    (rows, row_waves), (columns, column_waves) = (
        _circle(check_count(size, name)) for size, name in ((height, "height"), (width, "width"))
    )
    eigenvalues = (rows[:, None] + columns[None, :]).flatten()
    order = eigenvalues.argsort(stable=True)
    return eigenvalues[order], torch.kron(row_waves, column_waves)[:, order]


def eigenspace_energy(
    eigenfunctions: Tensor, reference_values: Tensor, reference_functions: Tensor
) -> tuple[Tensor, Tensor]:
    """Largest share of each learned eigenfunction inside one eigenspace of a known operator.

    Parameters
    ----------
    eigenfunctions : Tensor (N, k)
        In columns, of any length.
    reference_values : Tensor (n,)
        Eigenvalues of the known operator; those closer than 1e-6 share an eigenspace.
    reference_functions : Tensor (N, n)
        Its orthonormal eigenfunctions.

    Returns
    -------
    energy : Tensor (k,)
        On the device of the learned functions. From 0 to 1: 1 is a function inside an eigenspace.
    space : Tensor (k,), int64
        The eigenspace with that share, counted from the lowest eigenvalue.

    Raises
    ------
    TypeError, ValueError
        If an argument is no tensor, the shapes do not fit, or the learned functions are not finite.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import eigenspace_energy
    >>> learned = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> eigenspace_energy(learned, torch.tensor([0.0, 2.0, 2.0]), torch.eye(3))
    (tensor([0.5000, 0.5000, 1.0000]), tensor([0, 0, 1]))
    """
    for name, value in (
        ("eigenfunctions", eigenfunctions),
        ("reference_values", reference_values),
        ("reference_functions", reference_functions),
    ):
        _check_tensor(value, name)
    n = len(reference_values)
    reference_values, reference_functions = (
        reference.to(eigenfunctions.device) for reference in (reference_values, reference_functions)
    )
    if eigenfunctions.ndim != 2 or reference_functions.shape != (len(eigenfunctions), n):
        raise ValueError(
            f"learned (N, k) and known eigenfunctions (N, n) and values (n,) do not fit: got "
            f"{tuple(eigenfunctions.shape)}, {tuple(reference_functions.shape)} and {tuple(reference_values.shape)}"
        )
    values, order = reference_values.sort()
    space = torch.cat([values.new_zeros(1), (values.diff() > 1e-6).to(values.dtype)]).cumsum(0).long()
    if not torch.isfinite(eigenfunctions).all():
        raise ValueError("eigenfunctions hold NaN or infinity: the training has diverged")
    unit = torch.nn.functional.normalize(eigenfunctions.to(reference_functions.dtype), dim=0)
    shares = (reference_functions[:, order].mT @ unit).square()
    energy, best = shares.new_zeros(int(space[-1]) + 1, shares.shape[1]).index_add_(0, space, shares).max(dim=0)
    return energy, best


def off_block_energy(tau: Tensor, space: Tensor) -> Tensor:
    """Share of the squared norm of linear maps that joins different eigenspaces.

    Parameters
    ----------
    tau : Tensor (B, k, k)
    space : Tensor (k,)
        Eigenspace of each coordinate, as from :func:`eigenspace_energy`.

    Returns
    -------
    Tensor (B,)
        From 0, block-diagonal, to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is no tensor, the shapes do not fit, or a map is zero or not finite.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import off_block_energy
    >>> off_block_energy(torch.ones(1, 2, 2), torch.tensor([0, 1]))
    tensor([0.5000])
    """
    _check_tensor(tau, "tau")
    _check_tensor(space, "space")
    space = space.to(tau.device)
    if tau.ndim != 3 or tau.shape[1:] != (len(space), len(space)):
        raise ValueError(f"tau must have shape (B, {len(space)}, {len(space)}), got {tuple(tau.shape)}")
    square = tau.square()
    total = square.sum(dim=(1, 2))
    if not ((total > 0) & torch.isfinite(total)).all():
        raise ValueError("some maps are zero, NaN or infinite, and have no share of anything: leave those out")
    return (square * (space[:, None] != space[None, :])).sum(dim=(1, 2)) / total


def _check_tensor(value: Any, name: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}: use torch.as_tensor")


def _circle(size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues (size,) and orthonormal eigenfunctions (size, size) of the Laplacian of a cycle."""
    place = torch.arange(size, dtype=torch.float64)
    waves = [torch.ones_like(place)]
    frequencies = [0]
    for frequency in range(1, size // 2 + 1):
        angle = 2.0 * torch.pi * frequency * place / size
        waves.append(torch.cos(angle))
        frequencies.append(frequency)
        if 2 * frequency < size:  # the fastest wave of an even cycle has no sine
            waves.append(torch.sin(angle))
            frequencies.append(frequency)
    basis = torch.nn.functional.normalize(torch.stack(waves, dim=1), dim=0)
    return 2.0 - 2.0 * torch.cos(2.0 * torch.pi * torch.tensor(frequencies, dtype=torch.float64) / size), basis
