"""Attacks on the codes of a GridVAE, inside a cell or across cells, and what they changed, in symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from manifoldkit._arrays import flatten
from manifoldkit.attacks._model import Network, as_is
from manifoldkit.attacks.constraints import Constraint
from manifoldkit.attacks.loop import STALLED, SUCCESS, Walk
from manifoldkit.attacks.pullback import LatentPGD
from manifoldkit.attacks.result import AttackResult
from manifoldkit.geometry.decoder import DecoderManifold

__all__ = ["CellPGD", "SymbolChanges", "symbol_changes"]

_MARGIN = 1e-3  # of sigma, from the edges of cells, so that an adversary that is read again has its symbols
_RETURNS = 8  # ways back into its cell that an adversary is given which the bounds have pushed out


class CellPGD(LatentPGD):
    r"""PGD on the codes of a GridVAE: on-manifold adversaries with the same symbols, or with others.

    .. math:: \max_\zeta L(f(\mathrm{dec}(z + \zeta)), y), \quad \|\zeta\| \leq \epsilon,
              \quad z + \zeta \in \text{cell}(z)

    The walk starts at the refined code z of an image, that of the nearest point of the manifold of the decoder. With
    `confined` it stays in the cell of z, a thousandth of sigma away from the edges, so that the adversary is, in the
    language of the GridVAE, the same thing; what it exploits is variation within the symbols. Otherwise it may cross
    to other cells, and :func:`symbol_changes` tells which.

    What is decoded is clipped to the bounds, which may move it to where other symbols are read. So a confined adversary
    is read again, and where its symbols have changed, its code is moved back by as much as it came out of the cell, a
    few times; what then still has other symbols is no adversary: the image given takes its place.

    Parameters
    ----------
    model : torch.nn.Module
        Maps images (B, ...) to logits (B, K).
    vae : GridVAE
        Fitted on such images.
    eps : float or array of shape (B,), default=1.0
        Radius of the ball of codes, in the units of the levels.
    confined : bool, default=True
        Whether codes stay in their cells.
    **options
        As of :class:`LatentPGD`, but `box`.

    Raises
    ------
    TypeError
        If `vae` is no fitted GridVAE, or an argument has the wrong type.
    ValueError
        As :class:`PGD`.

    Examples
    --------
    >>> from manifoldkit.priors import GridPrior, GridVAE
    >>> X = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    >>> vae = GridVAE(GridPrior(1, [0.0, 1.0], 0.25), hidden=(16,), max_steps=50).fit(X, attributes=X[:, :1].round())
    >>> model = torch.nn.Linear(3, 2)
    >>> result = CellPGD(model, vae, eps=2.0).run(X[:8], model(X[:8]).argmax(dim=1))
    >>> symbol_changes(result, vae, X[:8]).changed.any()
    np.False_
    """

    vae: Any
    confined: bool

    def __init__(
        self, model: torch.nn.Module, vae: Any, eps: Any = 1.0, *, confined: bool = True, **options: Any
    ) -> None:
        _checked(vae)
        super().__init__(model, vae.decoder_, vae.encoder_, eps, **options)
        self._store(vae=vae, confined=confined)

    def _bind(
        self,
        images: torch.Tensor,
        eps: torch.Tensor | None,
        manifold_labels: torch.Tensor | None,
        generator: torch.Generator,
    ) -> Constraint:
        pullback: Any = super()._bind(images, eps, manifold_labels, generator)
        if self.confined:
            codes = pullback.ball.start()
            margin = _MARGIN * self.vae.prior.sigma.to(codes)
            lower, upper = self.vae.prior.cell_bounds(codes)
            pullback.ball = _InCell(
                pullback.ball, torch.minimum(lower + margin, codes), torch.maximum(upper - margin, codes)
            )
        return pullback

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        return _refined(self.vae, images)

    def _read(self, name: str, value: Any) -> Any:
        match name:
            case "vae":
                return _checked(value)
            case "confined":
                return bool(value)
            case "box" if value is not None:
                raise ValueError("CellPGD has no box, its codes stay within eps and in their cells: leave it out")
        return super()._read(name, value)

    def _store(self, **values: Any) -> None:
        super()._store(**values)
        if "vae" in values:
            super()._store(decoder=self.vae.decoder_, encoder=self.vae.encoder_)

    def _attack(
        self,
        network: Network,
        x: torch.Tensor,
        labels: torch.Tensor,
        eps: torch.Tensor | None,
        members: torch.Tensor | None,
        begin: torch.Tensor | None,
    ) -> tuple[Walk, torch.Tensor]:
        state, before = super()._attack(network, x, labels, eps, members, begin)
        if self.confined:
            self._return(network, x, labels, eps, state)
        return state, before

    def _return(
        self, network: Network, x: torch.Tensor, labels: torch.Tensor, eps: torch.Tensor | None, state: Walk
    ) -> None:
        """Bring adversaries back that are read with other symbols than their images; see the class."""
        start = _refined(self.vae, x)
        symbols = self.vae.prior.nearest(start)
        read = _nearer(self.vae, state.x, start)
        rows = (self.vae.prior.nearest(read) != symbols).any(dim=1).nonzero()[:, 0]
        if not len(rows):
            return
        generator = torch.Generator()  # of random starts, of which there are none here
        limits: Any = self._bind(x[rows], None if eps is None else eps[rows.cpu()], None, generator)
        code, shown = limits.project(read[rows]), x[rows]
        out = torch.ones_like(rows, dtype=torch.bool)
        for attempt in range(_RETURNS):  # longer and longer, as the bounds push out the nearer codes as well
            trial = limits.view(code)
            read = _nearer(self.vae, trial, start[rows])
            home = out & (self.vae.prior.nearest(read) == symbols[rows]).all(dim=1)
            shown[home], out = trial[home], out & ~home
            if not out.any():
                break
            code = limits.project(code - 1.5**attempt * (read - limits.ball.inside(read)))
        _, predictions, objective = network.evaluate(shown, labels[rows], as_is)
        broken = network.broken(predictions, labels[rows])
        state.x[rows], state.predictions[rows], state.objective[rows] = shown, predictions, objective
        state.code[rows] = torch.where(broken, SUCCESS, STALLED).to(state.code)
        if state.path:
            state.path.append(state.x.clone())
            state.path_predictions.append(state.predictions.clone())


class _InCell(Constraint):
    """A ball of codes, cut off at the edges of cells; row i of the edges belongs to sample i.

    Clamping towards a box that holds the centre only shortens a change, so that the ball is kept as well.
    """

    def __init__(self, ball: Constraint, lower: torch.Tensor, upper: torch.Tensor) -> None:
        self.ball, self.lower, self.upper = ball, lower, upper

    def start(self) -> torch.Tensor:
        return self.ball.start()

    def random_start(self, generator: torch.Generator) -> torch.Tensor:
        return self.inside(self.ball.random_start(generator))

    def direction(self, x: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
        return self.ball.direction(x, gradient)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(self.ball.project(x))

    def select(self, keep: torch.Tensor) -> None:
        self.ball.select(keep)
        self.lower, self.upper = self.lower[keep], self.upper[keep]

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        """Points moved into their cells, whatever the ball is."""
        return torch.minimum(torch.maximum(x, self.lower), self.upper)


@dataclass(frozen=True, eq=False)
class SymbolChanges:
    """What an attack changed, in symbols.

    Attributes
    ----------
    before, after : (B, n) int64 array
        Messages of the images and of the adversaries.
    codes_before, codes_after : (B, n) float64 array
        Their refined codes.
    success : (B,) bool array
        Of the attack.
    names : tuple of n str
        Of the axes.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    codes_before: NDArray[np.float64]
    codes_after: NDArray[np.float64]
    success: NDArray[np.bool_]
    names: tuple[str, ...]

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Which symbols differ, (B, n)."""
        return self.before != self.after

    def rates(self) -> dict[str, float]:
        """Share of the successful adversaries in which each symbol differs, NaN if there are none."""
        shares = self.changed[self.success].mean(axis=0) if self.success.any() else np.full(len(self.names), np.nan)
        return dict(zip(self.names, shares.tolist(), strict=True))

    def summary(self, sample: int) -> str:
        """One line that says what became of a sample."""
        moves = [
            f"{self.names[d]}: {self.before[sample, d]} -> {self.after[sample, d]}"
            for d in np.flatnonzero(self.changed[sample])
        ]
        outcome = "broken" if self.success[sample] else "not broken"
        return f"{outcome}; " + (", ".join(moves) if moves else "same symbols")


def symbol_changes(result: AttackResult, vae: Any, images: Any, *, names: Any = None) -> SymbolChanges:
    """Read images and their adversaries in the symbols of a GridVAE, through their refined codes.

    The codes of an adversary are searched from what the encoder says and from the code of its image; the nearer point
    of the manifold counts.

    Parameters
    ----------
    result : AttackResult
        Of any attack on `images`; adversaries off the manifold are read at their projections.
    vae : GridVAE
        Fitted on such images.
    images : array or tensor (B, ...)
        Those attacked.
    names : sequence of n str, optional
        Of the axes, "axis 0" and so on by default.

    Returns
    -------
    SymbolChanges

    Raises
    ------
    TypeError, ValueError
        If `vae` is no fitted GridVAE, or shapes do not fit.
    """
    n = _checked(vae).prior.n_dims
    labels = tuple(f"axis {d}" for d in range(n)) if names is None else tuple(names)
    if len(labels) != n:
        raise ValueError(f"names must have {n} members, one for each axis, got {len(labels)}")
    ends = [torch.as_tensor(part).detach() for part in (images, result.adversarial)]
    if ends[0].shape != ends[1].shape:
        raise ValueError(
            f"images must have shape {tuple(ends[1].shape)}, as the adversaries, got {tuple(ends[0].shape)}"
        )
    start = _refined(vae, ends[0])
    codes = [start.cpu(), _nearer(vae, ends[1], start).cpu()]
    before, after = (vae.prior.nearest(code, return_index=True)[1].numpy() for code in codes)
    success = torch.as_tensor(result.success).cpu().numpy()
    return SymbolChanges(before, after, codes[0].double().numpy(), codes[1].double().numpy(), success, labels)


def _refined(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Codes (B, n) of the nearest points of the decoder's manifold."""
    flat = flatten(images, vae.sample_shape_, "images")
    codes: torch.Tensor = vae.manifold.encode(flat.reshape(-1, *vae.sample_shape_))
    return codes


def _nearer(vae: Any, images: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Refined codes of images, found from the encoder's codes or from `start`, whichever leads nearer.

    An encoder may misread an adversary that was decoded from a code near `start`.
    """
    flat = flatten(images, vae.sample_shape_, "images").reshape(-1, *vae.sample_shape_)
    manifolds = vae.manifold, DecoderManifold(_Constant(start), vae.decoder_)
    (mine, far), (other, near) = ((manifold.encode(flat), manifold.distance(flat)) for manifold in manifolds)
    return torch.where((near < far)[:, None], other, mine)


class _Constant(torch.nn.Module):
    """An encoder that knows the codes, of one batch."""

    def __init__(self, codes: torch.Tensor) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.codes.to(x)


def _checked(vae: Any) -> Any:
    missing = [name for name in ("encoder_", "decoder_", "prior", "manifold") if not hasattr(vae, name)]
    if missing or not hasattr(vae.prior, "cell_bounds"):
        raise TypeError(f"vae must be a fitted GridVAE, got {type(vae).__name__}: call fit first")
    return vae
