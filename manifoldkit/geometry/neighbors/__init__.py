"""Nearest neighbours among the training points: one `kneighbors` call behind which the engines differ."""

from .approximate import ForeignNeighbors, PynndescentNeighbors
from .base import Floats, Ints, NeighborSearch
from .exact import BruteNeighbors, TreeNeighbors
from .faiss_index import FaissNeighbors
from .graph import GraphNeighbors
from .keops import KeopsNeighbors
from .select import NEIGHBOR_ENGINES, neighbor_search

__all__ = [
    "NEIGHBOR_ENGINES",
    "BruteNeighbors",
    "FaissNeighbors",
    "Floats",
    "ForeignNeighbors",
    "GraphNeighbors",
    "Ints",
    "KeopsNeighbors",
    "NeighborSearch",
    "PynndescentNeighbors",
    "TreeNeighbors",
    "neighbor_search",
]
