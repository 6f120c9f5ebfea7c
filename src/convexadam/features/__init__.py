"""What is compared: feature maps of images."""

from convexadam.features.concat import Concat
from convexadam.features.intensity import Intensity
from convexadam.features.mind import MindSSC
from convexadam.features.precomputed import Precomputed
from convexadam.features.protocol import (
    Features,
    LocalFeatures,
    PooledFeatures,
    check_no_class,
    pooled_features,
    reach_of,
)

__all__ = [
    "Concat",
    "Features",
    "Intensity",
    "LocalFeatures",
    "MindSSC",
    "PooledFeatures",
    "Precomputed",
    "check_no_class",
    "pooled_features",
    "reach_of",
]
