"""Local refinement of a displacement field by minimisation."""

from convexadam.continuous.adam import Adam
from convexadam.continuous.levenberg_marquardt import LevenbergMarquardt
from convexadam.continuous.parametrisation import Compositional, Displacement, Parametrisation, StationaryVelocity
from convexadam.continuous.refine import Level, Refinement
from convexadam.continuous.regularisers import Bending, Diffusion, Regulariser, VolumePreserving
from convexadam.continuous.similarity import Lncc, MutualInformation, Similarity, Ssd, WeightedSum
from convexadam.continuous.smoothing import (
    BilateralSmoothing,
    BoxSmoothing,
    FieldSmoothing,
    GaussianSmoothing,
    KovesiSmoothing,
    Smoothing,
)
from convexadam.continuous.volume_mask import volume_mask

__all__ = [
    "Adam",
    "Bending",
    "BilateralSmoothing",
    "BoxSmoothing",
    "Compositional",
    "Diffusion",
    "Displacement",
    "FieldSmoothing",
    "GaussianSmoothing",
    "KovesiSmoothing",
    "Level",
    "LevenbergMarquardt",
    "Lncc",
    "MutualInformation",
    "Parametrisation",
    "Refinement",
    "Regulariser",
    "Similarity",
    "Smoothing",
    "Ssd",
    "StationaryVelocity",
    "VolumePreserving",
    "WeightedSum",
    "volume_mask",
]
