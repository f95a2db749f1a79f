"""Pictures of learned manifolds and of what attacks did on them.

Every function takes `ax=None` (`axes=None` for grids), draws there or in a new figure, and returns the Axes.
Nothing global is changed. Colours can be told apart by colour-blind readers.

Examples
--------
>>> import matplotlib
>>> matplotlib.use("Agg")
>>> from manifoldkit.datasets import make_circle
>>> from manifoldkit.plotting import plot_vectors
>>> sample = make_circle(24, grid=True)
>>> plot_vectors(sample.points, sample.tangents).get_xlabel()
'$x$'
"""

from .attack_rows import plot_attack_rows
from .decision import plot_decision_map
from .embedding import plot_embedding
from .images import plot_images, plot_tangent_images
from .loss_map import plot_loss_map
from .robustness import plot_robustness
from .spectrum import plot_scaling_curve, plot_spectrum
from .success import plot_success_curve
from .vectors import plot_projection, plot_vectors

__all__ = [
    "plot_attack_rows",
    "plot_decision_map",
    "plot_embedding",
    "plot_images",
    "plot_loss_map",
    "plot_projection",
    "plot_robustness",
    "plot_scaling_curve",
    "plot_spectrum",
    "plot_success_curve",
    "plot_tangent_images",
    "plot_vectors",
]
