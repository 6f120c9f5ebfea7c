"""Settings that are invalid, and the messages about them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from convexadam import (
    ConfigError,
    ConvexSearch,
    IsotropicGrid,
    NativeGrid,
    Refinement,
    RegistrationConfig,
)
from convexadam.registration.toml import components

HEAD = "schema_version = 4\n"


@pytest.mark.parametrize("text", ["", "schema_version = 2", 'schema_version = "1"', "schema_version = 0\n[grid]"])
def test_another_schema_version_raises(text: str) -> None:
    with pytest.raises(ConfigError, match=r"schema_version must be 4, got "):
        RegistrationConfig.from_toml(text)


@pytest.mark.parametrize("text", ["schema_version", "= 3", HEAD + "[grid", HEAD + HEAD, HEAD + "grid = {", "\0"])
def test_invalid_toml(text: str) -> None:
    with pytest.raises(ConfigError, match="must be valid TOML, got an error"):
        RegistrationConfig.from_toml(text)


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ('discret = "none"', "discret", "discrete"),
        ('discrete = { type = "ConvexSearch", spaceing = 3 }', "spaceing", "spacing"),
        ('grid = { type = "IsotropicGrid", max_voxel = 3 }', "max_voxel", "max_voxels"),
        (
            'continuous = { type = "Refinement", update_smoothing = { type = "BoxSmoothing", with = 3 } }',
            "with",
            "width",
        ),
        ('features = { type = "Concat", parts = [{ type = "MindSSC", radios = 3 }] }', "radios", "radius"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"keys must be among .*, got '{wrong}' \(did you mean '{nearest}'\?\)"):
        RegistrationConfig.from_toml(HEAD + text)


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ('discrete = { type = "ConvexSerch" }', "ConvexSerch", "ConvexSearch"),
        ('features = { type = "MINDSSC" }', "MINDSSC", "MindSSC"),
        ('features = { type = "Concat", parts = [{ type = "Intensities" }] }', "Intensities", "Intensity"),
    ],
)
def test_an_unknown_component_names_the_nearest(text: str, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"type must be a component, got '{wrong}' \(did you mean '{nearest}'\?\)"):
        RegistrationConfig.from_toml(HEAD + text)


def test_a_component_needs_its_type() -> None:
    with pytest.raises(ConfigError, match="discrete: type must be the name of a component, got None"):
        RegistrationConfig.from_toml(HEAD + "[discrete]\nspacing = 3")


def test_files_cannot_name_other_code() -> None:
    for name in ("OwnFeatures", "os.system", "RegistrationConfig", "object"):
        with pytest.raises(ConfigError, match=r"type must be (a component|a dataclass|the name)"):
            RegistrationConfig.from_toml(HEAD + f'features = {{ type = "{name}" }}')


@pytest.mark.parametrize("kind", components().values(), ids=lambda kind: kind.__name__)
def test_a_date_is_of_the_wrong_type_for_every_setting(kind: Any) -> None:
    place = {NativeGrid: "grid", IsotropicGrid: "grid", ConvexSearch: "discrete"}.get(kind, "features")
    for name in (item.name for item in dataclasses.fields(kind)):
        with pytest.raises(ConfigError, match=rf"{name} must be .*, got datetime"):
            RegistrationConfig.from_toml(HEAD + f'{place} = {{ type = "{kind.__name__}", {name} = 2024-09-17 }}')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "3") for name in ("grid", "features", "discrete", "continuous", "continuous_features")),
        *(("discrete", value) for value in ('"yes"', "[]", "true", '{ type = "BoxSmoothing" }')),
    ],
)
def test_values_that_are_not_components(name: str, value: str) -> None:
    none_of_some = (name, value) == ("discrete", "[]")
    message = "discrete must be a ConvexSearch, a tuple" if none_of_some else rf"{name} must be .*, got "
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig.from_toml(HEAD + f"{name} = {value}")


@pytest.mark.parametrize("name", ["grid", "features"])
def test_some_components_cannot_be_absent(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} must be .*, got 'none'"):
        RegistrationConfig.from_toml(HEAD + f'{name} = "none"')


@pytest.mark.parametrize(
    ("component", "setting"),
    [
        ("discrete = ConvexSearch", 'spacing = "3"'),
        ("discrete = ConvexSearch", "spacing = true"),
        ("discrete = ConvexSearch", "spacing = [3, 3]"),
        ("discrete = ConvexSearch", "spacing = [3, 3, true]"),
        ("discrete = ConvexSearch", 'spacing = "none"'),
        ("discrete = ConvexSearch", 'unit = "cm"'),
        ("discrete = ConvexSearch", "unit = 1"),
        ("discrete = ConvexSearch", "parabolic_fit = 1"),
        ("discrete = ConvexSearch", "inverse_consistency = 1.5"),
        ("discrete = ConvexSearch", "inverse_consistency = true"),
        ("discrete = ConvexSearch", "coupling_weights = 1.0"),
        ("discrete = ConvexSearch", 'coupling_weights = ["a"]'),
        ("continuous = Refinement", 'levels = [{ type = "Level", iterations = 2.0 }]'),
        ("continuous = Refinement", 'levels = { type = "Level" }'),
        ("continuous = Refinement", 'levels = [{ type = "Diffusion" }]'),
        ("continuous = Refinement", 'regularisers = [{ type = "Diffusion", weight = "1" }]'),
        ("continuous = Refinement", 'regularisers = [{ type = "Bending", weight = true }]'),
        ("continuous = Refinement", 'regularisers = "none"'),
        ("continuous = Refinement", 'optimiser = { type = "Ssd" }'),
        ("continuous = Refinement", 'optimiser = "Adam"'),
        ("continuous = Refinement", 'similarity = { type = "WeightedSum", terms = [{ type = "Level" }] }'),
        ("continuous = Refinement", 'similarity = { type = "Adam" }'),
        ("continuous = Refinement", 'tolerance = "none"'),
        ("continuous = Refinement", 'update_smoothing = { type = "MindSSC" }'),
        ("continuous = Refinement", 'parametrisation = "none"'),
        ("grid = IsotropicGrid", "max_voxels = 1e6"),
        ("grid = IsotropicGrid", 'spacing_mm = "fine"'),
        ("features = MindSSC", "radius = 1.5"),
        ("features = Concat", "parts = [3]"),
        ("features = Concat", 'parts = { type = "MindSSC" }'),
        ("features = Concat", 'weights = "none"\nparts = "none"'),
    ],
)
def test_wrong_types(component: str, setting: str) -> None:
    name, kind = component.split(" = ")
    with pytest.raises(ConfigError, match=rf"{setting.split(' ', 1)[0]}.* must be .*, got |parts must be"):
        RegistrationConfig.from_toml(HEAD + f'[{name}]\ntype = "{kind}"\n{setting}')


@pytest.mark.parametrize(
    ("component", "setting", "message"),
    [
        ("discrete = ConvexSearch", "spacing = 0", "spacing must be one number or a tuple of three"),
        ("discrete = ConvexSearch", "spacing = nan", "spacing must be one number or a tuple of three"),
        ("discrete = ConvexSearch", "inverse_consistency = -1", "inverse_consistency must be a whole number"),
        (
            "continuous = Refinement",
            'optimiser = { type = "Adam", learning_rate = 0.0 }',
            "learning_rate must be a finite number above 0",
        ),
        (
            "continuous = Refinement",
            'regularisers = [{ type = "Diffusion", weight = inf }]',
            "weight must be a finite number",
        ),
        ("continuous = Refinement", "levels = []", r"levels must be a tuple of at least one Level, got \(\)"),
        ("continuous = Refinement", "tolerance = -1", "tolerance must be a finite number of at least 0"),
        ("grid = IsotropicGrid", "max_voxels = 0", "max_voxels must be a whole number of at least 1"),
        ("grid = IsotropicGrid", "spacing_mm = -1", "spacing_mm must be a finite number above 0"),
        ("features = Intensity", "quantiles = [2.0, 1.0]", "quantiles .* 0 <= low < high <= 1"),
        ("features = Concat", "parts = []", "at least one feature extractor"),
        (
            "features = Concat",
            'parts = [{ type = "MindSSC" }]\nweights = [1.0, 2.0]',
            "weight.* 1",
        ),
    ],
)
def test_out_of_range(component: str, setting: str, message: str) -> None:
    name, kind = component.split(" = ")
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig.from_toml(HEAD + f'[{name}]\ntype = "{kind}"\n{setting}')


@pytest.mark.parametrize("name", ["NativeGrid", "ConvexSearch", "Refinement", "Diffusion", "Ssd", "Adam"])
@pytest.mark.parametrize("place", ["features", "continuous_features"])
def test_other_components_as_features_raise(name: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        RegistrationConfig.from_toml(HEAD + f'{place} = {{ type = "{name}" }}')


def test_a_missing_setting_without_default_is_named() -> None:
    with pytest.raises(ConfigError, match="parts"):
        RegistrationConfig.from_toml(HEAD + 'features = { type = "Concat" }')


def test_a_type_must_be_a_name() -> None:
    with pytest.raises(ConfigError, match=r"type must be (a component|a dataclass|the name)"):
        RegistrationConfig.from_toml(HEAD + 'discrete = { type = ["ConvexSearch"] }')


@pytest.mark.parametrize(
    "settings",
    [
        {"grid": None},
        {"grid": "NativeGrid"},
        {"features": 3},
        {"features": None},
        {"continuous_features": 3},
        {"discrete": "no"},
        {"discrete": ()},
        {"discrete": (ConvexSearch(), None)},
        {"discrete": [ConvexSearch()]},
        {"continuous": 3},
        {"continuous": (Refinement(),)},
        {"symmetric": 1},
        {"symmetric": None},
    ],
)
def test_the_config_accepts_components_only(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(settings))} (is|must be) "):
        RegistrationConfig(**settings)
