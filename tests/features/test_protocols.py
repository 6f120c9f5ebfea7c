"""What feature extractors tell before they run, and that any class that fits the protocols is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import oracles
import pytest
import torch

from convexadam import RegistrationConfig, register
from convexadam.continuous import Diffusion, Level, Refinement
from convexadam.errors import ConfigError
from convexadam.features import (
    Concat,
    EstimatesMemory,
    FeatureInput,
    HasChannels,
    HoldsSegmentations,
    Intensity,
    LabelFeatures,
    MapLayout,
    MindSSC,
    NNUNetFeatures,
    PairFeatures,
    Precomputed,
    ProbabilityFeatures,
    TorchScriptFeatures,
    check_extractor,
    count_channels,
    extract_pair_features,
    memory_bytes_per_voxel,
    segmentation_bytes_per_voxel,
)
from convexadam.geometry import Grid, Image
from convexadam.kernels.resize import pool

SHAPE = (14, 13, 12)

POOLED, FULL_OF_5 = 4 * 6, 4 * (6 + 2 * 5)
"""Bytes per voxel with and without pooling during extraction, for 5 channels."""

NETWORK = NNUNetFeatures(model_folder="model")
CHANCES = NNUNetFeatures(model_folder="model", output="probabilities")
TABLE: list[tuple[Any, int | None, float, float, tuple[bool, bool]]] = [
    (MindSSC(), 24, 4 * 4.5, 0, (True, False)),
    (Intensity(), 2, FULL_OF_5, 0, (True, False)),
    (Precomputed(), 2, FULL_OF_5, 0, (False, False)),
    (LabelFeatures(), None, POOLED, 2, (True, False)),
    (ProbabilityFeatures(), None, POOLED, 2 * 4 * 6, (False, False)),
    (NETWORK, None, POOLED, 2, (True, False)),
    (CHANCES, None, POOLED, 2 * 4 * 6, (False, False)),
    (TorchScriptFeatures(path="a.pt"), None, FULL_OF_5, 0, (False, False)),
    (TorchScriptFeatures(path="a.pt", patch=32), None, POOLED, 0, (False, False)),
    (Concat(parts=(MindSSC(), Precomputed())), 26, 4 * (6 + 2), 0, (False, True)),
    (Concat(parts=(MindSSC(), LabelFeatures())), None, POOLED, 2, (False, True)),
    (Concat(parts=(CHANCES, TorchScriptFeatures(path="a.pt"))), None, FULL_OF_5, 2 * 4 * 6, (False, True)),
]


@pytest.mark.parametrize(("features", "channels", "working", "segmentations", "layout"), TABLE)
def test_what_is_known_before_extraction(
    features: Any, channels: int | None, working: float, segmentations: float, layout: tuple[bool, bool]
) -> None:
    assert isinstance(features, HasChannels)
    assert isinstance(features, EstimatesMemory)
    assert isinstance(features, MapLayout)
    assert features.count_channels(2) == count_channels(features, 2) == channels
    assert features.memory_bytes_per_voxel(5) == memory_bytes_per_voxel(features, 5) == working
    assert segmentation_bytes_per_voxel(features, 5) == segmentations
    assert isinstance(features, HoldsSegmentations) or segmentations == 0
    assert (features.channels_last, features.joins_maps) == layout


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "features", [MindSSC(), Intensity(), Precomputed(), Concat(parts=(MindSSC(), Intensity(), Precomputed()))]
)
def test_channels_are_as_many_as_announced(features: Any, channels: int) -> None:
    image = Image(oracles.noise(channels, *SHAPE).float(), Grid(SHAPE))
    (((fixed, moving),)) = extract_pair_features(
        features, FeatureInput(image=image), FeatureInput(image=image), ((2, 2, 2),)
    )
    assert len(fixed) == len(moving) == features.count_channels(channels)


@pytest.mark.parametrize("features", [MindSSC(), LabelFeatures()])
def test_channels_are_last_where_announced(features: Any) -> None:
    labels = Image((oracles.uniform(1, *SHAPE) * 4).to(torch.uint8), Grid(SHAPE))
    side = FeatureInput(image=Image(oracles.noise(1, *SHAPE).float(), Grid(SHAPE)), segmentation=labels)
    single, averages = extract_pair_features(features, side, side, ((1, 1, 1), (2, 3, 2)))
    assert features.channels_last
    assert all(found.movedim(0, 3).is_contiguous() for found in averages)
    if isinstance(features, MindSSC):  # of single voxels as the local windows read them
        assert all(found.is_contiguous() for found in single)
    else:
        assert all(found.movedim(0, 3).is_contiguous() for found in single)


@dataclass(frozen=True)
class Doubled:
    """Features of somebody else, of single images."""

    factor: float = 2.0

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return image.data * self.factor


@dataclass(frozen=True)
class CommonRange:
    """Features of somebody else that depend on both images."""

    uses_labels: bool = False

    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: Any) -> Any:
        largest = torch.stack([fixed.image.data.abs().max(), moving.image.data.abs().max()]).max()
        return tuple(
            (pool(fixed.image.data / largest, spacing), pool(moving.image.data / largest, spacing))
            for spacing in spacings
        )


@pytest.mark.parametrize("features", [Doubled(), CommonRange(), lambda image, /, *, weight=None: image.data])
def test_any_class_that_fits_is_an_extractor(features: Any) -> None:
    check_extractor(features, "features")
    assert isinstance(features, PairFeatures) == isinstance(features, CommonRange)
    assert count_channels(features, 1) is None
    assert memory_bytes_per_voxel(features, 5) == (POOLED if isinstance(features, PairFeatures) else FULL_OF_5)
    assert segmentation_bytes_per_voxel(features, 5) == 0
    assert segmentation_bytes_per_voxel(CommonRange(uses_labels=True), 5) == 2
    fixed, moving = (Image(oracles.noise(1, *SHAPE, seed=seed).float(), Grid(SHAPE)) for seed in (1, 2))
    for extractor in (features, Concat(parts=(MindSSC(), features))):
        config = RegistrationConfig(
            linear=None, features=extractor, continuous=Refinement(levels=(Level(iterations=1),))
        )
        assert torch.isfinite(register(fixed, moving, config).transform.disp_mm).all()


@pytest.mark.parametrize("features", [MindSSC, Doubled, CommonRange])
def test_a_class_is_no_extractor(features: type) -> None:
    with pytest.raises(
        ConfigError, match=rf"features must be an instance, got the class .*\bwrite {features.__name__}\("
    ):
        check_extractor(features, "features")


@pytest.mark.parametrize("value", [None, 3, "MindSSC", (MindSSC(),), lambda image: image, Diffusion()])
def test_objects_that_are_no_extractors(value: object) -> None:
    with pytest.raises(ConfigError, match=r"features must be a component or a function \(image, \*, weight=None\)"):
        check_extractor(value, "features")


def test_any_callable_with_a_weight_is_an_extractor() -> None:
    def function(image: Image, **options: object) -> torch.Tensor:
        return image.data

    check_extractor(function, "features")
    check_extractor(CommonRange(), "features")
    with pytest.raises(ConfigError, match="features must be a component or a function"):
        check_extractor(CommonRange(), "features", pairs=False)
