"""Settings with one value or one per axis, in voxels or mm."""

from __future__ import annotations

from typing import Literal, TypeAlias

from convexadam._checks import check_choice, is_finite, show
from convexadam._typing import PerAxis, Triple
from convexadam.errors import ConfigError

Unit: TypeAlias = Literal["voxel", "mm"]


def per_axis(value: PerAxis, name: str, *, least: float, above: bool = False) -> tuple[float, float, float]:
    """Expand one number, or a tuple of three, to three floats; each must be finite and at least (or above) ``least``.

    Lists and arrays are refused, since settings must be comparable and hashable.
    """
    values = value if isinstance(value, tuple) else (value,) * 3
    if len(values) != 3 or not all(is_finite(v) and (v > least if above else v >= least) for v in values):
        raise ConfigError(
            f"{name} must be one number or a tuple of three (one per axis), each {'above' if above else 'at least'} "
            f"{least:g}, got {show(value)}; write 2 or (2, 2, 1), for example"
        )
    return float(values[0]), float(values[1]), float(values[2])


def check_triple(value: object, name: str) -> Triple:
    """Return three whole numbers of at least 1, such as a shape."""
    numbers = value if isinstance(value, tuple) else ()
    if len(numbers) != 3 or not all(is_finite(n) and n >= 1 and n == int(n) for n in numbers):
        requirement = "a tuple of three whole numbers of at least 1"
        raise ConfigError(f"{name} must be {requirement}, got {show(value)}; write (6, 5, 4), for example")
    i, j, k = (int(n) for n in numbers)
    return i, j, k


def check_unit(unit: str) -> None:
    """Raise unless ``unit`` is one that settings can be given in."""
    check_choice(unit, "unit", ("voxel", "mm"))


def check_whole_voxels(value: PerAxis, name: str, unit: Unit) -> None:
    """Raise unless a length is positive and, in voxels, whole."""
    values = per_axis(value, name, least=1.0 if unit == "voxel" else 0.0, above=unit == "mm")
    if unit == "voxel" and any(v != int(v) for v in values):
        raise ConfigError(f'{name} must be a whole number of voxels, got {show(value)}; round it, or set unit="mm"')


def spacing_in_voxels(spacing: PerAxis, unit: Unit, voxel_mm: tuple[float, float, float], shape: Triple) -> Triple:
    """Round a spacing to whole voxels per axis: at least 1, at most the size of the volume."""
    values, shape = per_axis(spacing, "spacing", least=0), check_triple(shape, "shape")
    voxel_mm = per_axis(voxel_mm, "voxel_mm", least=0, above=True)
    scale = voxel_mm if unit == "mm" else (1.0, 1.0, 1.0)
    # clamped before rounding: the ratio may be infinite
    i, j, k = (max(round(min(v / s, n)), 1) for v, s, n in zip(values, scale, shape, strict=True))
    return i, j, k
