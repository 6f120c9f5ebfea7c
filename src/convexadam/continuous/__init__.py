"""Local refinement of a displacement field by gradient descent."""

from convexadam.continuous.parametrisation import Compositional, Displacement, Parametrisation
from convexadam.continuous.refine import AdamRefinement
from convexadam.continuous.regularisers import Bending, Diffusion, Regulariser, VolumePreserving
from convexadam.continuous.smoothing import BoxSmoothing, GaussianSmoothing, KovesiSmoothing, Smoothing
from convexadam.continuous.volume_mask import volume_mask

__all__ = [
    "AdamRefinement",
    "Bending",
    "BoxSmoothing",
    "Compositional",
    "Diffusion",
    "Displacement",
    "GaussianSmoothing",
    "KovesiSmoothing",
    "Parametrisation",
    "Regulariser",
    "Smoothing",
    "VolumePreserving",
    "volume_mask",
]
