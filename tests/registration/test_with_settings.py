"""Single settings changed by a key and a value."""

from __future__ import annotations

import pytest

from convexadam import (
    ConfigError,
    ConvexSearch,
    MindSSC,
    NativeGrid,
    Refinement,
    RegistrationConfig,
)
from convexadam.continuous import (
    BoxSmoothing,
    Diffusion,
    Level,
)


def test_with_settings() -> None:
    config = RegistrationConfig(discrete=ConvexSearch(), continuous=Refinement())
    found = config.with_settings(
        "discrete.spacing = [3, 4, 5]",
        "continuous.update_smoothing.width=5",
        'continuous.final_smoothing = { type = "BoxSmoothing", passes = 2 }',
        'grid = { type = "NativeGrid" }',
        "features.radius = 2",
    )
    assert found == RegistrationConfig(
        grid=NativeGrid(),
        features=MindSSC(radius=2),
        discrete=ConvexSearch(spacing=(3, 4, 5)),
        continuous=Refinement(update_smoothing=BoxSmoothing(width=5), final_smoothing=BoxSmoothing(passes=2)),
    )
    assert config == RegistrationConfig(discrete=ConvexSearch(), continuous=Refinement())
    assert config.with_settings() == config


def test_with_settings_of_elements_by_their_numbers() -> None:
    config = RegistrationConfig(
        discrete=(ConvexSearch(spacing=6), ConvexSearch(spacing=3)),
        continuous=Refinement(levels=(Level(spacing=4), Level(iterations=20))),
    )
    found = config.with_settings(
        "discrete.1.radius = 2",
        "continuous.levels.0.iterations = 30",
        'continuous.levels.1 = { type = "Level", spacing = 1 }',
        "continuous.regularisers.0.weight = 0.5",
    )
    assert found == RegistrationConfig(
        discrete=(ConvexSearch(spacing=6), ConvexSearch(spacing=3, radius=2)),
        continuous=Refinement(
            levels=(Level(spacing=4, iterations=30), Level(spacing=1)), regularisers=(Diffusion(weight=0.5),)
        ),
    )
    two = config.with_settings('continuous.levels = [{ type = "Level", spacing = 3 }, { type = "Level" }]').continuous
    assert two is not None
    assert two.levels == (Level(spacing=3), Level())


def test_with_settings_in_order() -> None:
    found = RegistrationConfig().with_settings("discrete.radius = 5", 'discrete = "none"')
    assert found.discrete is None
    back = found.with_settings('discrete = { type = "ConvexSearch" }', "discrete.radius = 5", "discrete.radius = 3")
    assert back.discrete == ConvexSearch(radius=3)


def test_with_settings_replaces_a_component_as_a_whole() -> None:
    config = RegistrationConfig(features=MindSSC(radius=3), discrete=ConvexSearch(spacing=9))
    found = config.with_settings('features = { type = "MindSSC", dilation = 1 }')
    assert found.features == MindSSC(dilation=1)
    assert found.discrete == ConvexSearch(spacing=9)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("discrete.spacing", r"a setting must be KEY=VALUE in TOML, got 'discrete.spacing'"),
        ("discrete.spacing = five", "a setting must be KEY=VALUE in TOML"),
        ("discrete.sapcing = 5", r"did you mean 'spacing'\?"),
        ("descrete.spacing = 5", r"did you mean 'discrete'\?"),
        ("discrete.spacing = 0", "spacing must be one number or a tuple of three"),
        ("continuous.tolerance.x = 3", "tolerance"),
        ("continuous.iterations = 3", "keys must be among .*, got 'iterations'"),
        ("continuous.levels.iterations = 3", "an element of levels must be a number from 0 to 0, got 'iterations'"),
        ("continuous.levels.1.iterations = 3", "an element of levels must be a number from 0 to 0, got '1'"),
        ("continuous.levels.-1.iterations = 3", "must be a number from 0 to 0, got '-1'"),
        ("discrete.0.spacing = 3", "keys must be among .*, got '0'"),
        ("schema_version = 3", "schema_version must be 4, got 3"),
        ('grid = "none"', "grid must be a WorkingGrid, got 'none'"),
    ],
)
def test_invalid_assignments(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig().with_settings(assignment)
