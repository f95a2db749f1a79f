"""Moving samples uphill in a score of how usual they are, to undo what an attack did."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn
from tqdm.auto import tqdm

from .._arrays import like
from ..attacks._input import read_bounds, read_images, read_norm, read_radius, read_steps
from ..attacks._model import View, as_found, differentiate
from ..attacks.constraints import L2Ball, LinfBall
from ..attacks.loop import walk
from ..attacks.patch import Masked, read_mask
from ..attacks.steps import FixedSteps
from ..isometry._input import fresh

__all__ = ["Score", "purify"]

#: From samples (B, ...) to one number each, (B,); row i depends on sample i alone.
Score: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


def purify(
    score: Score,
    x: Any,
    *,
    step: float = 1 / 255,
    n_steps: int = 256,
    eps: float | None = None,
    norm: str | float = "inf",
    mask: Any = None,
    n_restarts: int = 1,
    start_noise: float = 0.2,
    final_score: Score | None = None,
    bounds: tuple[float, float] | None = (0, 1),
    modules: Iterable[nn.Module] = (),
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Any:
    r"""Move samples to where a score is higher, by signed gradient steps, before a classifier sees them.

    .. math:: x \leftarrow \Pi(x + \alpha \operatorname{sign} \nabla_x s(x))

    with :math:`\Pi` the clip to the bounds and, if given, to a ball around the sample. It is the loop of the attacks,
    with the score in the place of the loss. A defence of this kind can be attacked in turn, see
    :class:`~manifoldkit.defenses.PurifiedClassifier`: never report its accuracy under attacks that do not know it
    without that under attacks that do.

    Parameters
    ----------
    score : Module or callable
        (B, ...) to (B,), differentiable, larger where samples are more usual: :class:`~manifoldkit.defenses.ELBOScore`,
        :class:`~manifoldkit.defenses.DiffusionScore`, :class:`~manifoldkit.defenses.ManifoldScore`, the ``log_prob``
        of a flow. It may draw random numbers.
    x : tensor or array (B, ...)
        Floating samples within the bounds.
    step : float, default=1 / 255
        Length of a step.
    n_steps : int, default=256
        Number of steps; 0 returns x.
    eps : float, optional
        Radius of the ball around each sample; None, for patches, leaves only the bounds.
    norm : {"inf", 2}, default="inf"
        Norm of the ball. In that of norm 2 steps follow the normalised gradient.
    mask : tensor or array of zeros and ones, optional
        1 where pixels may change (who knows the place of a patch); broadcasts to x. All by default.
    n_restarts : int, default=1
        Walks for each sample; the first begins at the sample, the others at random points around it and with steps of
        alternating length (2 step, step, 2 step, ...). The one that `final_score` likes best is kept.
    start_noise : float, default=0.2
        Radius of those random points if `eps` is None.
    final_score : callable, optional
        Compares the ends of the walks of several restarts, of which there must be two at least; a score without
        chance, such as ``ELBOScore(vae, n_samples=0)``. Default: `score`.
    bounds : (low, high) or None, default=(0, 1)
        Range of valid entries.
    modules : iterable of Module, optional
        Networks that the score uses and that cannot be found: those of a Module, of its methods and of
        :func:`functools.partial` of these are. All run in evaluation mode and are left as they were.
    batch_size : int, default=1024
        Samples at a time.
    generator : torch.Generator, optional
        Source of the random points of restarts; None is a fresh one.
    progress : bool, default=False
        Show a bar over batches.

    Returns
    -------
    tensor or array (B, ...)
        In the kind, dtype and device of x.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, there is a `final_score` and one walk alone, x leaves the bounds or holds NaN, the
        mask has no ones or other numbers than 0 and 1, or the score has the wrong shape, is NaN or cannot be
        differentiated.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers
       in Computer Science 5:1253682, 2023, equation (30).
    .. [2] Yang, Xu, Zhang, Hartley and Tu, "Adversarial purification with the manifold hypothesis", arXiv 2210.14404.

    Examples
    --------
    >>> purify(lambda x: -(x - 0.5).square().sum(1), torch.tensor([[0.25, 0.75]]), step=0.125, n_steps=2)
    tensor([[0.5000, 0.5000]])
    """
    if not callable(score):
        raise TypeError(f"score must be a Module or a function (B, ...) -> (B,), got {type(score).__name__}")
    n_steps, n_restarts = read_steps(n_steps, "n_steps", 0), read_steps(n_restarts, "n_restarts", 1)
    if final_score is not None and n_restarts == 1:
        raise ValueError(
            "final_score compares the ends of several walks, but n_restarts=1 makes one: pass n_restarts=2 or more, or "
            "leave final_score out"
        )
    n_restarts = n_restarts if n_steps else 1  # there is no walk whose end could be better
    batch_size = read_steps(batch_size, "batch_size", 1)
    limits, number = read_bounds(bounds), read_norm(norm, allowed=(math.inf, 2))
    length, noise = float(read_radius(step, "step")), float(read_radius(start_noise, "start_noise"))
    if eps is not None:
        reach = noise = float(read_radius(eps, "eps"))
    elif limits is not None:
        reach = math.inf
    else:
        raise ValueError("purification without bounds needs a ball to stay in: pass eps, or bounds=(low, high)")
    ball = LinfBall if number == math.inf else L2Ball
    rng = fresh(generator)
    hill, judge = _Scored(score), _Scored(score if final_score is None else final_score)
    nets = [*modules_of(score), *modules_of(final_score), *modules]

    def climb(x: torch.Tensor, mask: torch.Tensor, attempt: int) -> torch.Tensor:
        """The end of one walk from samples (B, ...); the first, number 0, begins at the samples."""

        def within(radius: float) -> Masked:
            return _Noisy(ball(x, x.new_full((len(x),), radius), limits), x, mask)

        constraint, start = within(reach), x
        if attempt:
            start = constraint.project(within(noise).random_start(rng))
        rule = FixedSteps(x.new_full((len(x),), length * (1 + attempt % 2)), start)
        blank = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return walk(hill, constraint, rule, start, blank, n_steps, early_stop=False).x

    with torch.inference_mode(False), torch.no_grad(), as_found(*nets):
        home = next((p for net in nets for p in net.parameters() if p.is_floating_point()), None)
        device, dtype = (None, None) if home is None else (home.device, home.dtype)
        samples = read_images(x, device, dtype, limits)
        free = torch.ones_like(samples, dtype=torch.bool) if mask is None else read_mask(mask, samples)
        done = []
        for here, where in tqdm(
            list(zip(samples.split(batch_size), free.split(batch_size), strict=True)),
            desc="purify",
            disable=not progress,
        ):
            best = climb(here, where, 0)
            height = judge.height(best) if n_restarts > 1 else best.new_empty(0)
            for attempt in range(1, n_restarts):
                end = climb(here, where, attempt)
                other = judge.height(end)
                better = other > height
                best[better], height[better] = end[better], other[better]
            done.append(best)
        end = torch.cat(done)
        given = torch.as_tensor(x).detach().to(end.device)  # what did not move keeps the digits that a network drops
        return like(torch.where(end == samples, given, end.to(given)), x)


def modules_of(score: Any) -> list[nn.Module]:
    """The networks that a score is made of, as far as can be seen from outside."""
    if isinstance(score, nn.Module):
        return [score]
    if isinstance(score, functools.partial):
        return [net for part in (score.func, *score.args, *score.keywords.values()) for net in modules_of(part)]
    return modules_of(getattr(score, "__self__", None)) if hasattr(score, "__self__") else []


class _Noisy(Masked):
    """A step from the same point may differ from the last one, as scores may draw random numbers."""

    deterministic = False


class _Scored:
    """A score as the hill that the loop of the attacks climbs; nothing is ever broken."""

    def __init__(self, score: Score) -> None:
        self.score = score

    def height(self, x: torch.Tensor) -> torch.Tensor:
        value = self.score(x)
        if not isinstance(value, torch.Tensor) or value.shape != (len(x),):
            what = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"score must return one number a sample, a tensor of shape ({len(x)},), got {what}")
        if torch.isnan(value).any():
            raise ValueError(f"score is NaN for {int(torch.isnan(value).sum())} of {len(x)} samples")
        return value

    def broken(self, predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(labels, dtype=torch.bool)

    def evaluate(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x, labels, self.height(x)

    def gradient(
        self, x: torch.Tensor, labels: torch.Tensor, view: View
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            height = self.height(leaf)
            gradient = differentiate(height, leaf)
        return x, labels, height.detach(), gradient
