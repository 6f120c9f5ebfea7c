"""Local refinement of a displacement field by minimisation."""

from convexadam.continuous.adam import Adam
from convexadam.continuous.contrasts import DifferentContrasts, contrast_coherence
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.gauss_newton import GaussNewton
from convexadam.continuous.joint_ssd import JointSsd, Part
from convexadam.continuous.level import Level
from convexadam.continuous.levenberg_marquardt import LevenbergMarquardt
from convexadam.continuous.multires import Refinement
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
    PacksFeatures,
    Parametrisation,
    Regulariser,
    Similarity,
    SimilarityTerm,
    UpdateRule,
)
from convexadam.continuous.regularisers import Bending, Diffusion, VolumePreserving
from convexadam.continuous.similarity import Lncc, Ssd, WeightedSum
from convexadam.continuous.smoothing import (
    AdaptiveSmoothing,
    BilateralSmoothing,
    BoxSmoothing,
    GaussianSmoothing,
    KovesiSmoothing,
    Smoothing,
    TotalSmoothing,
)
from convexadam.continuous.snapshot import Snapshot
from convexadam.continuous.volume_mask import volume_mask

__all__ = [
    "Adam",
    "AdaptiveSmoothing",
    "Additive",
    "Bending",
    "BilateralSmoothing",
    "BoxSmoothing",
    "ChannelsLast",
    "Compositional",
    "Convergence",
    "CopiesFeatures",
    "DifferentContrasts",
    "Diffusion",
    "DisplacementState",
    "GaussNewton",
    "GaussianSmoothing",
    "HasCurvature",
    "HasMemory",
    "HasTotalSmoothing",
    "JointSsd",
    "KovesiSmoothing",
    "Level",
    "LevenbergMarquardt",
    "Lncc",
    "MaskedRegulariser",
    "Objective",
    "Optimiser",
    "PacksFeatures",
    "Parametrisation",
    "Part",
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
    "contrast_coherence",
    "volume_mask",
]
