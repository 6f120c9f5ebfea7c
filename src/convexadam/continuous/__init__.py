"""Local refinement of a displacement field by minimisation."""

from convexadam.continuous.adam import Adam
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.level import Level
from convexadam.continuous.levenberg_marquardt import LevenbergMarquardt
from convexadam.continuous.multires import Refinement, Snapshot
from convexadam.continuous.parametrisation import Additive, Compositional, StationaryVelocity
from convexadam.continuous.protocols import (
    ChannelsLast,
    CopiesFeatures,
    DisplacementState,
    HasCurvature,
    HasMemory,
    HasTotalSmoothing,
    MaskedRegulariser,
    Objective,
    Optimiser,
    Parametrisation,
    Regulariser,
    Similarity,
    SimilarityTerm,
    UpdateRule,
)
from convexadam.continuous.regularisers import Bending, Diffusion, VolumePreserving
from convexadam.continuous.similarity import Lncc, Ssd, WeightedSum
from convexadam.continuous.smoothing import (
    BilateralSmoothing,
    BoxSmoothing,
    GaussianSmoothing,
    KovesiSmoothing,
    Smoothing,
    TotalSmoothing,
)
from convexadam.continuous.volume_mask import volume_mask

__all__ = [
    "Adam",
    "Additive",
    "Bending",
    "BilateralSmoothing",
    "BoxSmoothing",
    "ChannelsLast",
    "Compositional",
    "Convergence",
    "CopiesFeatures",
    "Diffusion",
    "DisplacementState",
    "GaussianSmoothing",
    "HasCurvature",
    "HasMemory",
    "HasTotalSmoothing",
    "KovesiSmoothing",
    "Level",
    "LevenbergMarquardt",
    "Lncc",
    "MaskedRegulariser",
    "Objective",
    "Optimiser",
    "Parametrisation",
    "Refinement",
    "Regulariser",
    "Similarity",
    "SimilarityTerm",
    "Smoothing",
    "Snapshot",
    "Ssd",
    "StationaryVelocity",
    "TotalSmoothing",
    "UpdateRule",
    "VolumePreserving",
    "WeightedSum",
    "volume_mask",
]
