"""Projected gradient descent in an L_inf or L2 ball."""

from __future__ import annotations

from typing import Any

import torch

from manifoldkit.attacks._input import read_radius, read_steps
from manifoldkit.attacks.base import Attack
from manifoldkit.attacks.constraints import Constraint, read_norm
from manifoldkit.attacks.losses import Loss
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["PGD"]


class PGD(Attack):
    r"""Projected gradient descent, the standard measure of a network's robustness in a ball.

    .. math:: x_{t+1} = \Pi(x_t + \alpha\, d_t), \qquad
              d_t = \operatorname{sign} \nabla_x L \ \text{ or } \ \nabla_x L / |\nabla_x L|_2

    with :math:`\Pi` the projection onto the ball of radius `eps` around the image and onto the bounds. A sample
    leaves the batch as soon as the model gets it wrong, which makes the attack several times cheaper where it
    succeeds, and changes nothing for the samples that hold. A sample whose step changes nothing leaves as
    "stalled": its gradient is zero in floating point (``loss="margin"`` helps), or it sits in a corner of the ball.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    eps : float or array of shape (B,), default=0.3
        Radius of the ball in the units of the images, for all samples or for each.
    alpha : float or array of shape (B,), optional
        Step length; eps / 4 by default.
    steps : int, default=40
        Most steps of each walk.
    norm : {"inf", 2}, default="inf"
        Norm of the ball.
    random_start : bool, default=False
        Begin at a uniformly random point of the ball instead of at the image.
    restarts : int, default=1
        Walks for each sample that holds, each from another random start; of several failures the one with the
        largest loss is kept.
    targeted : bool, default=False
        Walk towards the labels given instead of away from them.
    loss : {"ce", "margin"} or callable, default="ce"
        Cross entropy, logit margin, or a function (logits, labels) -> (B,).
    bounds : (low, high) or None, default=(0, 1)
        Range of valid image entries. Normalisation belongs into the model, so that `eps` means what it says.
    generator : torch.Generator, optional
        Source of the random starts; None is a fresh one. It advances with every run.
    manifold : Manifold or LabelledManifold, optional
        Only measured: fills `distance_to_manifold` of the result.
    record_path : bool, default=False
        Keep the images of every step.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `eps`, `alpha`, `steps` or `restarts` is not positive, or several restarts have no random start.

    See Also
    --------
    OnManifoldPGD : The same walk along a manifold.

    References
    ----------
    .. [1] Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
       attacks", ICLR 2018.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> attack = PGD(model, eps=0.5, alpha=0.125, steps=10)
    >>> result = attack.run(torch.tensor([[0.875, 0.5]]), torch.tensor([0]))
    >>> result.adversarial, result.steps_taken
    (tensor([[0.6250, 0.7500]]), tensor([2]))
    """

    def __init__(
        self,
        model: torch.nn.Module,
        eps: Any = 0.3,
        alpha: Any = None,
        steps: int = 40,
        norm: str | float = "inf",
        random_start: bool = False,
        restarts: int = 1,
        targeted: bool = False,
        loss: str | Loss = "ce",
        bounds: tuple[float, float] | None = (0, 1),
        generator: torch.Generator | None = None,
        *,
        manifold: Manifold | LabelledManifold | None = None,
        record_path: bool = False,
    ) -> None:
        super().__init__(
            model,
            steps=read_steps(steps, "steps", 1),
            loss=loss,
            targeted=targeted,
            bounds=bounds,
            manifold=manifold,
            record_path=record_path,
            generator=generator,
        )
        self.eps = read_radius(eps, "eps")
        self.alpha = None if alpha is None else read_radius(alpha, "alpha")
        self.norm = norm
        self._ball = read_norm(norm)
        self.random_start = bool(random_start)
        self.restarts = read_steps(restarts, "restarts", 1)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts repeat one and the same walk without a random start: pass random_start=True")

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        assert eps is not None
        return self._ball(images, eps, self.bounds)

    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        assert eps is not None
        if self.alpha is None:
            return eps / 4
        return self.alpha if self.alpha.ndim else self.alpha.expand(n)
