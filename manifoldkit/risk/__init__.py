"""Risk: how far from the manifold an adversary is, measured against real data."""

from .calibration import DistanceCalibration

__all__ = ["DistanceCalibration"]
