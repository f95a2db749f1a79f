"""The fast gradient sign method: one step."""

from __future__ import annotations

from typing import Any

import torch

from manifoldkit.attacks.losses import Loss
from manifoldkit.attacks.pgd import PGD
from manifoldkit.geometry.protocol import LabelledManifold, Manifold

__all__ = ["FGSM"]


class FGSM(PGD):
    r"""Fast gradient sign method, for a quick first look at a network's robustness.

    .. math:: x = \operatorname{clip}(x_0 + \epsilon\, \operatorname{sign} \nabla_x L(f(x_0), y))

    With ``norm=2`` the sign is replaced by the gradient divided by its length. Samples that are wrong already stay
    as they are.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    eps : float or array of shape (B,)
        Size of the step in the units of the images, for all samples or for each.
    norm : {"inf", 2, 1}, default="inf"
        Norm in which the step has this size.
    targeted : bool, default=False
        Walk towards the labels given instead of away from them.
    loss : {"ce", "margin", "dlr"} or callable, default="ce"
        Cross entropy, logit margin, difference of logits ratio, or a function (logits, labels) -> (B,).
    bounds : (low, high) or None, default=(0, 1)
        Range of valid image entries. Normalisation belongs into the model.
    manifold : Manifold or LabelledManifold, optional
        Only measured: fills `distance_to_manifold` and `tangent_share` of the result.
    early_stop : bool, default=True
        Leave samples that are wrong already as they are.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `eps` is not positive, or another value is out of range.

    See Also
    --------
    PGD : Many small steps, stronger.

    References
    ----------
    .. [1] Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> FGSM(model, eps=0.25)(torch.tensor([[0.75, 0.5]]), torch.tensor([0]))
    tensor([[0.5000, 0.7500]])
    """

    def __init__(
        self,
        model: torch.nn.Module,
        eps: Any,
        norm: str | float = "inf",
        targeted: bool = False,
        loss: str | Loss = "ce",
        bounds: tuple[float, float] | None = (0, 1),
        *,
        manifold: Manifold | LabelledManifold | None = None,
        early_stop: bool = True,
    ) -> None:
        super().__init__(
            model,
            eps,
            steps=1,
            norm=norm,
            targeted=targeted,
            loss=loss,
            bounds=bounds,
            manifold=manifold,
            early_stop=early_stop,
        )

    def _check(self) -> None:
        super()._check()
        if self.steps != 1 or self.alpha is not None:
            raise ValueError("FGSM makes one step of length eps: for other steps or alpha take PGD")

    def _step_sizes(self, n: int, eps: torch.Tensor | None) -> torch.Tensor:
        assert eps is not None
        return eps
