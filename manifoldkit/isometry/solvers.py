"""How autoencoders are trained: rounds of L-BFGS on all samples, or Adam on batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm.auto import tqdm

from .modes import keep_frozen
from .penalties import Penalty, View
from .training import batches, finite_gradients

__all__ = ["Objective", "Trainable", "isomap_codes", "principal_codes", "regress", "run_adam", "run_lbfgs"]

#: Called after every round or epoch with its record; True ends the training.
Watcher = Callable[[dict[str, float]], bool]


class Trainable(Protocol):
    """A loss of batches of rows of a tensor, that names its networks and its source of random numbers."""

    @property
    def encoder(self) -> nn.Module:
        """Network to codes."""
        ...

    @property
    def decoder(self) -> nn.Module:
        """Network from codes."""
        ...

    @property
    def generator(self) -> torch.Generator:
        """Source of the order of the rows."""
        ...

    def __call__(self, x: torch.Tensor, /) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch, and its parts."""
        ...


class Objective:
    """Reconstruction error plus penalties of a pair of networks, for batches of samples."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        penalties: Sequence[Penalty],
        corruption: float,
        generator: torch.Generator,
    ) -> None:
        self.encoder, self.decoder, self.penalties = encoder, decoder, tuple(penalties)
        self.corruption, self.generator = corruption, generator
        self._pull_back = any(getattr(penalty, "needs_pullback", False) for penalty in self.penalties)
        names = ["loss", "reconstruction"]
        for penalty in self.penalties:
            name = unique = getattr(penalty, "__name__", type(penalty).__name__)
            k = 1
            while unique in names:
                k += 1
                unique = f"{name}_{k}"
            names.append(unique)
        self._names = names[2:]

    def parameters(self) -> list[nn.Parameter]:
        """Weights of both networks that are not frozen, shared ones once."""
        both = dict.fromkeys(p for net in (self.encoder, self.decoder) for p in net.parameters())
        return [p for p in both if p.requires_grad]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch with fresh random draws, and its parts."""
        seen = x
        if self.corruption:
            noise = torch.randn(x.shape, generator=self.generator, device=self.generator.device)
            seen = x + self.corruption * noise.to(x)
        view = View(self.encoder, self.decoder, seen, self.generator, self._pull_back)
        error = (self.decoder(view.codes) - x).flatten(1).square().sum(dim=1).mean()
        terms = [penalty(view) for penalty in self.penalties]
        loss = torch.stack([error, *terms]).sum()
        parts = {name: float(term.detach()) for name, term in zip(self._names, terms, strict=True)}
        return loss, {"loss": float(loss.detach()), "reconstruction": float(error.detach()), **parts}


def run_adam(
    objective: Trainable,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    *,
    epochs: int,
    batch_size: int | None,
    watcher: Watcher,
    progress: bool,
) -> None:
    """Epochs of batches with the optimiser's rate falling to zero as a cosine; what is frozen is only evaluated.

    A loss or a gradient that is not finite ends the training with a ValueError, before the step.
    """
    schedule = CosineAnnealingLR(optimizer, max(1, epochs))
    for network in (objective.encoder, objective.decoder):
        network.train(any(p.requires_grad for p in network.parameters()))
        keep_frozen(network)
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in tqdm(range(epochs), desc="autoencoder", unit="epoch", disable=not progress):
        records = []
        for rows in batches(len(x), batch_size, objective.generator):
            loss, parts = objective(x[rows if isinstance(rows, slice) else rows.to(x.device)])
            _refuse_nan(parts["loss"])
            optimizer.zero_grad()
            loss.backward()
            if not finite_gradients(learned):
                optimizer.zero_grad()
                raise ValueError(
                    f"the gradient is NaN or infinite though the loss is {parts['loss']:g}: a layer has no finite "
                    "derivative there (a root at 0?), or lower the learning rate"
                )
            optimizer.step()
            records.append(parts)
        schedule.step()
        if watcher({name: float(np.mean([record[name] for record in records])) for name in records[0]}):
            break


def run_lbfgs(
    objective: Objective, x: torch.Tensor, *, rounds: int, iterations: int, watcher: Watcher, progress: bool
) -> None:
    """Rounds of L-BFGS on all samples: the random draws are held fixed within a round, and new in the next.

    Networks with batch statistics are used in evaluation mode throughout, so that the loss is a function. A round that
    ends in a loss or weights that are not finite is undone, and ends the training with a ValueError.
    """
    for network in (objective.encoder, objective.decoder):
        network.eval()
    generator = objective.generator
    for _ in tqdm(range(rounds), desc="autoencoder", unit="round", disable=not progress):
        state = generator.get_state()
        found: dict[str, float] = {}

        def closure(state: torch.Tensor = state, found: dict[str, float] = found) -> torch.Tensor:
            generator.set_state(state)  # every evaluation ends past all draws of the round, where the next one begins
            loss, parts = objective(x)
            found.update(parts)
            return loss

        weights = objective.parameters()
        before = [p.detach().clone() for p in weights]
        minimise(weights, closure, iterations)
        if not (np.isfinite(found["loss"]) and all(bool(torch.isfinite(p).all()) for p in weights)):
            with torch.no_grad():
                for p, old in zip(weights, before, strict=True):
                    p.copy_(old)
            raise ValueError(
                f"the loss is {found['loss']:g}, and it or its gradient is not finite: lower the weights of the "
                "penalties, or see whether a layer has no finite derivative (a root at 0?)"
            )
        if watcher(dict(found)):
            break


def minimise(parameters: Sequence[nn.Parameter], loss: Callable[[], torch.Tensor], iterations: int) -> None:
    """L-BFGS with a strong Wolfe line search."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def regress(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, iterations: int) -> None:
    """Fit a network to targets by least squares."""
    flat = targets.flatten(1)
    minimise(
        [p for p in network.parameters() if p.requires_grad],
        lambda: (network(inputs).flatten(1) - flat).square().sum(dim=1).mean(),
        iterations,
    )


def isomap_codes(x: np.ndarray[Any, Any], d: int, n_neighbors: int, limit: int, rng: np.random.Generator) -> Any:
    """Isomap coordinates (n, d) of samples (n, D): geodesic distances, so nearly isometric on flat convex sheets.

    Above `limit` samples it is fitted to a random part and extended to the others.
    """
    from sklearn.manifold import Isomap

    if d >= len(x):
        raise ValueError(f"init='isomap' finds at most {len(x) - 1} codes of {len(x)} samples, got n_components={d}")
    # Isomap's iterative solvers start at random numbers of numpy's global generator; the dense one needs none.
    isomap = Isomap(n_neighbors=min(n_neighbors, len(x) - 1), n_components=d, eigen_solver="dense")
    chosen = x if len(x) <= limit else x[rng.permutation(len(x))[:limit]]
    codes = isomap.fit_transform(x) if chosen is x else isomap.fit(chosen).transform(x)
    return codes - codes.mean(axis=0)


def principal_codes(x: np.ndarray[Any, Any], d: int) -> Any:
    """Principal components (n, d)."""
    if d > min(x.shape):
        raise ValueError(
            f"init='pca' finds at most {min(x.shape)} codes of {len(x)} samples with {x.shape[1]} entries, got "
            f"n_components={d}: give more samples or another init"
        )
    centred = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :d]


def _refuse_nan(loss: float) -> None:
    if not np.isfinite(loss):
        raise ValueError(f"the loss is {loss}: lower the learning rate or the weights of the penalties")
