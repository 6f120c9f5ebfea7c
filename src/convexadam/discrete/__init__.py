"""Global search over whole displacements of a coarse grid of control points."""

from convexadam.discrete.coupled_convex import coupled_convex
from convexadam.discrete.search import ConvexSearch
from convexadam.discrete.soft import soft_displacement
from convexadam.kernels.cost_volume import Window, cost_volume
from convexadam.kernels.inverse_consistency import estimate_inverse, make_inverse_consistent

__all__ = [
    "ConvexSearch",
    "Window",
    "cost_volume",
    "coupled_convex",
    "estimate_inverse",
    "make_inverse_consistent",
    "soft_displacement",
]
