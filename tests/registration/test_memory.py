"""The estimate of memory; ``benchmarks/scaling.py`` measures its error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexadam import (
    Concat,
    ConfigError,
    ConvexSearch,
    GeometryError,
    Intensity,
    IsotropicGrid,
    MindSSC,
    NativeGrid,
    Refinement,
    RegistrationConfig,
    estimate_memory,
    preset,
)
from convexadam.continuous import Level, Lncc, Ssd, WeightedSum
from convexadam.features import LabelFeatures, NNUNetFeatures, ProbabilityFeatures, TorchScriptFeatures
from convexadam.registration.memory import release_memory


@pytest.mark.parametrize("name", ["default", "published"])
def test_large_volumes_take_less_than_60_bytes_per_voxel(name: str) -> None:
    assert 20 < estimate_memory((256, 256, 256), preset(name)) / 256**3 < 60
    assert estimate_memory((512, 512, 600), preset(name)) < 10e9


def test_the_estimate_is_linear_in_the_number_of_voxels() -> None:
    small, large = (estimate_memory((n, n, n), preset("published")) - 3_000_000 for n in (96, 192))
    assert large == pytest.approx(8 * small, rel=1e-6)


def test_the_largest_stage_counts() -> None:
    config = preset("published")
    search = RegistrationConfig(grid=NativeGrid(), discrete=ConvexSearch(spacing=2, radius=5), continuous=None)
    # 11^3 costs of two bytes for every eighth voxel
    assert estimate_memory((128, 128, 128), search) > 2 * 11**3 * 128**3 / 8
    without = RegistrationConfig(grid=NativeGrid(), discrete=None, continuous=None)
    assert estimate_memory((128, 128, 128), without) < estimate_memory((128, 128, 128), preset("default"))
    fine = RegistrationConfig(grid=NativeGrid(), discrete=None, continuous=Refinement(levels=(Level(spacing=1),)))
    assert estimate_memory((128, 128, 128), fine) > 2 * estimate_memory((128, 128, 128), config)


def test_the_working_grid_counts() -> None:
    fine = RegistrationConfig(grid=IsotropicGrid(spacing_mm=1.0))
    coarse = RegistrationConfig(grid=IsotropicGrid(spacing_mm=2.0))
    shape, spacing = (192, 192, 192), (1.0, 1.0, 1.0)
    assert estimate_memory(shape, coarse, spacing_mm=spacing) < estimate_memory(shape, fine, spacing_mm=spacing)
    # slices of 3 mm: three times as many cubic voxels
    assert estimate_memory(shape, fine, spacing_mm=(1.0, 1.0, 3.0)) > 2 * estimate_memory(shape, fine)


def test_channels() -> None:
    def of(features: Any, **options: Any) -> int:
        # without the linear alignment, which takes more than these features of a volume of this size
        return estimate_memory((96, 96, 96), RegistrationConfig(linear=None, features=features), **options)

    both = Concat(parts=(MindSSC(), Intensity()))
    assert of(Intensity()) < of(Concat(parts=(Intensity(), Intensity()))) < of(both)
    assert of(MindSSC()) < of(both)

    def own(image: Any, *, weight: Any = None) -> Any:
        return image.data

    with pytest.raises(ConfigError, match="pass channels="):
        of(own)
    assert of(own, channels=1) == of(Intensity())


def test_squared_differences_in_a_sum_copy_their_features() -> None:
    def of(*terms: Any, channels: tuple[int, ...] | None = None) -> int:
        similarity = terms[0] if len(terms) == 1 else WeightedSum(terms=terms, weights=(1.0, 1.0), channels=channels)
        refinement = Refinement(levels=(Level(spacing=1),), similarity=similarity)
        return estimate_memory((96, 96, 96), RegistrationConfig(discrete=None, continuous=refinement))

    per_channel = 2 * 4 * 96**3
    assert of(Ssd(), Lncc()) - of(Ssd()) == 12 * per_channel
    assert of(Ssd(), Ssd()) - of(Ssd()) == 24 * per_channel
    assert of(Ssd(), Lncc(), channels=(3, 9)) - of(Ssd()) == 3 * per_channel


def test_the_linear_alignment_counts_in_small_volumes() -> None:
    def of(edge: int, **settings: Any) -> int:
        return estimate_memory((edge,) * 3, RegistrationConfig(**settings))

    assert of(64) > 2 * of(64, linear=None)
    assert of(192) == of(192, linear=None)
    slope = (estimate_memory((256, 256, 256), preset("rigid")) - estimate_memory((192, 192, 192), preset("rigid"))) / (
        256**3 - 192**3
    )
    assert 8 <= slope < 12  # both images in bins


def test_a_shape_that_is_no_grid_raises() -> None:
    with pytest.raises(GeometryError, match="at least 1"):
        estimate_memory((0, 4, 4))


def test_freed_memory_is_returned_to_the_system() -> None:
    status = Path("/proc/self/status")
    if sys.platform != "linux" or not status.is_file():
        pytest.skip("needs /proc and malloc_trim")

    def resident() -> int:
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    before = resident()
    blocks = [np.ones(12_000) for _ in range(1000)]  # 96 kB each: the C library keeps them when they are freed
    last = blocks.pop()
    if resident() - before < 50e6:
        pytest.skip("this system reports the memory of a process with a delay")
    del blocks
    release_memory()
    assert resident() - before < 30e6
    assert last.all()


def test_features_of_networks_count_like_those_they_become() -> None:
    def estimated(features: Any, channels: int = 12) -> int:
        return estimate_memory((128, 96, 112), RegistrationConfig(features=features), channels=channels)

    network: dict[str, Any] = {"model_folder": "model", "output": "probabilities"}
    assert estimated(NNUNetFeatures(model_folder="model")) == estimated(LabelFeatures())
    assert estimated(NNUNetFeatures(**network)) == estimated(ProbabilityFeatures()) > estimated(LabelFeatures())
    # without patches there is one whole map of twelve channels
    whole, patches = (estimated(TorchScriptFeatures(path="a.pt", patch=patch)) for patch in (None, 64))
    assert whole > patches + 12 * 4 * 128 * 96 * 112
    for features in (NNUNetFeatures(**network), TorchScriptFeatures(path="a.pt")):
        with pytest.raises(ConfigError, match=rf"channels must be given .*{type(features).__name__}.*; pass channels="):
            estimate_memory((64, 64, 64), RegistrationConfig(features=features))
