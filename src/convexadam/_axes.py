"""Settings that may be given once or for each axis, in voxels or in millimetres."""

from __future__ import annotations

import math
import numbers
from typing import Literal, TypeAlias, TypeGuard

from convexadam._typing import PerAxis, Triple
from convexadam.errors import ConfigError

Unit: TypeAlias = Literal["voxel", "mm"]


def per_axis(value: PerAxis, name: str, *, least: float) -> tuple[float, float, float]:
    """One number, or a tuple of three, as three; each finite and at least ``least``.

    Settings are values that can be compared and hashed, so that lists and arrays are refused.
    """
    values = value if isinstance(value, tuple) else (value,) * 3
    if len(values) != 3 or not all(_is_number(v) and math.isfinite(v) and v >= least for v in values):
        raise ConfigError(
            f"{name} is one number or a tuple of three (one for each axis), each at least {least:g}, but {value!r} came"
        )
    return float(values[0]), float(values[1]), float(values[2])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def checked_count(value: object, name: str, *, least: int = 0) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is a whole number of at least {least}, but {value!r} came")


def checked_number(value: object, name: str, *, least: float = 0.0, above: bool = False) -> None:
    """Raise unless ``value`` is finite and at least (or above) ``least``."""
    fits = _is_number(value) and math.isfinite(value) and (value > least if above else value >= least)
    if not fits:
        raise ConfigError(
            f"{name} is a finite number {'above' if above else 'of at least'} {least:g}, but {value!r} came"
        )


def checked_unit(unit: str) -> None:
    """Raise unless ``unit`` is one that settings can be given in."""
    if unit not in ("voxel", "mm"):
        raise ConfigError(f"unit is 'voxel' or 'mm', but {unit!r} came")


def spacing_in_voxels(spacing: PerAxis, unit: Unit, voxel_mm: tuple[float, float, float], shape: Triple) -> Triple:
    """Node spacing in whole voxels for each axis: at least 1, at most the size of the volume."""
    values = per_axis(spacing, "spacing", least=0)
    scale = voxel_mm if unit == "mm" else (1.0, 1.0, 1.0)
    i, j, k = (min(max(round(v / s), 1), n) for v, s, n in zip(values, scale, shape, strict=True))
    return i, j, k
