"""What is compared: feature maps of images."""

from convexadam.features.concat import Concat
from convexadam.features.intensity import Intensity
from convexadam.features.labels import LabelFeatures
from convexadam.features.mind import MindSSC
from convexadam.features.nnunet import NNUNetFeatures
from convexadam.features.precomputed import Precomputed
from convexadam.features.probabilities import ProbabilityFeatures
from convexadam.features.protocol import (
    Extractor,
    Features,
    LocalFeatures,
    PairFeatures,
    PooledFeatures,
    Scan,
    check_no_class,
    is_extractor,
    pooled_features,
    pooled_pair,
    reach_of,
    uses_labels,
)
from convexadam.features.torchscript import TorchScriptFeatures

__all__ = [
    "Concat",
    "Extractor",
    "Features",
    "Intensity",
    "LabelFeatures",
    "LocalFeatures",
    "MindSSC",
    "NNUNetFeatures",
    "PairFeatures",
    "PooledFeatures",
    "Precomputed",
    "ProbabilityFeatures",
    "Scan",
    "TorchScriptFeatures",
    "check_no_class",
    "is_extractor",
    "pooled_features",
    "pooled_pair",
    "reach_of",
    "uses_labels",
]
