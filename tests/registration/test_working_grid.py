"""The working grid: cubic voxels, a bounded number of them, in RAS order, over the box of the fixed image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import ConfigError, Grid, IsotropicGrid, NativeGrid


def turned(about_x: float, about_z: float) -> np.ndarray:
    x, z = np.deg2rad((about_x, about_z))
    return np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    )


def grid_along(directions: np.ndarray, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = (-80.5, 33.25, 120)
    return Grid(shape, affine)


PIR = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
GRIDS = {
    "RAS": grid_along(np.eye(3), (1.0, 1.0, 2.5), (24, 20, 16)),
    "LPS": grid_along(np.diag([-1.0, -1, 1]), (0.7, 0.9, 3.0), (23, 17, 11)),
    "PIR": grid_along(PIR, (1.3, 0.7, 3.0), (13, 29, 7)),
    "oblique": grid_along(turned(25, -40), (1.3, 0.7, 3.0), (13, 29, 7)),
    "oblique PIR": grid_along(turned(-15, 30) @ PIR, (2.0, 3.0, 0.8), (19, 7, 31)),
    "one slice": grid_along(np.eye(3), (1.0, 1.0, 5.0), (24, 20, 1)),
}


def corners_mm(grid: Grid) -> np.ndarray:
    """Outer corners of the box, half a voxel beyond the outer centres."""
    ends = [(-0.5, n - 0.5) for n in grid.shape]
    points = torch.tensor([[i, j, k] for i in ends[0] for j in ends[1] for k in ends[2]], dtype=torch.float64)
    return np.asarray(grid.index_to_world(points))


def cubes(fixed: Grid, side: float) -> list[float]:
    """Cubic voxels; in a single slice squares, as thick as the slice (the last axis of the only one here)."""
    return [side, side, fixed.spacing_mm[2]] if fixed.shape[2] == 1 else [side] * 3


@pytest.mark.parametrize("name", GRIDS)
def test_the_native_grid_has_the_voxels_of_the_fixed_image(name: str) -> None:
    fixed = GRIDS[name]
    found = NativeGrid()(fixed)
    assert found.is_close(fixed.canonical())
    assert found.orientation == "RAS"
    assert found.n_voxels == fixed.n_voxels


@pytest.mark.parametrize("name", GRIDS)
def test_voxels_are_cubes_of_the_finest_side(name: str) -> None:
    fixed = GRIDS[name]
    found = IsotropicGrid()(fixed)
    np.testing.assert_allclose(found.spacing_mm, cubes(fixed, min(fixed.spacing_mm)), rtol=1e-9)
    assert found.orientation == "RAS"


@pytest.mark.parametrize("side", [0.5, 1.7, 4.0])
@pytest.mark.parametrize("name", GRIDS)
def test_the_side_can_be_given(name: str, side: float) -> None:
    found = IsotropicGrid(spacing_mm=side)(GRIDS[name])
    np.testing.assert_allclose(found.spacing_mm, cubes(GRIDS[name], side), rtol=1e-9)


@pytest.mark.parametrize("side", [None, 0.5, 1.7, 4.0])
@pytest.mark.parametrize("name", GRIDS)
def test_the_box_is_kept_within_half_a_voxel(name: str, side: float | None) -> None:
    fixed = GRIDS[name].canonical()
    found = IsotropicGrid(spacing_mm=side)(GRIDS[name])
    sizes = np.multiply(fixed.shape, fixed.spacing_mm), np.multiply(found.shape, found.spacing_mm)
    assert np.abs(sizes[0] - sizes[1]).max() <= found.spacing_mm[0] / 2 * (1 + 1e-9)
    centres = corners_mm(fixed).mean(0), corners_mm(found).mean(0)
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)
    # the same axes: no corner is off by more than a quarter of a voxel along each of them
    error = np.linalg.norm(corners_mm(fixed) - corners_mm(found), axis=1)
    assert error.max() <= math.sqrt(3) * found.spacing_mm[0] / 4 * (1 + 1e-9)


def test_cubic_voxels_are_kept() -> None:
    fixed = grid_along(turned(25, -40) @ PIR, (1.5, 1.5, 1.5), (13, 29, 7))
    assert IsotropicGrid()(fixed).is_close(fixed.canonical())
    nearly = grid_along(np.eye(3), (1.5, 1.5, 1.5007), (13, 29, 7))  # as rounded headers have it
    assert IsotropicGrid()(nearly).is_close(nearly)


@pytest.mark.parametrize("name", GRIDS)
def test_orientation_of_the_file_does_not_matter(name: str) -> None:
    fixed = GRIDS[name]
    assert IsotropicGrid()(fixed.canonical()).is_close(IsotropicGrid()(fixed))


def test_a_bound_that_is_not_exceeded_changes_nothing() -> None:
    fixed = GRIDS["RAS"]
    found = IsotropicGrid()(fixed)
    assert found.n_voxels == 24 * 20 * 40
    assert IsotropicGrid(max_voxels=found.n_voxels)(fixed).is_close(found)


@pytest.mark.parametrize("bound", [20_000, 3000, 1000])
def test_the_bound_coarsens(bound: int) -> None:
    fixed = GRIDS["RAS"]
    finest, found = IsotropicGrid(spacing_mm=0.25)(fixed), IsotropicGrid(spacing_mm=0.25, max_voxels=bound)(fixed)
    assert finest.n_voxels > 50 * bound
    assert len({round(s, 9) for s in found.spacing_mm}) == 1
    # no coarser than the bound requires, up to the rounding of the numbers of voxels
    smallest = math.prod(1 - 1 / (2 * n) for n in found.shape)
    assert found.n_voxels * smallest <= bound * (1 + 1e-9)
    assert found.n_voxels >= bound * math.prod(1 - 1 / (2 * n + 1) for n in found.shape) * (1 - 1e-9)


@pytest.mark.parametrize(("shape", "bound"), [((24, 20, 16), 100), ((60, 60, 1), 100), ((4, 3, 16_000_000), 10_000)])
def test_the_bound_holds(shape: tuple[int, int, int], bound: int) -> None:
    assert IsotropicGrid(max_voxels=bound)(Grid(shape)).n_voxels <= bound


def test_the_native_grid_has_no_bound() -> None:
    fixed = Grid((300, 300, 300))
    assert NativeGrid()(fixed).shape == (300, 300, 300)
    assert IsotropicGrid()(fixed).n_voxels <= 24_000_000


@pytest.mark.parametrize("side", [0.0, -1.0, math.nan, math.inf, "2", True, (1.0, 1.0, 1.0)])
def test_the_side_is_positive(side: Any) -> None:
    with pytest.raises(ConfigError, match="spacing_mm must be a finite number above 0, got"):
        IsotropicGrid(spacing_mm=side)


@pytest.mark.parametrize("bound", [0, 1.5, 1e6, "9", True, None])
def test_the_bound_is_a_positive_whole_number(bound: Any) -> None:
    with pytest.raises(ConfigError, match=f"max_voxels must be a whole number of at least 1, got {bound!r}"):
        IsotropicGrid(max_voxels=bound)
