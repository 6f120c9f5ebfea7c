"""Signed distances to simple shapes: negative inside, about 1 per mm near the surface.

Coordinates are stacked first, ``[3, ...]``: R, A and S in mm of the nominal torso.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch

from convexadam._typing import Float, Tensor

Coords: TypeAlias = Float[Tensor, "3 ..."]
Distance: TypeAlias = Float[Tensor, "..."]
Number: TypeAlias = float | int
Pair: TypeAlias = tuple[Number, Number]
Point: TypeAlias = tuple[Number, Number, Number]
Box: TypeAlias = tuple[Point, Point]
"""Lower and upper corner, in mm."""


def ellipsoid(coords: Coords, centre: Point, radii: Point, tilt: Point = (0.0, 0.0, 0.0)) -> Distance:
    """Distance to an ellipsoid, turned by ``tilt`` degrees about R, then A, then S."""
    x, y, z = (coords[a] - centre[a] for a in range(3))
    for axis, degrees in enumerate(tilt):
        if degrees:
            x, y, z = _rotate(x, y, z, axis, -math.radians(degrees))
    a, b, c = radii
    by_radius = ((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2).sqrt_()
    by_square = ((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2).sqrt_()
    return by_radius * (by_radius - 1) / (by_square + 1e-6)


def ellipse(x: Distance, y: Distance, radii: Pair) -> Distance:
    """Distance to an ellipse of two coordinates that are already centred."""
    a, b = radii
    return ((x / a).square() + (y / b).square()).sqrt_().sub_(1).mul_(min(a, b))


def round_cone(coords: Coords, start: Point, end: Point, radii: Pair) -> Distance:
    """Distance to a rod with round ends whose radius changes linearly from ``start`` to ``end``."""
    along = [e - s for s, e in zip(start, end, strict=True)]
    length2 = sum(a * a for a in along) + 1e-9
    x, y, z = (coords[a] - start[a] for a in range(3))
    t = ((x * along[0] + y * along[1] + z * along[2]) / length2).clamp_(0, 1)
    apart = (x - t * along[0]).square_() + (y - t * along[1]).square_() + (z - t * along[2]).square_()
    return apart.sqrt_() - (radii[0] + t * (radii[1] - radii[0]))


def smooth_min(first: Distance, second: Distance, mm: Number) -> Distance:
    """Union of two shapes whose seam is rounded over ``mm``."""
    weight = (0.5 + 0.5 * (second - first) / mm).clamp_(0, 1)
    return torch.lerp(second, first, weight) - mm * weight * (1 - weight)


def smooth_max(first: Distance, second: Distance, mm: Number) -> Distance:
    """Intersection of two shapes whose edge is rounded over ``mm``."""
    return -smooth_min(-first, -second, mm)


def box_around(points: Sequence[Point], margin: Number | Point) -> Box:
    """Corners of the box around points, wider by a margin on each side."""
    wide = margin if isinstance(margin, tuple) else (margin, margin, margin)
    low = [min(p[a] for p in points) - wide[a] for a in range(3)]
    high = [max(p[a] for p in points) + wide[a] for a in range(3)]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _rotate(x: Tensor, y: Tensor, z: Tensor, axis: int, angle: float) -> tuple[Tensor, Tensor, Tensor]:
    c, s = math.cos(angle), math.sin(angle)
    if axis == 0:
        return x, c * y - s * z, s * y + c * z
    if axis == 1:
        return c * x + s * z, y, c * z - s * x
    return c * x - s * y, s * x + c * y, z
