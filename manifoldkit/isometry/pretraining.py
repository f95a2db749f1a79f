"""Training of neural isometries without labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..datasets._validation import check_count, check_flag, check_real
from .neural_isometries import NeuralIsometry

__all__ = ["LossRecord", "Views", "annealed", "pretrain", "pretrain_in_stages"]

_log = logging.getLogger("manifoldkit")


class Views(Protocol):
    """A source of views of the same things under different transformations."""

    def draw(self, n_samples: int) -> Tensor:
        """New views, (2 or 3, n_samples, C, H, W)."""
        ...


class LossRecord(NamedTuple):
    """Losses of a step, as numbers."""

    step: int
    transport: float
    equivariance: float
    multiplicity: float


def pretrain(
    model: NeuralIsometry,
    views: Views,
    *,
    steps: int,
    batch_size: int = 16,
    alpha: float = 0.5,
    beta: float | Callable[[float], float] = 0.1,
    learning_rate: float = 5e-4,
    final_rate: float = 5e-5,
    eigenvalue_rate: float = 1.0,
    warm_up: int = 100,
    weight_decay: float = 0.0,
    clip: float | None = None,
    record_every: int = 100,
    progress: bool = False,
) -> list[LossRecord]:
    """Fit a neural isometry to views, in place, by AdamW with a warm-up and a cosine schedule.

    Parameters
    ----------
    model : NeuralIsometry
        In training mode meanwhile; every part is left in the mode in which it came.
    views : object with `draw`
        Such as :class:`~manifoldkit.datasets.HomographyViews`; views are brought to the device and dtype of the model.
    steps : int
        Number of gradient steps.
    batch_size : int, default 16
        Things in a step; each has two or three views.
    alpha : float, default 0.5
        Weight of the equivariance loss.
    beta : float or callable, default 0.1
        Weight of the multiplicity loss; a function of the progress, from 0 to 1, is a schedule. A high weight first
        separates the eigenvalues; a low one later lets those unite that transport needs together
        (:func:`annealed`; see also :meth:`LearnedOperator.contract`).
    learning_rate, final_rate : float
        Largest and last rate.
    eigenvalue_rate : float, default 1.0
        Factor of both for the eigenvalues, which have far to go in large operators that are to have distinct ones.
    warm_up : int, default 100
        Steps of linear rise to the largest rate.
    weight_decay : float, default 0.0
        Of encoder and decoder; the operator has none, since the scale of its parameters has no meaning or its own.
    clip : float, optional
        Largest norm of the gradient.
    record_every : int, default 100
        Steps between two members of the answer.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    list of LossRecord
        Losses along the way, the last step included.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.
    FloatingPointError
        If a loss becomes NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.datasets import ShiftViews
    >>> from manifoldkit.isometry import NeuralIsometry, pretrain
    >>> generator = torch.Generator().manual_seed(0)
    >>> views = ShiftViews(torch.randn(60, 4, 4, generator=generator), channels=24, random_state=0)
    >>> model = NeuralIsometry((4, 4), 16, eigenvalues="clustered", generator=generator)
    >>> record = pretrain(model, views, steps=50, batch_size=4, alpha=0.0, beta=0.5, learning_rate=5e-3)
    >>> record[-1].multiplicity < record[0].multiplicity
    True
    """
    if not isinstance(model, NeuralIsometry):
        raise TypeError(f"model must be a NeuralIsometry, got {type(model).__name__}")
    check_views(views)
    steps, batch_size = check_count(steps, "steps"), check_count(batch_size, "batch_size")
    every, warm_up = check_count(record_every, "record_every"), check_count(warm_up, "warm_up", 0)
    alpha = check_real(alpha, "alpha", 0.0)
    schedule = beta if callable(beta) else _constant(check_real(beta, "beta", 0.0))
    largest = check_real(learning_rate, "learning_rate", 0.0, open_low=True)
    last = check_real(final_rate, "final_rate", 0.0, largest)
    if clip is not None:
        clip = check_real(clip, "clip", 0.0, open_low=True)
    eigenvalues = model.operator.root_eigenvalues
    factor = check_real(eigenvalue_rate, "eigenvalue_rate", 0.0, open_low=True)
    decay = check_real(weight_decay, "weight_decay", 0.0)
    functions = [parameter for parameter in model.operator.parameters() if parameter is not eigenvalues]
    groups = [
        {"params": functions, "weight_decay": 0.0},
        {"params": [eigenvalues], "lr": factor * largest, "weight_decay": 0.0},
        {"params": [*model.encoder.parameters(), *model.decoder.parameters()], "weight_decay": decay},
    ]
    # A short memory of squares: the losses change their sizes as beta does.
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=largest, betas=(0.9, 0.99))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / (warm_up + 1),
            (last + (largest - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))) / largest,
        ),
    )
    modes, record = [(part, part.training) for part in model.modules()], []
    model.train()
    try:
        for step in _bar(steps, check_flag(progress, "progress")):
            drawn = views.draw(batch_size)
            floating = isinstance(drawn, Tensor) and drawn.is_floating_point()  # the model refuses what is not
            losses = model(drawn.to(eigenvalues) if floating else drawn)
            total = losses.total(alpha, schedule(step / steps))
            if not torch.isfinite(total):
                raise FloatingPointError(
                    f"the loss is {total.item()} at step {step}: lower learning_rate, or set clip, for example 1.0"
                )
            optimizer.zero_grad()
            total.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            rates.step()
            if step % every == 0 or step == steps - 1:
                record.append(LossRecord(step, *(loss.item() for loss in losses)))
                _log.info("neural isometry, step %d: transport %.4f, equivariance %.4f, multiplicity %.4f", *record[-1])
    finally:
        for part, mode in modes:
            part.training = mode
        optimizer.zero_grad()
    return record


def pretrain_in_stages(
    model: NeuralIsometry,
    views: Views,
    *,
    steps: Sequence[int],
    betas: Sequence[float],
    contractions: Sequence[float] | None = None,
    learning_rate: float = 5e-3,
    eigenvalue_rates: Sequence[float] | None = None,
    batch_size: int = 2,
    alpha: float = 0.0,
    progress: bool = False,
) -> list[LossRecord]:
    """Fit a neural isometry whose eigenspaces are to be as small as the transformations allow.

    One weight `beta` can't do both: a low one leaves several eigenspaces mixed in one, a high one parts eigenfunctions
    that the transformations mix. The first training, with a high weight, finds most eigenfunctions. In each further one
    the weight falls to 0.1: the push at its start and the calm after it mend some of the eigenfunctions that mix two
    eigenspaces. Before the last, all eigenvalues are drawn together (:meth:`LearnedOperator.contract`), so that those
    of eigenfunctions that the transformations mix, but the push has parted, come within reach of each other again.

    Parameters
    ----------
    model, views, learning_rate, batch_size, alpha, progress
        Of :func:`pretrain`.
    steps : sequence of int
        Of the trainings, at least one.
    betas : sequence of float
        Weight of the multiplicity loss in the first, and at the start of each other, at least 0.1.
    contractions : sequence of float, optional
        Factors of the eigenvalues before each training but the first, above 0 and at most 1. By default 0.1 before the
        last, and 1 before the others.
    eigenvalue_rates : sequence of float, optional
        Factors of the rate of the eigenvalues; 1 by default.

    Returns
    -------
    list of LossRecord
        Of all trainings; steps count on.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As :func:`pretrain`; if the sequences differ in length. What can be seen at the start is refused there.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.datasets import ShiftViews
    >>> from manifoldkit.isometry import NeuralIsometry, pretrain_in_stages
    >>> generator = torch.Generator().manual_seed(0)
    >>> views = ShiftViews(torch.randn(60, 4, 4, generator=generator), channels=24, random_state=0)
    >>> model = NeuralIsometry((4, 4), 16, eigenvalues="clustered", generator=generator)
    >>> record = pretrain_in_stages(model, views, steps=(30, 20), betas=(5.0, 1.0))
    >>> record[-1].step
    49
    """
    for name, value in (("steps", steps), ("betas", betas)):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name} must be a sequence with an entry for each training, got {value!r}")
    counts = [check_count(count, "steps") for count in steps]
    rates = [1.0] * len(counts) if eigenvalue_rates is None else list(eigenvalue_rates)
    if not counts or not len(counts) == len(betas) == len(rates):
        raise ValueError(
            f"steps, betas and eigenvalue_rates must have an entry for each training, got {len(counts)}, {len(betas)} "
            f"and {len(rates)}"
        )
    factors = [*[1.0] * (len(counts) - 2), 0.1][: len(counts) - 1] if contractions is None else list(contractions)
    if len(factors) != len(counts) - 1:
        raise ValueError(
            f"contractions must have an entry for each training but the first, {len(counts) - 1}, got {len(factors)}"
        )
    factors = [1.0, *(check_real(factor, "contractions", 0.0, 1.0, open_low=True) for factor in factors)]
    rates = [check_real(rate, "eigenvalue_rates", 0.0, open_low=True) for rate in rates]
    starts = [check_real(beta, "betas", 0.1 if stage else 0.0) for stage, beta in enumerate(betas)]
    records: list[LossRecord] = []
    for stage, (count, beta, rate, factor) in enumerate(zip(counts, starts, rates, factors, strict=True)):
        model.operator.contract(factor)
        part = pretrain(
            model, views, steps=count, batch_size=batch_size, alpha=alpha,
            beta=annealed(beta, 0.1, hold=0.3, end=0.7) if stage else beta, learning_rate=learning_rate,
            final_rate=learning_rate * (0.02 if stage else 0.1), eigenvalue_rate=rate, progress=progress,
        )  # fmt: skip
        records += [entry._replace(step=entry.step + sum(counts[:stage])) for entry in part]
    return records


def check_views(views: Any) -> None:
    """Refuse what can't draw."""
    if isinstance(views, type) or not callable(getattr(views, "draw", None)):
        raise TypeError(f"views must be an object with draw(n_samples), as HomographyViews(images), got {views!r:.80}")


