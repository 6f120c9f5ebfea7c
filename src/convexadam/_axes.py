"""Settings that may be given once or for each axis, in voxels or in millimetres."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from convexadam._typing import PerAxis, Triple
from convexadam.errors import ConfigError

Unit: TypeAlias = Literal["voxel", "mm"]


def per_axis(value: PerAxis, name: str, *, least: float) -> tuple[float, float, float]:
    """One number, or three, as three; each finite and at least ``least``."""
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,) * 3
    if len(numbers) != 3 or not all(isinstance(v, (int, float)) and math.isfinite(v) and v >= least for v in numbers):
        raise ConfigError(
            f"{name} is one number or three (for i, j and k), each at least {least:g}, but {value!r} came"
        )
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


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
