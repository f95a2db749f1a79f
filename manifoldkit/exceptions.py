"""Errors and warnings of the library, each with a class of its own so that it can be filtered or turned into an error.

Wrong input raises :class:`ValueError` or :class:`TypeError`; the warnings here are for input that has a safe
answer which the user should know about.

Examples
--------
>>> import warnings
>>> from manifoldkit.exceptions import OutlierWarning
>>> warnings.simplefilter("error", OutlierWarning)  # make outliers fatal
>>> warnings.simplefilter("default", OutlierWarning)
"""

from __future__ import annotations

__all__ = [
    "BoundsWarning",
    "CalibrationWarning",
    "DegenerateTangentWarning",
    "DisconnectedGraphWarning",
    "DuplicatePointsWarning",
    "EigenSolverError",
    "ManifoldWarning",
    "MedialAxisWarning",
    "NoCommonOperatorWarning",
    "NoPairsWarning",
    "OutlierWarning",
    "RankDeficientWarning",
    "ReachWarning",
    "ScaleWarning",
    "ScheduleWarning",
    "SmallClassWarning",
    "SpectrumTruncatedWarning",
    "UnconvergedProjectionWarning",
    "UndefinedStatisticWarning",
    "UnsteadyModelWarning",
]


class ManifoldWarning(UserWarning):
    """Base of every warning that manifoldkit issues."""


class EigenSolverError(RuntimeError):
    """Eigenpairs did not converge, or do not satisfy their equation; the message says what to change."""


class DuplicatePointsWarning(ManifoldWarning):
    """Exact or nearly exact copies among the training points were merged or given a floored bandwidth."""


class OutlierWarning(ManifoldWarning):
    """Some training points lie hundreds of bandwidths away from the rest."""


class DisconnectedGraphWarning(ManifoldWarning):
    """The training points fall into several components, or are about to."""


class SpectrumTruncatedWarning(ManifoldWarning):
    """Fewer eigenpairs than asked for can be used without amplifying noise."""


class ReachWarning(ManifoldWarning):
    """A distance is not below the reach of the manifold, within which nearest points are unique."""


class ScaleWarning(ManifoldWarning):
    """The kernel scale lies outside the range in which the diffusion approximates a Laplacian."""


class BoundsWarning(ManifoldWarning):
    """Points of a manifold leave the bounds of valid samples."""


class CalibrationWarning(ManifoldWarning):
    """Too few held-out samples for a test to reject anything."""


class DegenerateTangentWarning(ManifoldWarning):
    """Vector fields or neighbours do not span the tangent space at some of the points."""


class MedialAxisWarning(ManifoldWarning):
    """Two far-apart training points are equally near, so that the projection of the query is ill-defined."""


class NoCommonOperatorWarning(ManifoldWarning):
    """Transformations share no operator that they leave as it is, or only roughly."""


class NoPairsWarning(ManifoldWarning):
    """No two samples of a batch share a cell of the partition, so that the isometric loss is zero."""


class RankDeficientWarning(ManifoldWarning):
    """A Jacobian has fewer independent rows than it should, so that a volume is zero and its logarithm -inf."""


class ScheduleWarning(ManifoldWarning):
    """A noise schedule ends before the signal is gone."""


class SmallClassWarning(ManifoldWarning):
    """Some classes have too few samples for the batches asked for, and are in none of them."""


class UnconvergedProjectionWarning(ManifoldWarning):
    """The search for nearest points on a manifold ended before it had found them all."""


class UndefinedStatisticWarning(ManifoldWarning):
    """A statistic does not exist for these data, and is NaN."""


class UnsteadyModelWarning(ManifoldWarning):
    """A network answers the same samples differently when asked again."""
