"""The one way in which networks of this package are trained: Adam on batches drawn with repetition."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from tqdm.auto import tqdm

from ..datasets._validation import check_real
from ..isometry._input import check_size, fresh

__all__ = ["minimise"]


def minimise(
    loss: Callable[[torch.Tensor], torch.Tensor],
    parameters: Iterable[nn.Parameter],
    n: int,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator | None,
    progress: bool,
    name: str,
    anneal: bool = False,
) -> torch.Tensor:
    """Losses (steps,) of updates on random rows of n samples; gradients are None afterwards.

    A loss that is NaN or infinite is an error.

    Parameters
    ----------
    loss : callable
        Of row numbers (batch_size,), where the generator lives.
    parameters : iterable of Parameter
        What is trained.
    n : int
        Number of samples.
    steps, batch_size, lr, generator, progress
        As users gave them; they are checked here.
    name : str
        Of the bar.
    anneal : bool, default=False
        Let the learning rate fall to 0 as a cosine.
    """
    steps, batch_size = check_size(steps, "steps"), check_size(batch_size, "batch_size")
    check_real(lr, "lr", 0.0, open_low=True)
    generator = fresh(generator)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError(f"the {name} has no parameter that requires a gradient: unfreeze one, or train nothing")
    optimizer = torch.optim.Adam(trained, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if anneal else None
    losses = torch.empty(steps)
    with torch.enable_grad():
        for step in tqdm(range(steps), desc=name, disable=not progress):
            value = loss(torch.randint(n, (batch_size,), generator=generator, device=generator.device))
            losses[step] = value.detach()
            if not torch.isfinite(losses[step]):
                raise ValueError(
                    f"the loss of the {name} is {float(losses[step])} after {step} updates: lower lr, now {lr!r}, or "
                    "scale the samples"
                )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
    optimizer.zero_grad()
    return losses
