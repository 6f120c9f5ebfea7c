"""Settings as TOML text and back; only components of the library are ever built from a file."""

from __future__ import annotations

import copy
import dataclasses
import numbers
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from convexadam.continuous import (
    Adam,
    Bending,
    BilateralSmoothing,
    BoxSmoothing,
    Compositional,
    Diffusion,
    Displacement,
    GaussianSmoothing,
    KovesiSmoothing,
    Level,
    LevenbergMarquardt,
    Lncc,
    MutualInformation,
    Refinement,
    Ssd,
    StationaryVelocity,
    VolumePreserving,
    WeightedSum,
)
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError, did_you_mean
from convexadam.features import (
    Concat,
    Intensity,
    LabelFeatures,
    MindSSC,
    NNUNetFeatures,
    Precomputed,
    ProbabilityFeatures,
    TorchScriptFeatures,
)
from convexadam.linear import LinearAlignment
from convexadam.registration.foreground import AutoForeground
from convexadam.registration.guide import LandmarkGuide
from convexadam.registration.working_grid import GivenGrid, IsotropicGrid

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 3
"""Raised by one whenever a saved file could no longer be read as it was meant."""

COMPONENTS: tuple[type, ...] = (
    MindSSC,
    Intensity,
    Precomputed,
    LabelFeatures,
    ProbabilityFeatures,
    NNUNetFeatures,
    TorchScriptFeatures,
    Concat,
    GivenGrid,
    IsotropicGrid,
    AutoForeground,
    LinearAlignment,
    ConvexSearch,
    Refinement,
    LandmarkGuide,
    Level,
    Ssd,
    Lncc,
    MutualInformation,
    WeightedSum,
    Diffusion,
    Bending,
    VolumePreserving,
    Adam,
    LevenbergMarquardt,
    Displacement,
    Compositional,
    StationaryVelocity,
    BilateralSmoothing,
    BoxSmoothing,
    GaussianSmoothing,
    KovesiSmoothing,
)
"""What a file can name."""

_PLAIN = (str, bool, tuple)
"""What takes one line of TOML; all else is a table."""

T = TypeVar("T", bound="DataclassInstance")


def to_toml(config: DataclassInstance) -> str:
    """Write a dataclass of components as TOML: one table for each, ``"none"`` for an absent one."""
    sections = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    lines = [f"schema_version = {SCHEMA_VERSION}"]
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    lines += [f"{name} = {_literal(value)}" for name, value in sections.items() if isinstance(value, _PLAIN)]
    lines += [f'{name} = "none"' for name, value in sections.items() if value is None and defaults[name] is not None]
    for name, component in sections.items():
        if component is not None and not isinstance(component, _PLAIN):
            lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in _entries(component))]
    return "\n".join(lines) + "\n"


