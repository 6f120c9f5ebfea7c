"""Global search over whole displacements of a coarse grid."""

from convexadam.discrete.coupled_convex import coupled_convex
from convexadam.discrete.inverse_consistency import make_inverse_consistent, opposite
from convexadam.discrete.search import ConvexSearch
from convexadam.kernels.cost_volume import Window, cost_volume

__all__ = ["ConvexSearch", "Window", "cost_volume", "coupled_convex", "make_inverse_consistent", "opposite"]
