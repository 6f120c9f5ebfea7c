"""Components from outside the package: they work by protocol alone, and survive a settings file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from convexadam import ConfigError, Image, RegistrationConfig, estimate_memory, preset, register
from convexadam.continuous import (
    Adam,
    Compositional,
    Convergence,
    DisplacementState,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Objective,
    Refinement,
    Regulariser,
    Similarity,
    Ssd,
    WeightedSum,
)
from convexadam.data import phantom_pair
from convexadam.features import Concat, Features, Intensity, MindSSC
from convexadam.geometry import Grid
from convexadam.kernels.warp import identity_positions, sample_linear
from convexadam.registration import presets, toml

SHAPE = (28, 24, 22)


# A similarity ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Huber:
    """Mean Huber norm of feature differences, differentiated by torch."""

    delta: float = 0.5

    def prepare(self, fixed: torch.Tensor, moving: torch.Tensor, start: torch.Tensor, weights: Any) -> HuberTerm:
        return HuberTerm(fixed, moving, self.delta)


class HuberTerm:
    def __init__(self, fixed: torch.Tensor, moving: torch.Tensor, delta: float) -> None:
        self.fixed, self.moving, self.delta = fixed, moving, delta

    def __call__(self, displacement: torch.Tensor, *, out: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            u = displacement.detach().clone().requires_grad_()
            positions = identity_positions(tuple(u.shape[1:]), like=u) + u  # type: ignore[arg-type]
            warped = sample_linear(self.moving, positions)
            value = torch.nn.functional.huber_loss(warped, self.fixed, delta=self.delta) * len(warped)
            (gradient,) = torch.autograd.grad(value, u)
        return value.detach(), gradient if out is None else out.copy_(gradient)

    def gradient(self, displacement: torch.Tensor, *, out: Any = None) -> torch.Tensor:
        return self(displacement, out=out)[1]

    def curvature(self, displacement: torch.Tensor, *, out: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        value, gradient = self(displacement)
        slopes = sum(g.square() for channel in self.moving for g in torch.gradient(channel))
        found = torch.cat([gradient, slopes[None] / (3 * gradient[0].numel())])
        return value, found if out is None else out.copy_(found)


# A regulariser, an optimiser, features ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tether:
    """Half the mean squared length of the displacement."""

    weight: float = 1.0

    def __call__(
        self, displacement: torch.Tensor, *, add_to: Any = None, soft_mask: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = self.weight / displacement[0].numel() * displacement
        value = self.weight / 2 * displacement.square().sum(0).mean()
        return value, gradient if add_to is None else add_to.add_(gradient)


@dataclass(frozen=True, kw_only=True)
class NormalisedDescent:
    """Steps of a fixed length for the steepest control point."""

    step: float = 0.3

    def minimise(
        self, objective: Objective, state: DisplacementState, convergence: Convergence, smoothing: Any
    ) -> Iterator[int]:
        gradient = torch.empty_like(state.displacement)
        for iteration in convergence:
            objective.gradient(state.displacement, out=gradient)
            state.move(gradient, self)
            yield iteration

    def update(self, variable: torch.Tensor, gradient: torch.Tensor, *, accumulate: bool = True) -> None:
        step = -self.step * gradient / gradient.norm(dim=0).max().clamp_min(1e-12)
        variable.copy_(variable + step if accumulate else step)


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Length of the intensity gradient."""

    scale: float = 1.0

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        parts = torch.gradient(Intensity()(image, weight=weight)[0])
        return self.scale * sum(part.square() for part in parts).sqrt()[None]


@dataclass(frozen=True, kw_only=True)
class FullBoxGrid:
    """Half the resolution of the fixed image."""

    factor: int = 2

    def __call__(self, fixed: Grid) -> Grid:
        canonical = fixed.canonical()
        i, j, k = (s * self.factor for s in canonical.spacing_mm)
        return canonical.with_spacing((i, j, k))