def from_toml(kind: type[T], text: str) -> T:
    """Build a dataclass of components from TOML; what the text leaves out has its default."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the settings are not valid TOML: {error}") from error
    return _from_table(kind, table)


def with_overrides(config: T, assignments: Sequence[str]) -> T:
    """Change single settings: each assignment is a line of TOML such as ``discrete.spacing = 5``.

    A table with a ``type`` replaces the component, one without changes fields of it:
    ``continuous.final_smoothing = { type = "BoxSmoothing", passes = 2 }``. Elements of a list go by their numbers:
    ``continuous.levels.0.iterations = 40``.
    """
    changes = []
    for assignment in assignments:
        try:
            changes.append(tomllib.loads(assignment))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{assignment!r} is no setting: {error}; needed is KEY=VALUE in TOML, "
                'as in discrete.spacing=5 or grid={type="GivenGrid"}'
            ) from error
    return with_changes(config, changes)


def with_changes(config: T, changes: Iterable[dict[str, Any]]) -> T:
    """Change settings by tables as TOML has them, one after the other; see `with_overrides`."""
    table = tomllib.loads(to_toml(config))
    for change in changes:
        _merge(table, copy.deepcopy(change))  # the next change may be of a part of this one
    return _from_table(type(config), table)


def _merge(table: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        old = table.get(key)
        if not isinstance(value, dict) or "type" in value or not isinstance(old, (dict, list)):
            table[key] = value
        elif isinstance(old, dict):
            _merge(old, value)
        else:
            table[key] = _merged(key, old, value)


def _merged(name: str, old: list[Any], change: dict[str, Any]) -> list[Any]:
    """Change elements of a list by their numbers, from 0."""
    elements = {str(number): element for number, element in enumerate(old)}
    if unknown := [key for key in change if key not in elements]:
        raise ConfigError(f"{name} has {len(old)} elements, counted from 0, and none of number {unknown[0]!r}")
    _merge(elements, change)
    return list(elements.values())


def _from_table(kind: type[T], table: dict[str, Any]) -> T:
    version = table.pop("schema_version", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        came = "no schema_version" if version is None else f"schema_version {version}"
        raise ConfigError(
            f"the settings have {came}, but this version of the library reads schema_version = {SCHEMA_VERSION}; "
            "write them anew with RegistrationConfig.save"
        )
    return _built(kind, table, "the settings")


def as_plain(setting: Any) -> Any:
    """Plain values of a setting, for reports: a table for each component and for none; a function becomes its name."""
    return {"type": "none"} if setting is None else _plain(setting)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, numbers.Real):
        return _plain_number(value)
    if value is None or isinstance(value, str):
        return value
    if type(value) not in COMPONENTS:
        return {"type": getattr(value, "__qualname__", type(value).__qualname__)}
    fields = {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return {"type": type(value).__name__, **fields}


def _plain_number(value: numbers.Real) -> bool | int | float:
    """Numbers of numpy and others as Python's own: neither JSON nor TOML know them."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _entries(component: Any) -> list[tuple[str, Any]]:
    """Type and fields of a component; a ``None`` that is not the default is written ``"none"``."""
    if type(component) not in COMPONENTS:
        raise ConfigError(f"{component!r} is code and cannot be saved; only the components of the library can")
    entries: list[tuple[str, Any]] = [("type", type(component).__name__)]
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if value is not None:
            entries.append((item.name, value))
        elif item.default is not None:
            entries.append((item.name, "none"))
    return entries


def _literal(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, numbers.Real):
        plain = _plain_number(value)
        return str(plain).lower() if isinstance(plain, bool) else repr(plain)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return "{ " + ", ".join(f"{k} = {_literal(v)}" for k, v in _entries(value)) + " }"


def _built(kind: type[T], table: dict[str, Any], where: str) -> T:
    hints = typing.get_type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    values = {}
    for key, raw in table.items():
        if key not in names:
            raise ConfigError(f"{where} have no key {key!r}{_nearest(key, names)}; known keys: {', '.join(names)}")
        values[key] = _value(raw, f"{where}: {key}")
        if not _fits(values[key], hints[key]):
            raise ConfigError(f"{where}: {key} = {raw!r} is of the wrong type; needed: {_described(hints[key])}")
        if hints[key] is float:
            values[key] = float(values[key])
    missing = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and item.name not in values
    ]
    if missing:
        raise ConfigError(f"{where}: {kind.__name__} needs {', '.join(missing)}")
    return kind(**values)


def _value(raw: Any, where: str) -> Any:
    if raw == "none":
        return None
    if isinstance(raw, list):
        return tuple(_value(v, where) for v in raw)
    if not isinstance(raw, dict):
        return raw
    known = {component.__name__: component for component in COMPONENTS}
    name = raw.get("type")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{where}: no component has the type {name!r}{_nearest(str(name), known)}; known: {', '.join(known)}"
        )
    return _built(known[name], {key: value for key, value in raw.items() if key != "type"}, where)


def _nearest(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known, cutoff=0.4)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a file has the annotated type; a whole number fits a float."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        options = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
        return len(value) == len(options) and all(_fits(v, o) for v, o in zip(value, options, strict=True))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
