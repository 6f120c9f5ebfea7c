"""Settings: TOML round trips, files, and presets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from convexadam import (
    Concat,
    ConfigError,
    ConvexSearch,
    FileError,
    Image,
    Intensity,
    IsotropicGrid,
    LandmarkTerm,
    MindSSC,
    NativeGrid,
    Precomputed,
    Refinement,
    RegistrationConfig,
    preset,
)
from convexadam.continuous import (
    Adam,
    AdaptiveSmoothing,
    Additive,
    Bending,
    BilateralSmoothing,
    BoxSmoothing,
    Compositional,
    DifferentContrasts,
    Diffusion,
    GaussianSmoothing,
    GaussNewton,
    JointSsd,
    KovesiSmoothing,
    Level,
    LevenbergMarquardt,
    Lncc,
    Part,
    Ssd,
    StationaryVelocity,
    VolumePreserving,
    WeightedSum,
)
from convexadam.features import LabelFeatures, NNUNetFeatures, ProbabilityFeatures, TorchScriptFeatures
from convexadam.linear import LinearAlignment
from convexadam.registration.foreground import AutoForeground
from convexadam.registration.toml import as_plain, components

HEAD = "schema_version = 4\n"

CONFIGS = {
    "defaults": RegistrationConfig(),
    "no stages": RegistrationConfig(grid=NativeGrid(), discrete=None, continuous=None),
    "grid": RegistrationConfig(grid=IsotropicGrid(spacing_mm=1.5, max_voxels=1000, max_anisotropy=1.5)),
    "foreground": RegistrationConfig(foreground=AutoForeground(margin_mm=2.5)),
    "headers": RegistrationConfig(linear=None),
    "one axis": RegistrationConfig(restrict_deformation=(0.0, 1.0, 0.5)),
    "linear": RegistrationConfig(
        linear=LinearAlignment(
            model="rigid",
            init="geometry",
            features=MindSSC(radius=2),
            voxels_per_level=(1000,),
            iterations=1,
            min_improvement=0.0,
            min_model_improvement=0.5,
            inlier_fraction=1.0,
        )
    ),
    "mind": RegistrationConfig(features=MindSSC(radius=2, dilation=3)),
    "intensity": RegistrationConfig(features=Intensity(quantiles=(0.125, 0.75), scale=2.5)),
    "precomputed": RegistrationConfig(features=Precomputed(weight=0.1)),
    "nested": RegistrationConfig(
        features=Concat(
            parts=(
                MindSSC(radius=0),
                Concat(parts=(Intensity(quantiles=(0.0, 0.9)), Precomputed()), weights=(1.0, 0.0)),
            ),
            weights=(0.3, 1e-7),
        )
    ),
    "labels": RegistrationConfig(
        features=LabelFeatures(scale=2.5, class_balance=0.0, include_background=True),
        continuous_features=Concat(
            parts=(MindSSC(), ProbabilityFeatures(scale=10.0, class_balance=0.5, include_background=True, logits=True)),
            weights=(1.0, 0.5),
        ),
    ),
    "networks": RegistrationConfig(
        features=NNUNetFeatures(
            model_folder='D:\\models\\a "good" one',
            folds=(0, 3, "all"),
            checkpoint="checkpoint_best.pth",
            output="probabilities",
            orientation="LPS",
            test_time_augmentation=False,
            step=0.75,
            scale=10.0,
            class_balance=0.0,
            include_background=True,
            cache_dir="kept",
        ),
        continuous_features=Concat(
            parts=(
                NNUNetFeatures(model_folder="model"),
                TorchScriptFeatures(path="a.pt"),
                TorchScriptFeatures(
                    path="folder/b.pt",
                    patch=(64, 48, 32),
                    overlap=20,
                    normalise="deviation",
                    orientation="RAS",
                    receptive_radius=5,
                    scale=0.5,
                ),
                TorchScriptFeatures(path="c.pt", patch=64),
            )
        ),
    ),
    "parts alone": RegistrationConfig(features=Concat(parts=(MindSSC(),))),
    "search per axis": RegistrationConfig(
        discrete=ConvexSearch(
            spacing=(3, 4, 5), radius=(1, 2, 3), parabolic_fit=False, inverse_consistency=0, coupling_weights=(0.5, 2.0)
        )
    ),
    "search in mm": RegistrationConfig(
        discrete=ConvexSearch(spacing=(3.5, 4.0, 1 / 3), radius=20.5, unit="mm", coupling_weights=())
    ),
    "bare refinement": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(spacing=(1, 2, 3), iterations=0),),
            regularisers=(Diffusion(weight=0.0),),
            optimiser=Adam(learning_rate=0.1),
            update_smoothing=None,
            final_smoothing=None,
        )
    ),
    "refinement in mm": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(spacing=2.5),),
            unit="mm",
            update_smoothing=GaussianSmoothing(sigma=1.7),
            final_smoothing=BoxSmoothing(width=5),
        )
    ),
    "composed": RegistrationConfig(
        continuous=Refinement(
            update_smoothing=KovesiSmoothing(sigma=2.5, passes=3),
            parametrisation=Compositional(total_smoothing=BoxSmoothing(passes=1), max_step=0.25),
        )
    ),
    "composed, not smoothed": RegistrationConfig(
        continuous=Refinement(parametrisation=Compositional(total_smoothing=None))
    ),
    "organs that slide, volumes that stay": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(), Level(forward_only=True)),
            regularisers=(VolumePreserving(region="auto"),),
            parametrisation=Compositional(
                total_smoothing=BilateralSmoothing(sigma=1.2, sigma_guide=0.1, sigma_field=0.5)
            ),
        )
    ),
    "spared where there is contrast": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(total_smoothing=AdaptiveSmoothing(sigma=1.1, curvature=0.5)),),
            parametrisation=Compositional(total_smoothing=AdaptiveSmoothing()),
        )
    ),
    "landmarks": RegistrationConfig(landmarks=LandmarkTerm(weight=2.0, sigma_mm=0.0, robust_scale_mm=12.5)),
    "no landmarks": RegistrationConfig(landmarks=None),
    "searches in a row": RegistrationConfig(
        discrete=(ConvexSearch(spacing=6), ConvexSearch(spacing=(3, 2, 3), radius=2, window="ball"))
    ),
    "one search in a row": RegistrationConfig(discrete=(ConvexSearch(),)),
    "several levels": RegistrationConfig(
        continuous=Refinement(
            levels=(
                Level(spacing=(4, 3, 4), iterations=20, update_smoothing=GaussianSmoothing(sigma=1.5)),
                Level(iterations=0, total_smoothing=KovesiSmoothing()),
            ),
            regularisers=(Diffusion(weight=0.5), Bending(weight=2.0), VolumePreserving(weight=0.1)),
            optimiser=LevenbergMarquardt(damping=0.5),
            parametrisation=StationaryVelocity(total_smoothing=None, max_step=2.0),
            tolerance=1e-3,
        )
    ),
    "robust": RegistrationConfig(continuous=Refinement(similarity=Ssd(robust_scale=2.0), regularisers=())),
    "correlation": RegistrationConfig(continuous=Refinement(similarity=Lncc(radius=3, variance_floor=0.01))),
    "several similarities of all features": RegistrationConfig(
        continuous=Refinement(similarity=WeightedSum(terms=(Lncc(), Ssd()), weights=(1.0, 2.0)))
    ),
    "several similarities": RegistrationConfig(
        features=Concat(parts=(MindSSC(), Intensity())),
        continuous=Refinement(
            similarity=WeightedSum(terms=(Ssd(robust_scale=4.0), Lncc()), weights=(1.0, 0.25), channels=(12, 1))
        ),
    ),
    "different contrasts": RegistrationConfig(
        continuous_features=Concat(parts=(MindSSC(), Intensity())),
        continuous=Refinement(
            similarity=JointSsd(
                parts=(
                    Part(channels=12, weight=0.5, radius=3, variance_floor=0.01),
                    Part(channels=1, first=12, by_distance=True),
                ),
                robust_scale=3.0,
            ),
            optimiser=GaussNewton(damping=0.5, momentum=0.3),
            inverse_consistency=7,
            different_contrasts=DifferentContrasts(
                levels=(Level(iterations=5),), similarity=Ssd(), channel=12, coherence=0.5
            ),
        ),
    ),
    "other features for the refinement": RegistrationConfig(continuous_features=Intensity()),
    "both directions": RegistrationConfig(symmetric=True, backend="reference"),
    "extreme numbers": RegistrationConfig(
        continuous=Refinement(regularisers=(Diffusion(weight=1e-300),), optimiser=Adam(learning_rate=1e22))
    ),
}


def components_of(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from components_of(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for item in dataclasses.fields(value):
            yield from components_of(getattr(value, item.name))


def default_of(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


class OwnFeatures:
    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return image.data.float()


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip(name: str) -> None:
    config = CONFIGS[name]
    found = RegistrationConfig.from_toml(config.to_toml())
    assert found == config
    assert found.to_toml() == config.to_toml()


def test_the_round_trips_cover_every_option_of_every_component() -> None:
    used = [c for config in CONFIGS.values() for c in components_of(config)]
    assert {type(c) for c in used} == {*components().values(), RegistrationConfig}
    changed = {
        (type(c), item.name)
        for c in used
        for item in dataclasses.fields(c)
        if getattr(c, item.name) != default_of(item)
    }
    every = {
        (kind, item.name) for kind in (*components().values(), RegistrationConfig) for item in dataclasses.fields(kind)
    }
    assert changed == every


def test_types_survive() -> None:
    found = RegistrationConfig.from_toml(CONFIGS["search per axis"].to_toml()).discrete
    assert found is not None
    assert isinstance(found.spacing, tuple)
    assert all(type(v) is int for v in found.spacing)
    assert type(found.parabolic_fit) is bool
    assert isinstance(found.coupling_weights, tuple)


@pytest.fixture
def numpy_settings(monkeypatch: pytest.MonkeyPatch) -> RegistrationConfig:
    """Settings with numbers of numpy, as a search over arrays makes them."""
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    search: Any = {"spacing": np.int64(5), "radius": tuple(np.arange(1, 4)), "coupling_weights": (np.float16(1),)}
    level: Any = {"iterations": np.uint8(7)}
    rate: Any = {"learning_rate": Fraction(1, 4)}
    weight: Any = {"weight": np.float32(1.5)}
    mind: Any = {"radius": np.int64(2)}
    return RegistrationConfig(
        grid=IsotropicGrid(spacing_mm=np.float32(1.5), max_voxels=np.int32(10**6)),
        features=Concat(parts=(MindSSC(**mind),), weights=(np.float64(0.1),)),
        discrete=ConvexSearch(**search),
        continuous=Refinement(levels=(Level(**level),), optimiser=Adam(**rate), regularisers=(Diffusion(**weight),)),
    )


def test_numbers_of_numpy_are_saved_as_plain_ones(numpy_settings: RegistrationConfig, tmp_path: Path) -> None:
    numpy_settings.save(tmp_path / "settings.toml")
    found = RegistrationConfig.load(tmp_path / "settings.toml")
    assert found == numpy_settings
    assert found.discrete is not None
    assert type(found.discrete.spacing) is int
    assert numpy_settings.with_settings("discrete.inverse_consistency = 15") == numpy_settings


def test_numbers_of_numpy_are_reported_as_plain_ones(numpy_settings: RegistrationConfig) -> None:
    tables = {name: as_plain(part) for name, part in vars(numpy_settings).items()}
    assert json.loads(json.dumps(tables)) == tables
    assert tables["discrete"]["radius"] == [1, 2, 3]
    assert tables["features"]["weights"] == [0.1]
    assert tables["continuous"]["optimiser"]["learning_rate"] == 0.25
    assert tables["continuous"]["levels"][0]["iterations"] == 7
    assert tables["continuous"]["regularisers"][0]["weight"] == 1.5


@pytest.mark.parametrize("kind", [MindSSC, Intensity, OwnFeatures])
def test_a_class_as_features_raises(kind: type) -> None:
    for make in (
        lambda: RegistrationConfig(features=kind),  # type: ignore[arg-type]
        lambda: RegistrationConfig(continuous_features=kind),  # type: ignore[arg-type]
        lambda: Concat(parts=(MindSSC(), kind)),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=rf"the class {kind.__name__}.*{kind.__name__}\("):
            make()


def test_missing_sections_are_those_of_the_default_preset() -> None:
    assert RegistrationConfig.from_toml(HEAD) == preset("default")
    found = RegistrationConfig.from_toml(HEAD + 'grid = { type = "NativeGrid" }\n')
    assert found == dataclasses.replace(preset("default"), grid=NativeGrid())


def test_missing_keys_have_the_default_of_the_component() -> None:
    found = RegistrationConfig.from_toml(HEAD + '[discrete]\ntype = "ConvexSearch"\nradius = 7\n')
    assert found == RegistrationConfig(discrete=ConvexSearch(radius=7))
    assert found.discrete is not None
    assert found.discrete.spacing == ConvexSearch().spacing == 6


def test_the_default_preset() -> None:
    assert preset("default") == RegistrationConfig(
        grid=IsotropicGrid(),
        features=MindSSC(radius=1, dilation=2),
        discrete=ConvexSearch(spacing=4, radius=5, window="ball"),
        continuous=Refinement(
            levels=(Level(iterations=50),), regularisers=(Diffusion(weight=0.2),), parametrisation=Compositional()
        ),
    )


def test_a_whole_number_becomes_a_float() -> None:
    text = 'continuous = { type = "Refinement", regularisers = [{ type = "Diffusion", weight = 2 }] }'
    found = RegistrationConfig.from_toml(HEAD + text).continuous
    assert found == Refinement(regularisers=(Diffusion(weight=2.0),))
    assert found is not None
    (regulariser,) = found.regularisers
    assert type(regulariser.weight) is float


@pytest.mark.parametrize(
    "features",
    [
        OwnFeatures(),
        lambda image, *, weight=None: image.data,
        Concat(parts=(MindSSC(), OwnFeatures())),
    ],
)
def test_code_cannot_be_saved(features: Any, tmp_path: Path) -> None:
    for config in (RegistrationConfig(features=features), RegistrationConfig(continuous_features=features)):
        with pytest.raises(ConfigError, match="must be a dataclass that can be imported to be saved"):
            config.to_toml()
        with pytest.raises(ConfigError, match="must be a dataclass that can be imported to be saved"):
            config.save(tmp_path / "settings.toml")
    assert not list(tmp_path.iterdir())


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    for name in ("nested", "no stages"):
        CONFIGS[name].save(path)
        assert RegistrationConfig.load(path) == CONFIGS[name]
        assert RegistrationConfig.load(str(path)) == CONFIGS[name]
    assert [p.name for p in tmp_path.iterdir()] == ["settings.toml"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    RegistrationConfig().save(path)
    with pytest.raises(ConfigError, match="must be a dataclass that can be imported to be saved"):
        RegistrationConfig(features=OwnFeatures()).save(path)
    assert RegistrationConfig.load(path) == RegistrationConfig()
    assert [p.name for p in tmp_path.iterdir()] == ["settings.toml"]


def test_saving_into_a_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="missing"):
        RegistrationConfig().save(tmp_path / "missing" / "settings.toml")


def test_loading_an_unreadable_file_raises(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    refusals = {"missing.toml": "there is no file", "binary.toml": "cannot read settings in TOML", "": "got a folder"}
    for name, message in refusals.items():
        with pytest.raises(FileError, match=message):
            RegistrationConfig.load(tmp_path / name)


def test_errors_of_loading_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    for text in ("schema_version = 9", "[", HEAD + "grids = 3"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"settings\.toml"):
            RegistrationConfig.load(path)


def test_the_presets() -> None:
    assert preset() == preset("default") == RegistrationConfig()
    assert preset("default") != preset("published")
    for name in ("default", "best", "published"):
        assert RegistrationConfig.from_toml(preset(name).to_toml()) == preset(name)


def test_the_published_preset_has_the_published_defaults() -> None:
    found = preset("published")
    assert found.grid == NativeGrid()
    assert found.features == MindSSC(radius=1, dilation=2)
    assert found.discrete == ConvexSearch(
        spacing=6,
        radius=4,
        unit="voxel",
        parabolic_fit=False,
        inverse_consistency=15,
        coupling_weights=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    )
    assert found.continuous == Refinement(
        levels=(Level(spacing=2, iterations=80),),
        unit="voxel",
        regularisers=(Diffusion(weight=1.25),),
        optimiser=Adam(learning_rate=1.0),
        update_smoothing=BoxSmoothing(width=3, passes=3),
        parametrisation=Additive(),
        final_smoothing=None,
    )


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match=r"preset.*'publishd'.*did you mean 'published'\?"):
        preset("publishd")
    with pytest.raises(
        ConfigError,
        match=r"preset must be one of default, best, published, .*, affine, got 'x'",
    ):
        preset("x")
