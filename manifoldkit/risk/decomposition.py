"""Where the adversarial risk of a network comes from: the manifold, its normals, or what lies nearby."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .._arrays import Array, like
from .._distances import pairwise_distances
from ..attacks._input import (
    one_of,
    read_bounds,
    read_images,
    read_manifold,
    read_module,
    read_norm,
    read_number,
    read_steps,
)
from ..attacks._model import Network, as_found, check_logits
from ..attacks.constraints import norms
from ..attacks.losses import cross_entropy
from ..exceptions import BoundsWarning
from ..geometry.protocol import LabelledManifold, Manifold
from ._attacks import RiskAttacks
from ._checks import check_eps, check_reach, read_targets
from .result import RiskDecomposition

__all__ = ["decompose_risk"]


class _Score(torch.nn.Module):
    """Logits from one score: class 1 where it is positive, 0 where negative, and 2, no label's, where it is zero."""

    def __init__(self, score: torch.nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.score(x) / 2
        tie = torch.where(half == 0, 2.0, -1e4).to(half)  # far below: no part in losses elsewhere
        return torch.stack([-half, half, tie], dim=1)


def decompose_risk(
    model: torch.nn.Module,
    X: Array,
    y: Any,
    manifold: Manifold | LabelledManifold,
    eps: float,
    *,
    norm: str | float = 2,
    steps: int = 40,
    restarts: int = 3,
    loss: Any = "margin",
    bounds: tuple[float, float] | None = None,
    off_manifold: str = "project",
    tnar: bool = True,
    n_refine: int = 20,
    tolerance: float = 1e-3,
    exclude_misclassified: bool = False,
    allow_large_eps: bool = False,
    batch_size: int = 500,
    random_state: int = 0,
    progress: bool = False,
) -> RiskDecomposition:
    r"""Decompose the adversarial risk of a network into standard, normal, in-manifold and nearby normal risk.

    .. math:: R_\mathrm{adv}(\epsilon) \leq R_\mathrm{std} + R_\mathrm{normal}(\epsilon)
              + R_\mathrm{in}(2 \epsilon) + R_\mathrm{nnr}(\epsilon)

    for eps below the reach of the manifold: an adversary is off x along its normal, or its foot point on the manifold
    is of another class, or it lies on the normal of a foot point whose class it does not share. Each risk is
    estimated by an attack in its own set (:class:`~manifoldkit.attacks.SubspacePGD`), and every adversary found is
    then followed to its foot point, where it becomes a witness of one of the others: independent attacks of unequal
    strength would make the right side too small.

    Parameters
    ----------
    model : torch.nn.Module
        Maps samples (B, ...) to logits (B, K), or to scores (B,) with labels -1 and 1, a score of 0
        being wrong for both.
    X : array of shape (n, ...)
    y : int array of shape (n,)
    manifold : Manifold or LabelledManifold
        Of a labelled family, the member for the label in `y` of each sample.
    eps : float
        Budget in the units of X.
    norm : {2, "inf"}, default=2
        The theorem is that of norm 2; with "inf" the sum is an empirical figure.
    steps, restarts : int, default=40 and 3
        Of each attack; the first of the restarts begins at the sample, the others at random.
    loss : str or callable, default="margin"
        Loss of the attacks.
    bounds : (low, high) or None, default=None
        Range of valid entries, such as (0, 1) of images, which all attacks keep to. Points of the manifold beyond them
        are clipped where samples are evaluated at their foot points, and are no witnesses if that moves them by more
        than the root of `tolerance` times eps.
    off_manifold : {"project", "inflate", "raw"}, default="project"
        Samples off the manifold are evaluated at their foot points; or where they are, with budgets eps + delta and
        2 (eps + delta) about the foot points, delta their distance; or where they are with the plain budgets, which
        leaves risks unexplained.
    tnar : bool, default=True
        Start in-manifold attacks also along the tangent in which the network is most sensitive.
    n_refine : int, default=20
        Gauss-Newton steps of the foot points; 0 takes `manifold.project` as it is.
    tolerance : float, default=0.001
        Largest tangent share (of the squared length) of a change that counts as normal: 0.001 are 1.8 degrees.
    exclude_misclassified : bool, default=False
        Count normal and in-manifold risk only of samples that are right. By definition both contain the wrong ones.
    allow_large_eps : bool, default=False
        Warn instead of refusing an eps that is not below the reach of the manifold, where that is known.
    batch_size : int, default=500
    random_state : int, default=0
    progress : bool, default=False

    Returns
    -------
    RiskDecomposition
        Estimates from below of each risk, since attacks may fail.

    Warns
    -----
    BoundsWarning
        If foot points of samples leave the bounds.

    Raises
    ------
    ValueError
        If eps is not positive or not below the reach, labels do not fit, or the model returns NaN.

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024.

    Examples
    --------
    >>> from manifoldkit.geometry import Plane
    >>> class Tilted(torch.nn.Module):  # the data lie on the first axis; the boundary is tilted towards it
    ...     def forward(self, x):
    ...         return x[:, 0] + 3 * x[:, 1]
    >>> X = np.linspace(-1, 1, 21)[:, None] * np.array([[1.0, 0.0]]) + np.array([[0.01, 0.0]])
    >>> risk = decompose_risk(Tilted(), X, np.where(X[:, 0] > 0, 1, -1), Plane([[1.0], [0.0]]), eps=0.2)
    >>> rates = risk.rates()
    >>> rates["normal"] > rates["std"], risk.shares()["unexplained"]
    (True, 0.0)
    """
    read_module(model, "model")
    read_manifold(manifold)
    eps = check_eps(eps)
    check_reach(manifold, eps, allow_large_eps)
    p_norm = read_norm(norm, allowed=(math.inf, 2))
    one_of(off_manifold, "off_manifold", ("project", "inflate", "raw"))
    read_steps(batch_size, "batch_size", 1)
    read_steps(n_refine, "n_refine", 0)
    read_number(tolerance, "tolerance", 0, 1)
    limits = read_bounds(bounds)
    device, dtype = Network(model, cross_entropy, False).home()
    x = read_images(X, device, dtype, limits)
    classifier, labels, given = _classifier(model, x, y)
    members = given if isinstance(manifold, LabelledManifold) else None
    estimate = RiskAttacks(
        classifier, manifold, eps, p_norm, steps=steps, restarts=restarts, loss=loss, bounds=limits, tnar=tnar,
        n_refine=n_refine, tolerance=tolerance, off_manifold=off_manifold,
    )  # fmt: skip
    parts = []
    for number, start in enumerate(tqdm(range(0, len(x), batch_size), desc="risk", disable=not progress)):
        seed = int(np.random.SeedSequence([random_state, number]).generate_state(1)[0])
        rows = slice(start, start + batch_size)
        which = None if members is None else members[rows]
        parts.append(estimate.run(x[rows], labels[rows], which, torch.Generator().manual_seed(seed)))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if limits is not None and not found["inside"].all():
        beyond = norms(found["foot"] - found["foot"].clamp(*limits), p_norm) / eps
        warnings.warn(
            f"the points of the manifold nearest to {int((~found['inside']).sum())} of {len(x)} samples leave the "
            f"bounds, by up to {float(beyond.max()):.2g} eps: clipped they are off the manifold, are no witnesses, and "
            "risks may stay unexplained. Pass bounds=None to look at the manifold as it is",
            BoundsWarning,
            stacklevel=2,
        )
    within = 2 * found["radius"] * (1 + 1e-6)
    if off_manifold != "raw":  # there the samples are no points of the manifold
        _neighbours(found, labels, within, p_norm, members is not None)
    std = found["std"]
    nnr = found["near"] & ~found["normal"] & ~found["in_manifold"] & ~std
    masks = {name: found[name] if exclude_misclassified else found[name] | std for name in ("normal", "in_manifold")}
    if exclude_misclassified:
        masks = {name: mask & ~std for name, mask in masks.items()}
    masks |= {"adv": found["adv"] | std, "std": std, "nnr": nnr}
    found["near_at"][~nnr] = torch.nan
    names = {"adv": "adv_at", "normal": "normal_at", "in_manifold": "in_manifold_at", "nnr": "near_at"}
    return RiskDecomposition(
        eps=eps,
        norm=p_norm,
        **{name: mask.cpu().numpy() for name, mask in masks.items()},
        witnesses={name: like(found[key], X) for name, key in names.items()},
        off_manifold=found["off"].double().cpu().numpy() / eps,
        tangent_share=found["share"].double().cpu().numpy(),
    )


def _classifier(model: torch.nn.Module, x: torch.Tensor, y: Any) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network of logits, class indices, and the labels given: for scores -1 and 1, else the class indices."""
    with torch.no_grad(), as_found(model):
        answer = model(x[:1])
    binary = isinstance(answer, torch.Tensor) and answer.ndim == 1
    n_classes = None if binary else check_logits(answer, 1).shape[1]
    labels = torch.from_numpy(read_targets(y, len(x), binary, n_classes)).to(x.device)
    return (_Score(model), (labels + 1) // 2, labels) if binary else (model, labels, labels)


def _neighbours(
    found: dict[str, torch.Tensor], labels: torch.Tensor, within: torch.Tensor, norm: float, same: bool
) -> None:
    """Let the samples be witnesses of each other: their feet lie on the manifold (that of their label, if `same`)."""
    feet = found["centre"].flatten(1).double()
    height = norms((found["normal_at"] - found["centre"]).nan_to_num(torch.inf), norm)
    fragile = found["normal"] & (found["centre_class"] == labels)  # a change of class along the normal of the foot
    for i in range(0, len(feet), 512):
        rows = slice(i, i + 512)
        near = pairwise_distances(feet[rows], feet, p=norm) <= within[rows, None]
        if same:
            near &= labels[rows, None] == labels
        wrong = near & found["inside"] & (found["centre_class"] != labels[rows, None])
        _witness(found, "in_manifold", rows, wrong, found["centre"])
        low = height <= within[rows, None] / 2  # budgets differ with "inflate"
        _witness(found, "near", rows, near & found["inside"] & fragile & low, found["normal_at"])


def _witness(found: dict[str, torch.Tensor], name: str, rows: slice, pairs: torch.Tensor, points: torch.Tensor) -> None:
    mask, at = found[name][rows], found[name + "_at"][rows]  # views: what is written here is written there
    news = pairs.any(dim=1) & ~mask
    at[news] = points[pairs[news].int().argmax(dim=1)]
    mask |= news
