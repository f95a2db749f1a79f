"""A learned operator in closed form: the nearest to a mean of transformations that all of them leave as it is."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..datasets._validation import check_count, check_real
from ..exceptions import NoCommonOperatorWarning
from .neural_isometries import NeuralIsometry
from .pretraining import Views, check_views

__all__ = ["spectral_start"]

_RANK = 1e-9  # singular values below this share of the largest count as zero
_ROUGH = 0.1  # above this rest a warning
_SAME = 1e-5  # eigenvalues closer than this share of their range count as equal


@torch.no_grad()
def spectral_start(
    model: NeuralIsometry, views: Views, *, n_draws: int = 32, n_iterations: int = 30, gap: float = 5.0
) -> float:
    r"""Give a neural isometry the operator that transformations share, in place, for :func:`pretrain` to begin at.

    Let :math:`F_s` and :math:`F'_s` be the functions of an image, weighted by the root of the mass, before and after a
    transformation s. Without any operator, the orthogonal map that carries the one to the other is known where
    :math:`F_s` has components: :math:`T_s = W V^\top` from the singular vectors of :math:`F'_s F_s^\top` whose values
    are not zero; :math:`P_s = V V^\top` says where. An operator that transformations leave as it is obeys
    :math:`T_s^\top \Omega T_s = P_s \Omega P_s`. Of these the nearest to the mean
    :math:`C = \langle T_s + T_s^\top \rangle / 2`, the step of a random walk along the transformations (with unequal
    weights, the roots of 1, 2, ..., n), is

    .. math:: \Omega = C + \text{argmin}_X \{|X|_F : T_s^\top (C + X) T_s = P_s (C + X) P_s \text{ for all } s\},

    found by conjugate gradients. Its eigenfunctions are taken, those that change least along the walk first. Gradient
    descent from random functions gets stuck with some that mix two eigenspaces; from here it has none to find.

    Parameters
    ----------
    model : NeuralIsometry
        Its encoder is used as it is, in evaluation mode.
    views : object with `draw`
        As for :func:`pretrain`; of triplets the first two are used. At least about N channels are needed: with few,
        each map is known on few functions, and the conditions hold for too many operators.
    n_draws : int, default 32
        Transformations, of one thing each. Some tens: by their fluctuation eigenspaces get distinct eigenvalues that
        would have the same in the mean over all transformations.
    n_iterations : int, default 30
        Of conjugate gradients; each takes eight products N x N for each transformation.
    gap : float, default 5.0
        Mean distance of eigenvalues that differ; the mask of an isometry falls to 1/e over a distance of 1.

    Returns
    -------
    float
        Root mean square of what the conditions leave, relative to that of :math:`\Omega` less its mean eigenvalue (all
        orthogonal maps leave multiples of the identity as they are): 0 if all transformations are isometries of one
        operator, and of the order of 1 if the one found means nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range, the views are not pairs of finite images, they
        are the same before and after, or they set fewer conditions than an operator has entries.

    Warns
    -----
    NoCommonOperatorWarning
        If the answer is above 0.1.

    Notes
    -----
    Our addition to the source. Computed in float64, in memory of some 50 n_draws N^2 bytes.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.datasets import ShiftViews
    >>> from manifoldkit.isometry import NeuralIsometry, eigenspace_energy, spectral_start, toric_harmonics
    >>> views = ShiftViews(torch.randn(60, 4, 4, generator=torch.Generator().manual_seed(0)), 24, random_state=0)
    >>> model = NeuralIsometry((4, 4), 16, eigenvalues="clustered")
    >>> rest = spectral_start(model, views)
    >>> bool(eigenspace_energy(model.eigenfunctions_, *toric_harmonics(4, 4))[0].min() > 0.999)
    True
    """
    if not isinstance(model, NeuralIsometry):
        raise TypeError(f"model must be a NeuralIsometry, got {type(model).__name__}")
    check_views(views)
    n_draws, n_iterations = check_count(n_draws, "n_draws"), check_count(n_iterations, "n_iterations")
    gap = check_real(gap, "gap", 0.0, open_low=True)
    root = model.mass_.double().sqrt()
    pairs = [_map(*(root[:, None] * _functions(model, view) for view in views.draw(1)[:2])) for _ in range(n_draws)]
    maps, known = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    if (maps - known).abs().max() < _SAME:
        raise ValueError("the views are the same before and after: no transformation tells functions apart")
    ranks = known.diagonal(dim1=1, dim2=2).sum(dim=1).round()
    conditions, unknowns = int((ranks * (ranks + 1) / 2).sum()), len(root) * (len(root) + 1) // 2
    if conditions < unknowns:
        raise ValueError(
            f"{n_draws} maps known on {ranks.mean():.0f} of {len(root)} functions set {conditions} conditions for "
            f"{unknowns} entries of an operator: pass views of more channels, or more n_draws"
        )
    # With equal weights, functions that every map keeps or reverses would often have equal eigenvalues by accident.
    weights = torch.arange(1.0, n_draws + 1.0).to(maps).sqrt()
    mean = torch.einsum("s,sij->ij", weights / weights.sum(), maps)
    operator, rest = _invariant((mean + mean.mT) / 2, maps, known, n_iterations)
    if rest > _ROUGH:
        warnings.warn(
            f"the transformations leave the operator found as it is to {rest:.0%} only: its eigenfunctions may mean "
            "nothing; pass views of more channels, more n_draws, or train the encoder first",
            NoCommonOperatorWarning,
            stacklevel=2,
        )
    values, vectors = torch.linalg.eigh(operator)
    k = model.operator.raw_eigenfunctions.shape[1]
    distances, vectors = (values[-1] - values).flip(0)[:k], vectors.flip(1)[:, :k]
    steps = int((distances.diff() > _SAME * (values[-1] - values[0])).sum())
    scale = gap * steps / float(distances[-1]) if steps else 0.0
    model.operator.assign(vectors / root[:, None], scale * distances)
    return rest


def _functions(model: NeuralIsometry, images: Tensor) -> Tensor:
    """Functions (N, c) of one image, in float64."""
    return model.functions(images.to(model.operator.root_mass))[0].double()


def _map(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Partial isometry from functions (N, c) to others, and the projection to where it is known."""
    w, s, vh = torch.linalg.svd(after @ before.mT)
    seen = s > _RANK * s[0]
    return w[:, seen] @ vh[seen], vh[seen].mT @ vh[seen]


def _invariant(start: Tensor, maps: Tensor, known: Tensor, n_iterations: int) -> tuple[Tensor, float]:
    """Nearest operator to `start` that the maps leave as it is where they are known, and the root mean square rest."""

    def change(x: Tensor) -> Tensor:
        return maps.mT @ x @ maps - known @ x @ known

    x, rest = start, -change(start)
    gradient = (maps @ rest @ maps.mT - known @ rest @ known).sum(dim=0)
    direction, size = gradient, gradient.square().sum()
    for _ in range(n_iterations):
        moved = change(direction)
        length = moved.square().sum()
        if length <= torch.finfo(x.dtype).eps ** 2 * x.square().sum():
            break
        x, rest = x + size / length * direction, rest - size / length * moved
        gradient = (maps @ rest @ maps.mT - known @ rest @ known).sum(dim=0)
        before, size = size, gradient.square().sum()
        direction = gradient + size / before * direction
    x = (x + x.mT) / 2
    free = x - torch.eye(len(x), dtype=x.dtype, device=x.device) * x.diagonal().mean()
    size = free.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    return x, float((rest.square().sum(dim=(1, 2)).mean() / size).sqrt())
