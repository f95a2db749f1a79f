"""What an attack found, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from manifoldkit._arrays import Array
from manifoldkit.attacks._input import as_numpy

__all__ = ["AttackResult"]


@dataclass(eq=False, repr=False)
class AttackResult:
    """Result of :meth:`Attack.run`, to read success, sizes and paths from. B samples, arrays of the images' kind.

    Attributes
    ----------
    adversarial : array of shape (B, ...)
        Where every walk ended, in the shape, kind, dtype and device of the images: at its last image or, with
        ``step_control="apgd"``, at the first broken one, else at that of the largest loss. Of several restarts, the
        first that breaks, else the one that ends at the largest loss.
    labels : int array of shape (B,)
        The labels given: true classes, or targets.
    targeted : bool
        Whether `labels` are targets.
    success : bool array of shape (B,)
        Whether the prediction is wrong in the end (untargeted), or is the target.
    steps_taken : int array of shape (B,)
        Steps after which the sample left; 0 where the starting point did it. With restarts: those of the restart kept.
    prediction_before, prediction_after : int array of shape (B,)
        Class of the image given and of the adversary.
    status : numpy array of str, shape (B,)
        "success"; "stalled" (no direction, or a step that limits or the way back to the manifold undo); "max_steps".
    l2, linf : array of shape (B,)
        Size of the change from the image given.
    distance_to_manifold : array of shape (B,) or None
        ``|x - project(x)|`` at the adversary; None when the attack has no manifold.
    tangent_share : array of shape (B,) or None
        Share ``|T T^T (x - x0)|^2 / |x - x0|^2`` of the change that is tangent to the manifold at the image, from 0
        to 1, and 0 without a change; None when the attack has no manifold.
    path : array of shape (T + 1, B, ...) or None
        Images after 0..T steps when recorded; samples that have left stay at their last image.
    path_predictions : int array of shape (T + 1, B) or None
        The classes along the path.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.attacks import FGSM
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> result = FGSM(model, eps=0.25).run(torch.tensor([[0.5, 0.25], [1.0, 0.0]]), torch.tensor([0, 0]))
    >>> result
    AttackResult(2 samples, 1 success, 0 stalled, 1 max_steps)
    >>> result.summary()["success_rate"]
    0.5
    """

    adversarial: Array
    labels: Array
    targeted: bool
    success: Array
    steps_taken: Array
    prediction_before: Array
    prediction_after: Array
    status: np.ndarray[Any, np.dtype[np.str_]]
    l2: Array
    linf: Array
    distance_to_manifold: Array | None = None
    tangent_share: Array | None = None
    path: Array | None = None
    path_predictions: Array | None = None

    def __len__(self) -> int:
        return len(self.success)

    def __repr__(self) -> str:
        figures = self.summary()
        counts = ", ".join(f"{figures[name]} {name}" for name in ("success", "stalled", "max_steps"))
        return f"AttackResult({len(self)} samples, {counts})"

    def summary(self) -> dict[str, int | float | None]:
        """Figures of the whole batch, as plain numbers; None where a mean has no samples or has no meaning.

        Keys: `samples`, `success`, `stalled`, `max_steps` (counts), `success_rate`; `clean_accuracy` (before),
        `robust_accuracy` (share that is right before and not broken: what a walk from elsewhere, a reconstruction say,
        puts right does not count) and `flipped_rate` (share of the right ones that the attack broke), all three None
        for targeted attacks; means over the successful ones: `mean_steps`, `mean_l2`, `mean_linf`,
        `mean_distance_to_manifold`, `mean_tangent_share`.
        """
        success = as_numpy(self.success)
        right = as_numpy(self.prediction_before) == as_numpy(self.labels)
        figures: dict[str, int | float | None] = {"samples": len(self)}
        for name in ("success", "stalled", "max_steps"):
            figures[name] = int((self.status == name).sum())
        figures["success_rate"] = float(success.mean())
        figures["clean_accuracy"] = None if self.targeted else float(right.mean())
        figures["robust_accuracy"] = None if self.targeted else float((right & ~success).mean())
        figures["flipped_rate"] = None if self.targeted else _mean(success, right)
        figures["mean_steps"] = _mean(self.steps_taken, success)
        figures["mean_l2"] = _mean(self.l2, success)
        figures["mean_linf"] = _mean(self.linf, success)
        figures["mean_distance_to_manifold"] = _mean(self.distance_to_manifold, success)
        figures["mean_tangent_share"] = _mean(self.tangent_share, success)
        return figures


def _mean(values: Array | None, where: np.ndarray[Any, Any]) -> float | None:
    if values is None or not where.any():
        return None
    return float(as_numpy(values)[where].mean(dtype=np.float64))
