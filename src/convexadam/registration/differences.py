"""Settings as what differs from the closest preset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from convexadam._checks import show
from convexadam.registration.presets import preset_table
from convexadam.viz.html import make_block, make_table, or_text

if TYPE_CHECKING:
    from convexadam.registration.config import RegistrationConfig


def describe_config(config: RegistrationConfig) -> str:
    """Return the closest preset, and what differs from it, on one line."""
    name, changes = find_closest_preset(config)
    text = ", ".join(f"{key}={show_setting(value)}" for key, value in changes.items())
    return f"preset({name!r})" + (f" with {text}" if text else "")


@or_text
def make_config_html(config: RegistrationConfig) -> str:
    """Return a table of what differs from the closest preset, and one of all components."""
    name, changes = find_closest_preset(config)
    rows = {"closest preset": name} | {key: show_setting(value) for key, value in changes.items()}
    components = {item.name: show_setting(getattr(config, item.name)) for item in fields(config)}
    details = f"<details><summary>all settings</summary>{make_table(components)}</details>"
    return make_block("RegistrationConfig", make_table(rows), details)


def find_closest_preset(config: RegistrationConfig) -> tuple[str, dict[str, Any]]:
    """Return the name of the preset from which the fewest settings differ, and these settings by their names.

    A component of another class is one setting, whose name is that of its place.
    """
    found = {name: dict(_compare(config, entry.make(), "")) for name, entry in preset_table().items()}
    closest = min(found, key=lambda name: len(found[name]))  # the first one of several
    return closest, found[closest]


def _compare(value: Any, preset: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple) and isinstance(preset, tuple) and len(value) == len(preset):
        for number, parts in enumerate(zip(value, preset, strict=True)):
            yield from _compare(*parts, f"{name}.{number}")
    elif is_dataclass(value) and type(value) is type(preset):
        for item in fields(value):
            where = f"{name}.{item.name}" if name else item.name
            yield from _compare(getattr(value, item.name), getattr(preset, item.name), where)
    elif type(value) is not type(preset) or value != preset:
        yield name, value


def show_setting(value: Any) -> str:
    """Return a setting as code, without the fields of a component that have their defaults."""
    if isinstance(value, tuple):
        parts = ", ".join(map(show_setting, value))
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    if not is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__qualname__", None) or show(value)
    parts = ", ".join(f"{name}={show_setting(part)}" for name, part in _list_changed(value))
    return f"{type(value).__name__}({parts})"


def _list_changed(component: Any) -> Iterator[tuple[str, Any]]:
    for item in fields(component):
        value = getattr(component, item.name)
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if item.repr and not (type(value) is type(default) and value == default):
            yield item.name, value