CONFIGS: dict[str, RegistrationConfig] = {
    "similarity": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(iterations=20),),
            similarity=Huber(delta=0.25),
            regularisers=(),
            parametrisation=Compositional(),
        )
    ),
    "similarity, second order": RegistrationConfig(
        continuous=Refinement(
            levels=(Level(iterations=6),),
            similarity=WeightedSum(terms=(Huber(), Ssd()), weights=(1.0, 0.5)),
            optimiser=LevenbergMarquardt(),
            update_smoothing=GaussianSmoothing(sigma=1.5),
            parametrisation=Compositional(),
            regularisers=(),
        )
    ),
    "regulariser": RegistrationConfig(
        continuous=Refinement(levels=(Level(iterations=20),), regularisers=(Tether(weight=0.01),))
    ),
    "optimiser": RegistrationConfig(
        continuous=Refinement(levels=(Level(iterations=20),), optimiser=NormalisedDescent(step=0.6))
    ),
    "features": RegistrationConfig(features=Concat(parts=(MindSSC(), Gradients(scale=0.5)))),
    "features of the refinement": RegistrationConfig(continuous_features=Gradients()),
    "grid": RegistrationConfig(grid=FullBoxGrid()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_files_name_components_of_other_packages(name: str) -> None:
    text = CONFIGS[name].to_toml()
    assert f'"{__name__}:' in text
    assert RegistrationConfig.from_toml(text) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_they_register(name: str) -> None:
    pair = phantom_pair(SHAPE, spacing_mm=(6.0, 6.0, 6.0), displacement_mm=12.0, seed=2)
    result = register(pair.fixed, pair.moving, CONFIGS[name])
    truth = pair.fixed_landmarks_mm, pair.moving_landmarks_mm
    before = (truth[1] - truth[0]).norm(dim=1).mean()
    after = (result.transform(truth[0]) - truth[1]).norm(dim=1).mean()
    assert after < 0.75 * before
    assert f"{__name__}:" in str(result.summary())


def test_each_component_takes_part() -> None:
    # a tether of infinite strength keeps the displacement at the zero start
    pair = phantom_pair(SHAPE, spacing_mm=(6.0, 6.0, 6.0), displacement_mm=12.0, seed=2)
    tied = RegistrationConfig(
        discrete=None,
        continuous=Refinement(
            levels=(Level(iterations=20),), regularisers=(Tether(weight=1e6),), optimiser=Adam(learning_rate=0.1)
        ),
    )
    free = register(pair.fixed, pair.moving, tied.with_settings("continuous.regularisers = []"))
    held = register(pair.fixed, pair.moving, tied)
    assert held.diagnostics["displacement_max_mm"] < 0.25 * free.diagnostics["displacement_max_mm"]


def test_memory_is_estimated() -> None:
    assert estimate_memory((64, 64, 64), CONFIGS["regulariser"]) > 1e6
    with pytest.raises(ConfigError, match="channels must be given"):
        estimate_memory((64, 64, 64), CONFIGS["features of the refinement"])
    assert estimate_memory((64, 64, 64), CONFIGS["features of the refinement"], channels=3) > 1e6


def test_the_protocols_are_met() -> None:
    assert isinstance(Huber(), Similarity)
    assert isinstance(Tether(), Regulariser)
    assert isinstance(Gradients(), Features)


# What is refused ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_imported_is_not_saved() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
            return image.data.float()

    for features in (Inner(), lambda image, weight=None: image.data.float()):
        with pytest.raises(ConfigError, match="must be a dataclass that can be imported to be saved, got "):
            RegistrationConfig(features=features).to_toml()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:Class", "must be a class that can be imported, got 'no_such_package:Class'"),
        ("convexadam:NoSuch", "must be a class that can be imported"),
        ("os:system", "type must be a dataclass, got 'os:system'"),
        ("builtins:object", "type must be a dataclass"),
        (":", "must be a class that can be imported"),
        ("Hubert", "type must be a component, got 'Hubert'"),
    ],
)
def test_names_that_are_no_components(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig.from_toml(f'schema_version = 4\nfeatures = {{ type = "{name}" }}')


def test_a_component_of_the_wrong_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = CONFIGS["similarity"].to_toml().replace(":Huber", ":Tether").replace("delta = 0.25", "weight = 1.0")
    with pytest.raises(ConfigError, match="similarity must be a Similarity"):
        RegistrationConfig.from_toml(text)
    # as users have it: without the tests' own check of annotations, which would come first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match="similarity must be a Similarity, got Tether"):
        Refinement(similarity=Tether())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="similarity must be an instance, got the class Huber"):
        Refinement(similarity=Huber)  # type: ignore[arg-type]


# Presets and entry points -------------------------------------------------------------------------------------------

PACKAGE = '''
from dataclasses import dataclass

from convexadam import Image, RegistrationConfig, preset
from convexadam.features import Intensity


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """Inverted intensities."""

    scale: float = 1.0

    def __call__(self, image: Image, /, *, weight=None):
        return self.scale * (1 - Intensity()(image, weight=weight))


def small() -> RegistrationConfig:
    return preset("default").with_settings("discrete.spacing = 6")


def broken() -> RegistrationConfig:
    raise RuntimeError("no licence")


def wrong():
    return 3
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs a package with entry points for this test."""
    (tmp_path / "own_package.py").write_text(PACKAGE, encoding="utf-8")
    info = tmp_path / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[convexadam.presets]\nsmall = own_package:small\nbroken = own_package:broken\nwrong = own_package:wrong\n"
        "gone = own_package:gone\n[convexadam.components]\nInverted = own_package:Inverted\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [p.name for p in metadata.entry_points(group=toml.ENTRY_POINTS)] == ["Inverted"]
    for cached in (toml.components, presets._discover):
        cached.cache_clear()
    yield
    sys.modules.pop("own_package", None)
    monkeypatch.undo()
    for cached in (toml.components, presets._discover):
        cached.cache_clear()


def test_entry_points_are_presets_and_components(package: None) -> None:
    assert {"default", "small", "broken"} <= set(presets.preset_names())
    assert preset("small").discrete.spacing == 6  # type: ignore[union-attr]
    import own_package  # type: ignore[import-not-found]

    config = RegistrationConfig(features=own_package.Inverted(scale=2.0))
    assert 'type = "Inverted"' in config.to_toml()
    assert RegistrationConfig.from_toml(config.to_toml()) == config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "got RuntimeError.*no licence"),
        ("wrong", "must return a RegistrationConfig, got 3"),
        ("gone", "load"),
    ],
)
def test_broken_entry_points_say_so(name: str, message: str, package: None) -> None:
    with pytest.raises(ConfigError, match=message):
        preset(name)


def test_a_preset_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_registered", {})
    presets.register_preset("mine", lambda: CONFIGS["grid"], summary="Half the resolution.")
    assert preset("mine") == CONFIGS["grid"]
    assert "mine" in presets.preset_names()
    with pytest.raises(ConfigError, match="name must be new, got 'mine'"):
        presets.register_preset("mine", RegistrationConfig, summary="")
    with pytest.raises(ConfigError, match=r"preset must be one of default, .*mine, got 'mime' \(did you mean 'mine'"):
        preset("mime")
