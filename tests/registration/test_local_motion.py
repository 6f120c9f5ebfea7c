"""Local motion of a fraction of a voxel, which no linear stage can find."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from textures import positions_mm, texture

from convexadam import Grid, Image, preset, register

GRID = Grid((32, 30, 28))
RADIUS, CORE, EDGE = 10.0, 5.0, 1.0
"""In voxels: of the ball that moves, of what is measured of it, and of its border."""


@pytest.mark.parametrize("motion", [0.25, 0.75, 1.25])
def test_motion_of_a_ball_is_found_to_a_tenth_of_a_voxel(motion: float) -> None:
    where = positions_mm(GRID)
    centre = where.reshape(-1, 3).mean(0)
    distance = (where - centre).norm(dim=-1)
    truth = torch.zeros_like(where)
    truth[..., 1] = motion / (1 + ((distance - RADIUS) / EDGE).exp())
    fixed, moving = (Image(texture(p, wavelengths_mm=(5.0, 12.0))[None], GRID) for p in (where + truth, where))
    found = register(fixed, moving, dataclasses.replace(preset("best"), linear=None)).transform.to_voxels()
    error = (found.double() - truth.permute(3, 0, 1, 2))[:, distance < CORE]
    assert error[1].mean().abs() < 0.05
    assert error.norm(dim=0).quantile(0.99) < 0.1
