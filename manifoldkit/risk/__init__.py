"""Risk: where a network's vulnerability comes from, and how far from the manifold an adversary is."""

from .calibration import DistanceCalibration
from .decomposition import decompose_risk
from .feet import foot_points
from .on_manifold import OnManifoldReport, OnManifoldTest
from .pessimistic import pessimistic_classifier
from .result import RiskDecomposition
from .tubular import tubular_grid_risk

__all__ = [
    "DistanceCalibration",
    "OnManifoldReport",
    "OnManifoldTest",
    "RiskDecomposition",
    "decompose_risk",
    "foot_points",
    "pessimistic_classifier",
    "tubular_grid_risk",
]