def annealed(first: float, last: float, *, hold: float = 0.5, end: float = 0.9) -> Callable[[float], float]:
    """A weight that stays at `first` for a share `hold` of the training, and falls geometrically to `last` until `end`.

    Parameters
    ----------
    first, last : float
        Positive.
    hold, end : float
        Shares of the training, 0 <= hold < end <= 1.

    Returns
    -------
    callable
        From the progress, 0 to 1, to the weight.

    Examples
    --------
    >>> from manifoldkit.isometry import annealed
    >>> beta = annealed(5.0, 0.05)
    >>> [round(beta(t), 3) for t in (0.0, 0.5, 0.7, 0.9, 1.0)]
    [5.0, 5.0, 0.5, 0.05, 0.05]
    """
    first = check_real(first, "first", 0.0, open_low=True)
    last = check_real(last, "last", 0.0, open_low=True)
    hold = check_real(hold, "hold", 0.0, 1.0)
    end = check_real(end, "end", hold, 1.0, open_low=True)
    return lambda t: first * (last / first) ** min(1.0, max(0.0, (t - hold) / (end - hold)))


def _constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def _bar(steps: int, progress: bool) -> range:
    if not progress:
        return range(steps)
    from tqdm.auto import tqdm

    return tqdm(range(steps), desc="neural isometry", unit="step")
