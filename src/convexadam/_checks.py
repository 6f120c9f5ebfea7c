"""Checks of single settings, each with the message that users see."""

from __future__ import annotations

import math
import numbers
import operator
import types
import typing
from typing import Any, TypeGuard

import torch

from convexadam.errors import ConfigError

_LONGEST = 200
"""Characters of a value that a message shows."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, of whatever type; truth values are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a real number that float64 can hold."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:
        return False


def to_whole(value: Any) -> int:
    """Return a whole number of any type as an ``int``; TypeError for others, and for truth values."""
    if isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool:
        raise TypeError("value must be a number, got a truth value")
    return operator.index(value)


def show(value: object) -> str:
    """Return the ``repr`` of a value for a message: never longer than a few lines, whatever the value is."""
    try:
        text = repr(value)
    except Exception:  # of a class from outside the library, or an integer with too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_count(value: object, name: str, *, least: int = 0, most: int | None = None) -> None:
    """Raise unless ``value`` is a whole number from ``least`` to ``most``."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{name} must be a whole number {allowed}, got {show(value)}")


def check_number(
    value: object, name: str, *, least: float = 0.0, above: bool = False, most: float | None = None
) -> None:
    """Raise unless ``value`` is finite, at least (or above) ``least``, and at most ``most``."""
    fits = is_finite(value) and (value > least if above else value >= least) and (most is None or value <= most)
    if not fits:
        relation = "above" if above else "of at least"
        upper = "" if most is None else f" and at most {most:g}"
        raise ConfigError(f"{name} must be a finite number {relation} {least:g}{upper}, got {show(value)}")


def check_flag(value: object, name: str) -> None:
    """Raise unless ``value`` is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {show(value)}")


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, got {show(value)}")


def check_axis_weights(value: object, name: str) -> None:
    """Raise unless ``value`` has a weight in [0, 1] for each axis, one of them above 0."""
    weights = value if isinstance(value, tuple) else ()
    if len(weights) != 3 or not all(is_finite(w) and 0 <= w <= 1 for w in weights) or not any(weights):
        raise ConfigError(
            f"{name} must be a tuple of three numbers from 0 to 1, one of them above 0, got {show(value)}; write "
            "(0, 1, 0), for example, for motion along the second axis alone"
        )


def check_length(value: object, name: str, *, most: int) -> None:
    """Raise if a tuple has more than ``most`` elements."""
    if isinstance(value, tuple) and len(value) > most:
        raise ConfigError(f"{name} must have at most {most} elements, got {len(value)}")


def check_component(value: object, kind: Any, name: str) -> None:
    """Raise unless ``value`` is an instance of a class, a protocol or a union of them; a class itself is none."""
    kinds = typing.get_args(kind) or (kind,)
    if isinstance(value, type) and not (type in kinds or object in kinds):
        raise ConfigError(f"{name} must be an instance, got the class {value.__name__}; write {value.__name__}(...)")
    if not isinstance(value, kind):
        names = " or ".join("None" if k is types.NoneType else add_article(k.__name__) for k in kinds)
        raise ConfigError(f"{name} must be {names}, got {show(value)}")


def add_article(name: str) -> str:
    """Return the name of a class with its indefinite article."""
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
