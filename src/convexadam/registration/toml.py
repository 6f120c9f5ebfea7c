"""Settings as TOML text and back.

A component is named by its class: ``MindSSC`` for those of the library, by the entry point in the group
``convexadam.components`` or as ``module:Class`` for those of other packages. Only dataclasses are instantiated, but
reading such a file imports the module that it names: read only files that you trust as you trust code.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import numbers
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from convexadam import continuous, discrete, features, linear
from convexadam._arguments import fits, name_type
from convexadam._checks import is_finite, show
from convexadam.errors import ConfigError, did_you_mean
from convexadam.registration import foreground, landmarks, working_grid

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from _typeshed import DataclassInstance

SCHEMA_VERSION = 4
"""Raised by one whenever a saved file could no longer be read as it was meant."""

ENTRY_POINTS = "convexadam.components"
"""Group of entry points; each names a dataclass."""

MOST_CHARACTERS = 1_000_000

_MODULES = (working_grid, foreground, features, linear, discrete, continuous, landmarks)

_INLINE = (str, bool, tuple)
"""What takes one line of TOML; all else is a table."""

T = TypeVar("T", bound="DataclassInstance")


@cache
def components() -> dict[str, type]:
    """Return the components that settings files can name: those of the library, and entry points of other packages.

    A component is a public dataclass that is compared by value.
    """
    from importlib import metadata  # 45 ms, and nothing else needs it

    found: dict[str, type] = {}
    for module in _MODULES:
        for name, value in vars(module).items():
            own = isinstance(value, type) and value.__module__.startswith(module.__name__)
            if own and not name.startswith("_") and _is_component(value):
                found[name] = value
    return found | {point.name: _load_entry_point(point) for point in metadata.entry_points(group=ENTRY_POINTS)}


def _is_component(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) and bool(kind.__dataclass_params__.eq)  # type: ignore[attr-defined]


def _load_entry_point(point: EntryPoint) -> type:
    try:
        kind = point.load()
    except Exception as error:  # whatever another package raises
        raise ConfigError(f"component {point.name!r} must load from {point.value}, got {show(error)}") from error
    return _check_dataclass(kind, point.value)


def find_component(name: str) -> type:
    """Return the class that a settings file names.

    Raises
    ------
    ConfigError
        If there is none, or it is no dataclass.
    """
    known = components()
    if name in known:
        return known[name]
    module, colon, qualified = name.partition(":")
    if not colon:
        raise ConfigError(
            f"type must be a component, got {show(name)}{_suggest(name, known)}; known: {', '.join(known)}, and "
            "'module:Class' for one of another package"
        )
    try:
        value: Any = importlib.import_module(module)
        for part in qualified.split("."):
            value = getattr(value, part)
    except Exception as error:  # whatever a module raises as it is imported
        raise ConfigError(f"type must be a class that can be imported, got {show(name)}: {error}") from error
    return _check_dataclass(value, name)


def name_component(kind: type) -> str:
    """Return the name of a class in settings files.

    Raises
    ------
    ConfigError
        If it is no dataclass, or cannot be imported by its name.
    """
    for name, known in components().items():
        if known is kind:
            return name
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        found = find_component(name)
    except ConfigError:
        found = None
    if found is not kind or kind.__module__ == "__main__":
        raise ConfigError(
            f"a component must be a dataclass that can be imported to be saved, got {show(kind.__qualname__)} of "
            f"{kind.__module__}; define it at the top level of a module"
        )
    return name


def _check_dataclass(kind: Any, name: str) -> type:
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise ConfigError(f"type must be a dataclass, got {show(name)}")
    return kind


def to_toml(config: DataclassInstance) -> str:
    """Write a dataclass of components as TOML: one table for each, ``"none"`` for an absent one."""
    sections = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    lines = [f"schema_version = {SCHEMA_VERSION}"]
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    lines += [f"{name} = {_literal(value)}" for name, value in sections.items() if isinstance(value, _INLINE)]
    lines += [f'{name} = "none"' for name, value in sections.items() if value is None and defaults[name] is not None]
    for name, component in sections.items():
        if component is not None and not isinstance(component, _INLINE):
            lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in _entries(component))]
    return "\n".join(lines) + "\n"


def from_toml(kind: type[T], text: str) -> T:
    """Build a dataclass of components from TOML; what the text leaves out has its default."""
    try:
        return _from_table(kind, _parse(text))
    except _UNREADABLE as error:
        raise ConfigError(f"the settings must be valid TOML, got an error: {_describe(error)}") from error


def with_overrides(config: T, assignments: Sequence[str]) -> T:
    """Change single settings: each assignment is a line of TOML such as ``discrete.spacing = 5``.

    A table with a ``type`` replaces the component, one without changes fields of it:
    ``continuous.final_smoothing = { type = "BoxSmoothing", passes = 2 }``. Elements of a list go by their numbers:
    ``continuous.levels.0.iterations = 40``.
    """
    changes = []
    for assignment in assignments:
        try:
            changes.append(_parse(assignment))
        except _UNREADABLE as error:
            raise ConfigError(
                f"a setting must be KEY=VALUE in TOML, got {show(assignment)}: {_describe(error)}; write "
                'discrete.spacing=5 or grid={type="NativeGrid"}'
            ) from error
    try:
        return with_changes(config, changes)
    except RecursionError as error:
        raise ConfigError(f"settings must not be nested so deeply, got {show(assignments)}; flatten them") from error


_UNREADABLE = (tomllib.TOMLDecodeError, RecursionError)


def _parse(text: str) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        found = f"{len(text)} characters" if isinstance(text, str) else show(text)
        raise ConfigError(f"the settings must be TOML text of at most {MOST_CHARACTERS} characters, got {found}")
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of an integer with thousands of digits
        raise tomllib.TOMLDecodeError(str(error)) from error


def _describe(error: Exception) -> str:
    return "tables nested too deeply" if isinstance(error, RecursionError) else str(error)


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
            table[key] = _merge_elements(key, old, value)


def _merge_elements(name: str, old: list[Any], change: dict[str, Any]) -> list[Any]:
    """Change elements of a list by their numbers, from 0."""
    elements = {str(number): element for number, element in enumerate(old)}
    if unknown := [key for key in change if key not in elements]:
        raise ConfigError(f"an element of {name} must be a number from 0 to {len(old) - 1}, got {show(unknown[0])}")
    _merge(elements, change)
    return list(elements.values())


def _from_table(kind: type[T], table: dict[str, Any]) -> T:
    version = table.pop("schema_version", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ConfigError(
            f"schema_version must be {SCHEMA_VERSION}, got {'none' if version is None else version}; save the settings "
            "again with this version"
        )
    return _build(kind, table, "the settings")


def as_plain(setting: Any) -> Any:
    """Return plain values of a setting, for reports: a table for each component and for none, a name for a function."""
    return {"type": "none"} if setting is None else _to_plain(setting)


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(v) for v in value]
    if isinstance(value, numbers.Real):
        return _to_python_number(value)
    if value is None or isinstance(value, str):
        return value
    try:
        name = name_component(type(value))
    except ConfigError:
        return {"type": getattr(value, "__qualname__", type(value).__qualname__)}
    return {"type": name, **{item.name: _to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}}


def _to_python_number(value: numbers.Real) -> bool | int | float:
    """Numbers of numpy and others as Python's own: neither JSON nor TOML know them."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _entries(component: Any) -> list[tuple[str, Any]]:
    """Type and fields of a component; a ``None`` that is not the default is written ``"none"``."""
    if not dataclasses.is_dataclass(component):
        raise ConfigError(
            f"a component must be a dataclass that can be imported to be saved, got {show(component)}; write a "
            "dataclass with __call__ at the top level of a module"
        )
    entries: list[tuple[str, Any]] = [("type", name_component(type(component)))]
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
        plain = _to_python_number(value)
        return str(plain).lower() if isinstance(plain, bool) else repr(plain)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return "{ " + ", ".join(f"{k} = {_literal(v)}" for k, v in _entries(value)) + " }"


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    hints = _type_hints(kind)
    names = [item.name for item in dataclasses.fields(kind)]
    values = {}
    for key, raw in table.items():
        if key not in names:
            raise ConfigError(f"{where}: keys must be among {', '.join(names)}, got {show(key)}{_suggest(key, names)}")
        values[key] = _parse_value(raw, f"{where}: {key}")
        if not fits(values[key], hints[key]):
            raise ConfigError(f"{where}: {key} must be {name_type(hints[key], _TYPE_NAMES)}, got {show(raw)}")
        if hints[key] is float and is_finite(values[key]):  # the component refuses other numbers
            values[key] = float(values[key])
    missing = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
        and item.name not in values
    ]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} must be given for {kind.__name__}, got none")
    try:
        return kind(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:  # of a component of another package
        raise ConfigError(f"{where}: {kind.__name__} must accept its settings, got an error: {error}") from error


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):  # another package may annotate with names that exist for type checkers only
        return {item.name: Any for item in dataclasses.fields(kind)}


def _parse_value(raw: Any, where: str) -> Any:
    if raw == "none":
        return None
    if isinstance(raw, list):
        return tuple(_parse_value(v, where) for v in raw)
    if not isinstance(raw, dict):
        return raw
    name = raw.get("type")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: type must be the name of a component, got {show(name)}")
    try:
        kind = find_component(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return _build(kind, {key: value for key, value in raw.items() if key != "type"}, where)


def _suggest(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known, cutoff=0.4)


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    types.NoneType: "'none'",
}
