"""Random anatomical details of an individual: vessel trees, lesions, loops of bowel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam.data.body import liver_distance
from convexadam.data.shapes import Pair, Point

PORTAL_HILUM: Point = (38.0, 16.0, 22.0)
CAVAL_CONFLUENCE: Point = (22.0, 2.0, 84.0)


@final
@dataclass(frozen=True, kw_only=True)
class Branch:
    """A straight piece of a vessel: both ends in mm and the radius at each."""

    start: Point
    end: Point
    radii: Pair


@final
@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A focal lesion of the liver: centre and radius in mm."""

    centre: Point
    radius: float


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """Seeded details of one person, in nominal coordinates.

    Attributes
    ----------
    portal, hepatic
        Branches of the two venous trees of the liver.
    lesions
        At least one; the first is the largest.
    loops
        Centre lines of the loops of small bowel.
    """

    portal: tuple[Branch, ...]
    hepatic: tuple[Branch, ...]
    lesions: tuple[Lesion, ...]
    loops: tuple[tuple[Point, ...], ...]

    @classmethod
    def draw(cls, generator: torch.Generator) -> Plan:
        """Draw the details of a person."""
        portal = [
            *_draw_tree(PORTAL_HILUM, (34.0, -4.0, 14.0), 6.0, 5, generator),
            *_draw_tree(PORTAL_HILUM, (-26.0, 16.0, 18.0), 5.0, 4, generator),
        ]
        hepatic = [
            *_draw_tree(CAVAL_CONFLUENCE, (40.0, -6.0, -14.0), 5.5, 5, generator),
            *_draw_tree(CAVAL_CONFLUENCE, (22.0, 32.0, -12.0), 5.0, 5, generator),
            *_draw_tree(CAVAL_CONFLUENCE, (-16.0, 28.0, -6.0), 4.5, 4, generator),
        ]
        return cls(
            portal=tuple(portal),
            hepatic=tuple(hepatic),
            lesions=(
                Lesion(centre=_draw_near((104.0, 6.0, 22.0), 8.0, generator), radius=14.0),
                Lesion(centre=_draw_near((52.0, 48.0, 58.0), 6.0, generator), radius=7.0),
            ),
            loops=tuple(_draw_loop(start, generator) for start in _LOOP_STARTS),
        )


_LOOP_STARTS: tuple[Point, ...] = (
    (-72.0, 40.0, -68.0),
    (-70.0, 20.0, -96.0),
    (-72.0, 68.0, -96.0),
    (-74.0, 44.0, -118.0),
    (-66.0, 14.0, -136.0),
    (-66.0, 70.0, -140.0),
)


def _draw_tree(start: Point, along: Point, radius: float, depth: int, generator: torch.Generator) -> list[Branch]:
    """Draw the branches of a binary tree; branches that leave the liver are omitted."""
    for shorter in (1.0, 0.6):
        end = (start[0] + shorter * along[0], start[1] + shorter * along[1], start[2] + shorter * along[2])
        if float(liver_distance(torch.tensor(end, dtype=torch.float64, device="cpu")[:, None])) < -5.0:
            break
    else:
        return []
    found = [Branch(start=start, end=end, radii=(radius, 0.8 * radius))]
    if depth > 1:
        length = math.hypot(*along)
        ahead = torch.tensor(along, device=generator.device)
        sideways = torch.linalg.cross(ahead, torch.rand(3, generator=generator, device=generator.device) - 0.5)
        sideways = sideways / sideways.norm()
        for sign, share in ((1.0, 0.72), (-1.0, 0.62)):
            towards = ahead / length + sign * (0.75 + 0.3 * (share < 0.7)) * share * sideways
            x, y, z = (share * 1.15 * length * towards / towards.norm()).tolist()
            found += _draw_tree(end, (x, y, z), radius * (0.55 + 0.25 * share), depth - 1, generator)
    return found


def _draw_loop(start: Point, generator: torch.Generator) -> tuple[Point, ...]:
    """Draw the centre line of a winding loop of small bowel, from left to right."""
    points = [start]
    jitter = (2 * torch.rand((9, 3), generator=generator, device=generator.device) - 1).tolist()
    for n, (x, y, z) in enumerate(jitter):
        turn = 1.0 if n % 4 < 2 else -1.0
        last = points[-1]
        forth = (15 * turn, 0.0) if n % 2 == 0 else (0.0, 15 * turn)
        points.append((last[0] + 13 + 6 * x, last[1] + forth[0] + 8 * y, last[2] + forth[1] + 8 * z))
    return tuple(points)


def _draw_near(point: Point, mm: float, generator: torch.Generator) -> Point:
    x, y, z = (2 * torch.rand(3, generator=generator, device=generator.device) - 1).tolist()
    return point[0] + mm * x, point[1] + mm * y, point[2] + mm * z
