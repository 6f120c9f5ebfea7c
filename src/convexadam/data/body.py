"""Surfaces shared by several organs: skin, body cavity, diaphragm and liver.

Coordinates are R, A, S in mm of a nominal torso that fills a box of 400 x 300 x 300 mm around the origin.
"""

from __future__ import annotations

import torch

from convexadam.data.shapes import Coords, Distance, ellipse, ellipsoid, smooth_max, smooth_min

HALF_MM = (200.0, 150.0, 150.0)
"""Half of the box that the torso fills."""
WALL_MM = 12.0
"""Thickness of the muscular wall."""


def body_distance(coords: Coords) -> Distance:
    """Distance to the skin, in mm; negative inside of the body."""
    r, a, s = coords
    waist = ((s + 30) / 150).square()
    width, front = 166 + 12 * waist, 116 + 5 * waist
    x = (r / width).square()
    y = ((a - 2) / torch.where(a > 2, front, torch.full_like(front, 112.0))).square()
    form = (0.62 * (x + y).sqrt() + 0.38 * (x.square() + y.square()).sqrt().sqrt()).clamp_(min=1e-3)
    furrow = torch.exp(-(r / 22).square()) * ((-a - 20) / 60).clamp(0, 1)
    distance: Distance = torch.hypot(r, a - 2) * (1 - 1 / form) + 6 * furrow
    return distance


def fat_mm(coords: Coords) -> Distance:
    """Thickness of the subcutaneous fat, in mm: thicker below, at the flanks and behind."""
    r, a, s = coords
    below = torch.sigmoid(-(s + 40) / 35)
    side = (r / 150).square()
    thickness: Distance = 9 + 9 * below + 4 * side + 5 * torch.sigmoid((-a - 60) / 10) * below
    return thickness


def cavity_distance(coords: Coords) -> Distance:
    """Distance to the inner surface of the body wall, in mm; the muscles along the spine belong to the wall."""
    wall = body_distance(coords) + fat_mm(coords) + WALL_MM
    back = ellipse(coords[0].abs() - 32, (coords[1] + 78).clamp(min=0), (30, 17))
    return smooth_max(wall, -back, 10)


def dome_height(coords: Coords) -> Distance:
    """Height S of the diaphragm above each point, in mm: two domes that fall off towards the wall."""
    r, a, _ = coords
    right = 100 - 0.0085 * (r - 66).square() - 0.009 * (a - 18).square()
    left = 88 - 0.0095 * (r + 68).square() - 0.009 * (a - 12).square()
    return -smooth_min(-right, -left, 18)


def liver_distance(coords: Coords) -> Distance:
    """Distance to the surface of the liver, in mm; below the diaphragm, within the wall."""
    right = ellipsoid(coords, (78, 4, 20), (74, 84, 92), (0, -14, 0))
    left = ellipsoid(coords, (4, 46, 58), (78, 40, 30), (-8, 10, 12))
    whole = smooth_min(right, left, 24)
    visceral = ellipsoid(coords, (12, -22, -30), (70, 64, 66), (0, 20, 0))  # stomach, duodenum, kidney press from below
    whole = smooth_max(whole, -visceral, 14)
    gap = (coords[2] - dome_height(coords) + 5) * 0.8
    return torch.maximum(smooth_max(whole, gap, 8), cavity_distance(coords) + 3)
