"""Learn the manifold that data lie on, move along it, and see what a neural network does there.

Examples
--------
>>> import numpy as np
>>> from manifoldkit import DiffusionManifold
>>> from manifoldkit.datasets import make_circle
>>> m = DiffusionManifold(n_components=9).fit(make_circle(300, random_state=0).points)
>>> round(float(np.linalg.norm(m.project([[0.0, 1.3]]))), 1)
1.0
"""

from ._saving import load
from .geometry import DiffusionManifold, ExteriorCalculus, ManifoldAtlas

__version__ = "0.1.0"

__all__ = ["DiffusionManifold", "ExteriorCalculus", "ManifoldAtlas", "__version__", "load"]
