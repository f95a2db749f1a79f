"""Projected gradient descent in an L_inf, L2 or L1 ball."""

from __future__ import annotations

import math
from typing import Any

import torch

from manifoldkit.attacks._input import one_of, read_norm, read_number
from manifoldkit.attacks.base import Attack
from manifoldkit.attacks.constraints import Constraint, L2Ball, LinfBall
from manifoldkit.attacks.l1 import L1Ball
from manifoldkit.attacks.losses import Loss
from manifoldkit.attacks.steps import AdaptiveSteps, MomentumSteps, StepRule
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["PGD"]

BALLS: dict[float, type[LinfBall | L2Ball | L1Ball]] = {math.inf: LinfBall, 2.0: L2Ball, 1.0: L1Ball}


class PGD(Attack):
    r"""Projected gradient descent, the standard measure of a network's robustness in a ball.

    .. math:: x_{t+1} = \Pi(x_t + \alpha\, d_t), \qquad
              d_t = \operatorname{sign} \nabla_x L \ \text{ or } \ \nabla_x L / |\nabla_x L|_2

    with :math:`\Pi` the projection onto the ball of radius `eps` around the image and onto the bounds; in the L1 ball
    the entries of the largest gradient share the step (see :class:`~manifoldkit.attacks.l1.L1Ball`). A sample
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
        Step length; eps / 4 by default, 2 eps to begin with if ``step_control="apgd"``.
    steps : int, default=40
        Most steps of each walk.
    norm : {"inf", 2, 1}, default="inf"
        Norm of the ball.
    random_start : bool, default=False
        Begin at a uniformly random point of the ball instead of at the image.
    restarts : int, default=1
        Walks for each sample that holds, each from another random start; of several failures the one with the
        largest loss is kept.
    targeted : bool, default=False
        Walk towards the labels given instead of away from them.
    loss : {"ce", "margin", "dlr"} or callable, default="ce"
        Cross entropy, logit margin, difference of logits ratio, or a function (logits, labels) -> (B,).
    bounds : (low, high) or None, default=(0, 1)
        Range of valid image entries. Normalisation belongs into the model, so that `eps` means what it says.
    generator : torch.Generator, optional
        Source of the random starts; None is a fresh one. It advances with every run.
    manifold : Manifold or LabelledManifold, optional
        Only measured: fills `distance_to_manifold` and `tangent_share` of the result.
    record_path : bool, default=False
        Keep the images of every step.
    momentum : float, default=0.0
        Factor of the sum of earlier gradients, each divided by its L1 norm; 1 is MI-FGSM [2]_.
    step_control : {"fixed", "apgd"}, default="fixed"
        Steps of one length, or steps that are halved where a walk no longer gains [3]_, which need no `alpha` and
        answer with the point of the largest loss.
    early_stop : bool, default=True
        Let broken samples leave the batch. Without, every sample has all its steps, as in other libraries and as
        adversarial training wants it, and the answer is its last point, or with ``step_control="apgd"`` that of the
        largest loss, broken or not.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `eps`, `alpha`, `steps` or `restarts` is not positive, `eps` is larger than the range of the bounds (L_inf),
        or several restarts have no random start.

    See Also
    --------
    OnManifoldPGD : The same walk along a manifold.

    References
    ----------
    .. [1] Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards deep learning models resistant to adversarial
       attacks", ICLR 2018.
    .. [2] Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    .. [3] Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
       attacks", ICML 2020.

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

    norm: str | float
    momentum: float
    step_control: str
    least_steps = 1
    #: Whether `eps` limits the entries of images, to which the bounds belong.
    eps_of_images = True

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
        momentum: float = 0.0,
        step_control: str = "fixed",
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
            eps=eps, alpha=alpha, norm=norm, random_start=random_start, restarts=restarts, momentum=momentum,
            step_control=step_control, early_stop=early_stop,
        )  # fmt: skip
        self._check()

    def _read(self, name: str, value: Any) -> Any:
        match name:
            case "norm":
                read_norm(value)
            case "momentum":
                return read_number(value, name, 0)
            case "step_control":
                return one_of(value, name, ("fixed", "apgd"))
            case "eps" if value is None:
                raise TypeError("eps must be a number or one number for each sample, got None")
        return super()._read(name, value)

    @property
    def _norm(self) -> float:
        return read_norm(self.norm)

    def _check(self) -> None:
        super()._check()
        if self.momentum and self.step_control == "apgd":
            raise ValueError("step_control='apgd' has a momentum of its own: leave momentum out")
        if self.eps_of_images and self._norm == math.inf and self.bounds is not None and self.eps is not None:
            widest, spans = float(self.eps.max()), self.bounds[1] - self.bounds[0]
            if widest > spans * (1 + 1e-9):
                raise ValueError(
                    f"eps={widest:g} is more than the whole range of the images, bounds={self.bounds}: eps is measured "
                    "in their units, so that eight levels of 255 are 8 / 255"
                )

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        assert eps is not None
        return BALLS[self._norm](images, eps, self.bounds)

    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        assert eps is not None
        if self.alpha is None:
            return 2 * eps if self.step_control == "apgd" else eps / 4
        return self.alpha if self.alpha.ndim else self.alpha.expand(n)

    def _rule(self, alpha: torch.Tensor, like: torch.Tensor) -> StepRule:
        if self.step_control == "apgd":
            return AdaptiveSteps(alpha, like, self.steps)
        return MomentumSteps(alpha, like, self.momentum) if self.momentum else super()._rule(alpha, like)
