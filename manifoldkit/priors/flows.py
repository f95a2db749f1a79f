"""One way to call the normalising flows of zuko and normflows."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["from_normal", "to_normal"]


def to_normal(flow: Any, y: torch.Tensor, condition: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes z (B, d) that are standard normal under the flow, and log |det dz/dy| (B,), of y (B, d).

    Parameters
    ----------
    flow : Module
        A ``zuko.flows.Flow`` (called with the condition it gives a distribution with a ``transform``), or a
        ``normflows.NormalizingFlow`` or ``ConditionalNormalizingFlow`` (``inverse_and_log_det``).
    y : Tensor (B, d)
    condition : Tensor (B, c) or None
    """
    if hasattr(flow, "inverse_and_log_det"):
        z, log_det = flow.inverse_and_log_det(y) if condition is None else flow.inverse_and_log_det(y, condition)
    else:
        z, log_det = _zuko(flow, condition).call_and_ladj(y)
    if z.shape != y.shape or log_det.shape != y.shape[:1]:
        raise ValueError(
            f"a flow of codes of shape {tuple(y.shape)} must answer with that shape and one number for each, got "
            f"{tuple(z.shape)} and {tuple(log_det.shape)}: has it been built for another number of features?"
        )
    return z, log_det.to(z)  # normflows adds up determinants in torch's default dtype


def from_normal(flow: Any, z: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
    """The inverse of :func:`to_normal`: y (B, d) of z (B, d)."""
    if hasattr(flow, "inverse_and_log_det"):
        answer = flow.forward(z) if condition is None else flow.forward(z, condition)
    else:
        answer = _zuko(flow, condition).inv(z)
    result: torch.Tensor = answer
    return result


def _zuko(flow: Any, condition: torch.Tensor | None) -> Any:
    distribution = flow() if condition is None else flow(condition)
    transform = getattr(distribution, "transform", None)
    if transform is None or not hasattr(transform, "call_and_ladj"):
        raise TypeError(
            f"a flow must be one of zuko (called, it gives a distribution with a transform) or of normflows "
            f"(inverse_and_log_det), got {type(flow).__name__}"
        )
    return transform
