"""Feature extractors: dense feature maps of images, whose differences the registration minimises."""

from convexadam.features.concat import Concat
from convexadam.features.intensity import Intensity
from convexadam.features.labels import LabelFeatures
from convexadam.features.mind import MindSSC
from convexadam.features.nnunet import NNUNetFeatures
from convexadam.features.precomputed import Precomputed
from convexadam.features.probabilities import ProbabilityFeatures
from convexadam.features.protocol import (
    EstimatesMemory,
    Extractor,
    FeatureInput,
    Features,
    HasChannels,
    HoldsSegmentations,
    LocalFeatures,
    MapLayout,
    PairFeatures,
    PooledFeatures,
    check_extractor,
    count_channels,
    extract_features,
    extract_pair_features,
    memory_bytes_per_voxel,
    receptive_radius,
    segmentation_bytes_per_voxel,
    uses_labels,
)
from convexadam.features.torchscript import TorchScriptFeatures

__all__ = [
    "Concat",
    "EstimatesMemory",
    "Extractor",
    "FeatureInput",
    "Features",
    "HasChannels",
    "HoldsSegmentations",
    "Intensity",
    "LabelFeatures",
    "LocalFeatures",
    "MapLayout",
    "MindSSC",
    "NNUNetFeatures",
    "PairFeatures",
    "PooledFeatures",
    "Precomputed",
    "ProbabilityFeatures",
    "TorchScriptFeatures",
    "check_extractor",
    "count_channels",
    "extract_features",
    "extract_pair_features",
    "memory_bytes_per_voxel",
    "receptive_radius",
    "segmentation_bytes_per_voxel",
    "uses_labels",
]
