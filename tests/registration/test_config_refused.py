"""Settings that cannot be meant are refused, with a hint."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from convexadam import (
    ConfigError,
    ConvexSearch,
    GivenGrid,
    IsotropicGrid,
    Refinement,
    RegistrationConfig,
)
from convexadam.registration.saved import COMPONENTS

HEAD = "schema_version = 3\n"


@pytest.mark.parametrize("text", ["", "schema_version = 2", 'schema_version = "1"', "schema_version = 0\n[grid]"])
def test_another_schema_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"schema_version.*reads schema_version = 3; write them anew"):
        RegistrationConfig.from_toml(text)


@pytest.mark.parametrize("text", ["schema_version", "= 3", HEAD + "[grid", HEAD + HEAD, HEAD + "grid = {", "\0"])
def test_no_toml(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        RegistrationConfig.from_toml(text)


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ('discret = "none"', "discret", "discrete"),
        ('discrete = { type = "ConvexSearch", spaceing = 3 }', "spaceing", "spacing"),
        ('grid = { type = "IsotropicGrid", max_voxel = 3 }', "max_voxel", "max_voxels"),
        (
            'continuous = { type = "Refinement", smoothing = { type = "BoxSmoothing", with = 3 } }',
            "with",
            "width",
        ),
        ('features = { type = "Concat", parts = [{ type = "MindSSC", radios = 3 }] }', "radios", "radius"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"no key '{wrong}' \(did you mean '{nearest}'\?\); known keys: "):
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
    with pytest.raises(ConfigError, match=rf"no component has the type '{wrong}' \(did you mean '{nearest}'\?\)"):
        RegistrationConfig.from_toml(HEAD + text)


def test_a_component_needs_its_type() -> None:
    with pytest.raises(ConfigError, match="discrete: no component has the type None"):
        RegistrationConfig.from_toml(HEAD + "[discrete]\nspacing = 3")


def test_files_cannot_name_other_code() -> None:
    for name in ("OwnFeatures", "os.system", "RegistrationConfig", "object"):
        with pytest.raises(ConfigError, match="no component has the type"):
            RegistrationConfig.from_toml(HEAD + f'features = {{ type = "{name}" }}')


FIELDS = [(kind, item.name) for kind in COMPONENTS for item in dataclasses.fields(kind)]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
def test_a_date_fits_no_option(kind: type, name: str) -> None:
    place = {GivenGrid: "grid", IsotropicGrid: "grid", ConvexSearch: "discrete"}.get(kind, "features")
    with pytest.raises(ConfigError, match=rf"{name} = .*of the wrong type; needed: "):
        RegistrationConfig.from_toml(HEAD + f'{place} = {{ type = "{kind.__name__}", {name} = 2024-09-17 }}')


@pytest.mark.parametrize("name", ["grid", "features", "discrete", "continuous", "continuous_features"])
@pytest.mark.parametrize("value", ["3", '"yes"', "[]", "true", '{ type = "BoxSmoothing" }'])
def test_no_component(name: str, value: str) -> None:
    none_of_some = (name, value) == ("discrete", "[]")
    message = "discrete is a ConvexSearch, a tuple of at least one, or None" if none_of_some else "of the wrong type"
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig.from_toml(HEAD + f"{name} = {value}")


@pytest.mark.parametrize("name", ["grid", "features"])
def test_some_components_cannot_be_absent(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} = 'none' is of the wrong type"):
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
        ("discrete = ConvexSearch", "subcell = 1"),
        ("discrete = ConvexSearch", "inverse_consistency = 1.5"),
        ("discrete = ConvexSearch", "inverse_consistency = true"),
        ("discrete = ConvexSearch", "thetas = 1.0"),
        ("discrete = ConvexSearch", 'thetas = ["a"]'),
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
        ("continuous = Refinement", 'smoothing = { type = "MindSSC" }'),
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
    with pytest.raises(ConfigError, match=r"of the wrong type; needed: "):
        RegistrationConfig.from_toml(HEAD + f'[{name}]\ntype = "{kind}"\n{setting}')


@pytest.mark.parametrize(
    ("component", "setting", "message"),
    [
        ("discrete = ConvexSearch", "spacing = 0", "spacing is one number or a tuple of three"),
        ("discrete = ConvexSearch", "spacing = nan", "spacing is one number or a tuple of three"),
        ("discrete = ConvexSearch", "inverse_consistency = -1", "inverse_consistency is a whole number"),
        (
            "continuous = Refinement",
            'optimiser = { type = "Adam", learning_rate = 0.0 }',
            "learning_rate is a finite number above 0",
        ),
        (
            "continuous = Refinement",
            'regularisers = [{ type = "Diffusion", weight = inf }]',
            "weight is a finite number",
        ),
        ("continuous = Refinement", "levels = []", r"levels is a tuple of at least one Level .*but \(\) .*came"),
        ("continuous = Refinement", "tolerance = -1", "tolerance is a finite number of at least 0"),
        ("grid = IsotropicGrid", "max_voxels = 0", "max_voxels is a whole number of at least 1"),
        ("grid = IsotropicGrid", "spacing_mm = -1", "spacing_mm is a finite number above 0"),
        ("features = Intensity", "low = 2.0", "quantiles are 0 <= low < high <= 1"),
        ("features = Concat", "parts = []", "at least one extractor"),
        (
            "features = Concat",
            'parts = [{ type = "MindSSC" }]\nweights = [1.0, 2.0]',
            "needs one weight .*for each of its 1 parts",
        ),
    ],
)
def test_out_of_range(component: str, setting: str, message: str) -> None:
    name, kind = component.split(" = ")
    with pytest.raises(ConfigError, match=message):
        RegistrationConfig.from_toml(HEAD + f'[{name}]\ntype = "{kind}"\n{setting}')


@pytest.mark.parametrize("name", ["GivenGrid", "ConvexSearch", "Refinement", "Diffusion", "Ssd", "Adam"])
@pytest.mark.parametrize("place", ["features", "continuous_features"])
def test_features_are_features(name: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        RegistrationConfig.from_toml(HEAD + f'{place} = {{ type = "{name}" }}')


def test_an_option_without_default_is_named_when_missing() -> None:
    with pytest.raises(ConfigError, match="parts"):
        RegistrationConfig.from_toml(HEAD + 'features = { type = "Concat" }')


def test_a_type_is_a_name() -> None:
    with pytest.raises(ConfigError, match="no component has the type"):
        RegistrationConfig.from_toml(HEAD + 'discrete = { type = ["ConvexSearch"] }')


@pytest.mark.parametrize(
    "settings",
    [
        {"grid": None},
        {"grid": "GivenGrid"},
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
def test_the_config_takes_components_only(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(settings))} is "):
        RegistrationConfig(**settings)
