"""What a risk decomposition found, as rates, sample by sample, and with one cause for each vulnerable sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAUSES", "RiskDecomposition"]

#: Causes of vulnerability; the first that applies is that of a sample.
CAUSES = ("standard", "normal", "in_manifold", "nearby_normal", "unexplained")

Mask = NDArray[np.bool_]


@dataclass(eq=False, repr=False)
class RiskDecomposition:
    r"""Adversarial risk and the risks whose sum bounds it, for n samples.

    .. math:: 1_\mathrm{adv} \leq 1_\mathrm{std} + 1_\mathrm{normal} + 1_\mathrm{in} + 1_\mathrm{nnr}

    holds for every sample where the manifold and the budget are right; where it does not, the cause is "unexplained".

    Attributes
    ----------
    eps : float
        Budget: eps in the whole and the normal space, 2 eps on the manifold.
    norm : float
        2 or inf.
    adv, std, normal, in_manifold, nnr : bool array of shape (n,)
        Which samples are at risk: from any change; as they are; from a normal change; from another place of the
        manifold; from being near a place with a normal risk (and only from that).
    witnesses : dict of arrays of shape (n, ...)
        For "adv", "normal", "in_manifold" and "nnr", a point that shows the risk of each sample; NaN where there is
        none. Empty for estimates that keep none.
    off_manifold : float array of shape (n,)
        Distance of the samples given to the manifold, in units of eps.
    tangent_share : float array of shape (n,)
        Of the change from the foot point on the manifold to the adversary: the share that is tangent, 0 for a true
        projection; NaN where there is no adversary.
    """

    eps: float
    norm: float
    adv: Mask
    std: Mask
    normal: Mask
    in_manifold: Mask
    nnr: Mask
    witnesses: dict[str, Any] = field(default_factory=dict)
    off_manifold: NDArray[np.float64] | None = None
    tangent_share: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.adv)

    @property
    def cause(self) -> NDArray[np.str_]:
        """One of `CAUSES` for each vulnerable sample, "" for the others; shape (n,)."""
        result = np.full(len(self), "", dtype="<U13")
        causes = (self.std, self.normal, self.in_manifold, self.nnr, np.ones(len(self), dtype=bool))
        for name, mask in zip(CAUSES, causes, strict=True):
            result[(result == "") & self.adv & mask] = name
        return result

    @property
    def violations(self) -> Mask:
        """Samples where the bound fails pointwise, (n,)."""
        return self.adv & ~(self.std | self.normal | self.in_manifold | self.nnr)

    def rates(self) -> dict[str, float]:
        """Shares of the samples at each risk, and the sums.

        Keys: `adv`, `std`, `normal`, `in_manifold`, `nnr`; `rhs3` without and `rhs4` with the nearby normal risk; a
        sum above 1 says nothing.
        """
        rates = {name: float(getattr(self, name).mean()) for name in ("adv", "std", "normal", "in_manifold", "nnr")}
        rates["rhs3"] = rates["std"] + rates["normal"] + rates["in_manifold"]
        rates["rhs4"] = rates["rhs3"] + rates["nnr"]
        return rates

    @property
    def vacuous(self) -> bool:
        """Whether the bound is one or more, so that it says nothing."""
        return self.rates()["rhs4"] >= 1

    def shares(self) -> dict[str, float]:
        """Share of all samples with each cause; they add up to the adversarial risk."""
        cause = self.cause
        return {name: float((cause == name).mean()) for name in CAUSES}

    def __repr__(self) -> str:
        rates = ", ".join(f"{name} {value:.3f}" for name, value in self.rates().items())
        rest = self.shares()["unexplained"]
        return f"RiskDecomposition({len(self)} samples, eps={self.eps:g}: {rates}, unexplained {rest:.3f})"
