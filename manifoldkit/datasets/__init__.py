"""Data whose geometry is known, and images to try the methods on.

The ``make_*`` functions sample manifolds with exact tangent spaces, which makes them the oracles of tests and
demos; the ``load_*`` functions read MNIST and Fashion-MNIST from disk, or download them once.

Examples
--------
>>> from manifoldkit.datasets import make_circle
>>> sample = make_circle(100, grid=True)
>>> sample.points.shape, sample.tangents.shape
((100, 2), (100, 2, 1))
"""

from __future__ import annotations

from ._sample import ManifoldSample
from .attributed import AttributedImages
from .celeba import load_celeba
from .curves import make_circle, make_noisy_circle
from .digits import RenderedImages, make_rotated_digit, render_digit
from .faces import FACE_ATTRIBUTES, draw_faces, face_is_possible, make_faces
from .homographies import HOMOGRAPHY_GENERATORS, random_homographies, warp_homographies
from .mnist import ImageDataset, load_fashion_mnist, load_mnist
from .pairs import DigitPairs, load_digit_pairs
from .sheets import make_open_sphere, make_s_curve
from .surfaces import make_sphere, make_swiss_roll, make_torus
from .tasks import ClassifiedSample, make_circle_task, make_plane_task
from .tubes import make_linked_rings, make_ring_torus
from .views import HomographyViews, ShiftViews

__all__ = [
    "FACE_ATTRIBUTES",
    "HOMOGRAPHY_GENERATORS",
    "AttributedImages",
    "ClassifiedSample",
    "DigitPairs",
    "HomographyViews",
    "ImageDataset",
    "ManifoldSample",
    "RenderedImages",
    "ShiftViews",
    "draw_faces",
    "face_is_possible",
    "load_celeba",
    "load_digit_pairs",
    "load_fashion_mnist",
    "load_mnist",
    "make_circle",
    "make_circle_task",
    "make_faces",
    "make_linked_rings",
    "make_noisy_circle",
    "make_open_sphere",
    "make_plane_task",
    "make_ring_torus",
    "make_rotated_digit",
    "make_s_curve",
    "make_sphere",
    "make_swiss_roll",
    "make_torus",
    "random_homographies",
    "render_digit",
    "warp_homographies",
]
