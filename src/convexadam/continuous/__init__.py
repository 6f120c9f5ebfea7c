"""Local refinement of a displacement field by gradient descent (layer 3)."""

from convexadam.continuous.refine import AdamRefinement
from convexadam.continuous.smoothing import BoxSmoothing, GaussianSmoothing, KovesiSmoothing, Smoothing

__all__ = ["AdamRefinement", "BoxSmoothing", "GaussianSmoothing", "KovesiSmoothing", "Smoothing"]
