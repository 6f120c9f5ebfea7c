"""Local refinement of a displacement field by gradient descent."""

from convexadam.continuous.parametrisation import Compositional, Displacement, Parametrisation
from convexadam.continuous.refine import AdamRefinement
from convexadam.continuous.smoothing import BoxSmoothing, GaussianSmoothing, KovesiSmoothing, Smoothing

__all__ = [
    "AdamRefinement",
    "BoxSmoothing",
    "Compositional",
    "Displacement",
    "GaussianSmoothing",
    "KovesiSmoothing",
    "Parametrisation",
    "Smoothing",
]
