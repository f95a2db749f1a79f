"""On-manifold projected gradient descent, and its control, a random walk on the same manifold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from manifoldkit.attacks._input import one_of, read_radius
from manifoldkit.attacks.base import Attack
from manifoldkit.attacks.constraints import Constraint
from manifoldkit.attacks.losses import Loss
from manifoldkit.attacks.manifold_constraint import ManifoldConstraint, ManifoldOptions, RandomTangentConstraint
from manifoldkit.attacks.steps import LineSearch, StepRule
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["OnManifoldPGD", "RandomTangentWalk"]


OPTIONS = {
    "tangent": ("fixed", "refresh"),
    "projection": ("full", "normal"),
    "residual": ("drop", "carry"),
    "budget": ("ambient", "geodesic"),
}


class OnManifoldPGD(Attack):
    r"""Projected gradient descent along a manifold, to find realistic inputs that a network gets wrong.

    .. math:: x_0 \leftarrow \operatorname{project}(x_0), \qquad g_t = T T^\top \nabla_x L(f(x_t), y), \qquad
              x_{t+1} = N(x_t + \alpha\, g_t / |g_t|)

    with T an orthonormal tangent basis and N the way back onto the manifold. The walk of a sample ends when its
    prediction changes ("success"), when the gradient has no tangent part or a step changes nothing ("stalled"), or
    after `steps` ("max_steps"). ``steps=0`` shows what the projection alone does: success is where it flips.

    Learned projections drift: iterating them slides points along the manifold towards a few attracting ones. With
    ``projection="full"``, `alpha` has to exceed that tangential drift, or the walk is drawn back to where it was and
    ends "stalled" or at "max_steps". The defaults, which have no drift, differ from the source's, which are
    ``tangent="fixed", projection="full"``. Low success says little before `alpha` has been searched over a decade: a
    tenth of the radius of curvature is a good first value, on MNIST 1. Run :class:`RandomTangentWalk` with the same
    arguments beside every attack: what it breaks is not the doing of the gradient.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    manifold : Manifold or LabelledManifold
        Where to walk; of a labelled family (an atlas), each sample walks on the member for its label.
    alpha : float or array of shape (B,), default=0.1
        Step length in the units of the images; with ``normalize=False`` the factor of the gradient.
    steps : int, default=50
        Most steps of each walk; 0 projects only.
    loss : {"ce", "margin", "dlr"} or callable, default="ce"
        Cross entropy, logit margin, difference of logits ratio, or a function (logits, labels) -> (B,).
    targeted : bool, default=False
        Walk towards the labels given instead of away from them.
    normalize : bool, default=True
        Divide the tangent gradient by its length.
    tangent : {"refresh", "fixed"}, default="refresh"
        Compute the tangent basis anew at each step, or keep that of the start, as the source does.
    projection : {"normal", "full"}, default="normal"
        The normal part of the move to the projection, ``N(y) = y + (I - T_y T_y^T)(project(y) - y)``, or all of it,
        ``N(y) = project(y)``.
    residual : {"drop", "carry"}, default="drop"
        Walk on the manifold, or on its copy through the image: "carry" adds x0 - project(x0) to every point, so
        that the walk starts exactly at the image and keeps the detail that the manifold has not.
    bounds : (low, high) or None, default=(0, 1)
        Range of valid image entries; points are clipped to it after each projection.
    eps : float or array of shape (B,), optional
        Largest L2 distance from the start of the walk; no limit by default.
    record_path : bool, default=False
        Keep the images of every step.
    generator : torch.Generator, optional
        Source of random numbers (of random starts and of the random walk); None is a fresh one.
    budget : {"ambient", "geodesic"}, default="ambient"
        What `eps` limits: the straight distance from the start, or the length of the walk, the sum of its chords. For
        steps that are short beside the radius of curvature that is at least the geodesic distance.
    line_search : sequence of float, optional
        Multiples of `alpha`, of which each step takes the one with the largest loss, at the cost of a projection and a
        forward pass for each: ``line_search=numpy.geomspace(0.01, 10, 7)`` is a sweep over three decades.
    random_start : bool, default=False
        Begin at a random point of the manifold within `eps`, which is then needed.
    restarts : int, default=1
        Walks for each sample that holds, each from another random start.
    early_stop : bool, default=True
        Let broken samples leave the batch.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the manifold does not return tensors for tensors.
    ValueError
        If a number or an option is out of range, or the manifold returns NaN or another shape.

    References
    ----------
    .. [1] "On-manifold projected gradient descent", Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.geometry.exact import Circle
    >>> model = torch.nn.Linear(2, 2, bias=False)  # class 0 is x > y
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> attack = OnManifoldPGD(model, Circle(), alpha=0.1, tangent="refresh", bounds=None)
    >>> result = attack.run(torch.tensor([[1.2, 0.0]]), torch.tensor([0]))
    >>> result.status.item(), result.steps_taken.item()
    ('success', 8)
    >>> abs(result.adversarial.norm().item() - 1) < 1e-6
    True
    """

    manifold: Manifold | LabelledManifold
    alpha: torch.Tensor
    normalize: bool
    tangent: str
    projection: str
    residual: str
    budget: str
    line_search: tuple[float, ...] | None
    needs_manifold = True

    def __init__(
        self,
        model: torch.nn.Module,
        manifold: Manifold | LabelledManifold,
        alpha: Any = 0.1,
        steps: int = 50,
        *,
        loss: str | Loss = "ce",
        targeted: bool = False,
        normalize: bool = True,
        tangent: str = "refresh",
        projection: str = "normal",
        residual: str = "drop",
        bounds: tuple[float, float] | None = (0, 1),
        eps: Any = None,
        record_path: bool = False,
        generator: torch.Generator | None = None,
        budget: str = "ambient",
        line_search: Any = None,
        random_start: bool = False,
        restarts: int = 1,
        early_stop: bool = True,
    ) -> None:
        super().__init__(
            model,
            steps=steps,
            loss=loss,
            targeted=targeted,
            bounds=bounds,
            manifold=manifold,
            record_path=record_path,
            generator=generator,
        )
        self._store(
            alpha=alpha, eps=eps, normalize=normalize, tangent=tangent, projection=projection, residual=residual,
            budget=budget, line_search=line_search, random_start=random_start, restarts=restarts, early_stop=early_stop,
        )  # fmt: skip
        self._check()

    def _read(self, name: str, value: Any) -> Any:
        if name in OPTIONS:
            return one_of(value, name, OPTIONS[name])
        match name:
            case "line_search":
                return None if value is None else _factors(value)
            case "normalize":
                return bool(value)
            case "alpha" if value is None:
                raise TypeError("alpha must be a number or one number for each sample, got None")
        return super()._read(name, value)

    def _check(self) -> None:
        super()._check()
        if self.budget == "geodesic" and self.eps is None:
            raise ValueError("budget='geodesic' needs eps, the length that a walk may have")
        if self.random_start and self.eps is None:
            raise ValueError("a random start needs eps, the distance within which to begin")

    def _options(self) -> ManifoldOptions:
        return ManifoldOptions(
            normalize=self.normalize,
            refresh=self.tangent == "refresh",
            normal_only=self.projection == "normal",
            carry=self.residual == "carry",
            bounds=self.bounds,
            geodesic=self.budget == "geodesic",
        )

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        return ManifoldConstraint(images, self.manifold, manifold_labels, self._options(), eps)

    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        return self.alpha if self.alpha.ndim else self.alpha.expand(n)

    def _rule(self, alpha: torch.Tensor, like: torch.Tensor) -> StepRule:
        return super()._rule(alpha, like) if self.line_search is None else LineSearch(alpha, like, self.line_search)


class RandomTangentWalk(OnManifoldPGD):
    """The control of :class:`OnManifoldPGD`: the same walk with random tangent directions instead of gradients.

    What this walk breaks is due to moving on the manifold (and to its projection), not to the gradient. Takes the
    arguments of :class:`OnManifoldPGD`; every step draws ``T c``, c standard normal, for each sample from
    `generator`. The loss is only evaluated, and the model needs no gradient.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.geometry.exact import Circle
    >>> model = torch.nn.Linear(2, 2)
    >>> generator = torch.Generator().manual_seed(0)
    >>> walk = RandomTangentWalk(model, Circle(), alpha=0.1, steps=5, bounds=None, generator=generator)
    >>> adversarial = walk(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    >>> abs(adversarial.norm().item() - 1) < 1e-6
    True
    """

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        return RandomTangentConstraint(images, self.manifold, manifold_labels, self._options(), eps, generator)


def _factors(values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not np.iterable(values):
        raise TypeError(f"line_search must be a sequence of numbers or None, got {values!r}")
    factors = tuple(read_radius(value, "every factor of line_search").item() for value in values)
    if not factors:
        raise ValueError("line_search must hold at least one factor, or be None")
    return factors
