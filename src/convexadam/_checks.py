"""Checks of single settings, each with the message that users see."""

from __future__ import annotations

import math
import numbers
import types
import typing
from typing import Any, TypeGuard

from convexadam.errors import ConfigError


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, of whatever type; truth values are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_count(value: object, name: str, *, least: int = 0) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_number(value: object, name: str, *, least: float = 0.0, above: bool = False) -> None:
    """Raise unless ``value`` is finite and at least (or above) ``least``."""
    fits = is_number(value) and math.isfinite(value) and (value > least if above else value >= least)
    if not fits:
        relation = "above" if above else "of at least"
        raise ConfigError(f"{name} must be a finite number {relation} {least:g}, got {value!r}")


def check_flag(value: object, name: str) -> None:
    """Raise unless ``value`` is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of the choices."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_component(value: object, kind: Any, name: str) -> None:
    """Raise unless ``value`` is an instance of a class, a protocol or a union of them; a class itself is none."""
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, type) and not (type in kinds or object in kinds):
        raise ConfigError(f"{name} must be an instance, got the class {value.__name__}; write {value.__name__}(...)")
    if not isinstance(value, kind):
        names = " or ".join("None" if k is types.NoneType else k.__name__ for k in kinds)
        raise ConfigError(f"{name} must be {names}, got {value!r}")
