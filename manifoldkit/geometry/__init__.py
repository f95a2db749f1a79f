"""Geometry: kernels, spectra, the Nystrom extension and projection, vector fields and tangent spaces."""

from .atlas import ManifoldAtlas
from .decoder import DecoderManifold
from .diffusion import DiffusionManifold
from .exact import Circle, FlatTorus, Plane, Sphere
from .exterior import ExteriorCalculus
from .nystrom import NystromLayer
from .protocol import LabelledManifold, Manifold

__all__ = [
    "Circle",
    "DecoderManifold",
    "DiffusionManifold",
    "ExteriorCalculus",
    "FlatTorus",
    "LabelledManifold",
    "Manifold",
    "ManifoldAtlas",
    "NystromLayer",
    "Plane",
    "Sphere",
]
