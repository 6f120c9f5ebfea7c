"""Grids: where voxels are."""

from __future__ import annotations

import dataclasses
from typing import Any

import nibabel
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import GeometryError
from convexadam.geometry import Grid

SHAPE = (5, 7, 6)


def _grid(**options: Any) -> Grid:
    return Grid(SHAPE, oracles.oblique_affine(**options))


def _mm(grid: Grid) -> np.ndarray:
    return oracles.mm_of_voxels(grid.affine, grid.shape)


def test_points_follow_the_affine() -> None:
    grid = _grid()
    found = grid.index_to_world(torch.tensor([[1.0, 2.0, 3.0], [4.5, -1.0, 0.25]]))
    assert found.dtype == torch.float64
    expected = np.array([[1, 2, 3, 1], [4.5, -1, 0.25, 1]]) @ grid.affine.T
    np.testing.assert_allclose(found.numpy(), expected[:, :3], rtol=0, atol=1e-12)


def test_points_are_mapped_without_a_warning() -> None:
    # torch warns, once in a process, about tensors made of read-only arrays; here it is made to warn each time, and
    # warnings are errors.
    torch.set_warn_always(True)
    try:
        grid = _grid()
        assert grid.world_to_index(grid.index_to_world(torch.zeros(1, 3))).shape == (1, 3)
    finally:
        torch.set_warn_always(False)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
)
def test_to_voxels_undoes_to_mm(
    spacing: tuple[float, float, float], degrees: tuple[float, float, float], origin: tuple[float, float, float]
) -> None:
    grid = _grid(spacing=spacing, degrees=degrees, origin=origin)
    points = 20 * oracles.noise(9, 3)
    # 1e3 mm in steps of 0.2 mm: an eps of 2e-16 becomes 1e-12 voxels, a few times.
    torch.testing.assert_close(grid.world_to_index(grid.index_to_world(points)), points, rtol=0, atol=1e-10)
    np.testing.assert_allclose(grid.spacing_mm, spacing, rtol=1e-12)


def test_voxels_from_maps_between_grids() -> None:
    grid, other = _grid(), Grid((3, 4, 2), oracles.oblique_affine((2, 1, 3), degrees=(-5, 40, 10), axes=(2, 0, 1)))
    points = 5 * oracles.noise(6, 3)
    matrix = torch.from_numpy(grid.index_map_from(other))
    found = points @ matrix[:3, :3].T + matrix[:3, 3]
    torch.testing.assert_close(found, grid.world_to_index(other.index_to_world(points)), rtol=0, atol=1e-10)


def test_n_voxels_and_defaults() -> None:
    grid = Grid((2, 3, 4))
    assert grid.n_voxels == 24
    assert np.array_equal(grid.affine, np.eye(4))
    assert grid.spacing_mm == (1, 1, 1)
    assert grid.orientation == "RAS"


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 3, 4), (5, 1, 6), (2, 2, 2)])
def test_pooled_nodes_lie_in_the_middle_of_their_blocks(spacing: tuple[int, int, int]) -> None:
    grid = _grid()
    pooled = grid.pool(spacing)
    assert pooled.shape == tuple(n // s for n, s in zip(SHAPE, spacing, strict=True))
    nodes = torch.from_numpy(oracles.control_point_positions(SHAPE, spacing)).reshape(3, -1).T
    expected = grid.index_to_world(nodes).T.numpy()
    np.testing.assert_allclose(_mm(pooled).reshape(3, -1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS)
def test_canonical_keeps_each_voxel_where_it_is(axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    grid = _grid(axes=axes, flips=flips)
    canonical = grid.canonical()
    found_axes, found_flips = grid.canonical_axes()
    moved = _mm(grid).transpose(0, *(a + 1 for a in found_axes))
    moved = np.flip(moved, [n + 1 for n, flip in enumerate(found_flips) if flip])
    np.testing.assert_allclose(_mm(canonical), moved, rtol=0, atol=1e-12)
    # With rotations of 30 degrees at most, the nearest world axis is the one the axis was turned from.
    assert canonical.orientation == "RAS"
    assert canonical.shape == tuple(SHAPE[axes.index(a)] for a in range(3))
    assert canonical.canonical().is_close(canonical)


@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS)
def test_orientation_letters_are_those_of_nibabel(axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    grid = _grid(axes=axes, flips=flips)
    assert grid.orientation == "".join(nibabel.aff2axcodes(grid.affine))


@pytest.mark.parametrize("degrees", [(45, 0, 0), (0, 45, 0), (0, 0, -45), (45, 45, 45), (0, 0, 135)])
def test_canonical_of_a_diagonal_grid_uses_each_axis_once(degrees: tuple[float, float, float]) -> None:
    grid = _grid(degrees=degrees)
    axes, _ = grid.canonical_axes()
    assert sorted(axes) == [0, 1, 2]
    place = _mm(grid).reshape(3, -1).T
    again = _mm(grid.canonical()).reshape(3, -1).T
    key = lambda rows: sorted(map(tuple, rows.round(6) + 0.0))  # noqa: E731
    np.testing.assert_allclose(key(place), key(again), rtol=0, atol=2e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.4, 2.5), (0.7, 5.0, 40.0)])
def test_with_spacing_keeps_centre_and_directions(spacing: tuple[float, float, float]) -> None:
    grid = _grid(axes=(1, 2, 0), flips=(True, False, True))
    new = grid.with_spacing(spacing)
    np.testing.assert_allclose(new.spacing_mm, spacing, rtol=1e-12)
    directions = [g.affine[:3, :3] / np.array(g.spacing_mm) for g in (grid, new)]
    np.testing.assert_allclose(*directions, rtol=0, atol=1e-12)
    centres = [g.index_to_world((torch.tensor([g.shape]).double() - 1) / 2) for g in (grid, new)]
    torch.testing.assert_close(*centres, rtol=0, atol=1e-10)
    for n, old, m, mm in zip(grid.shape, grid.spacing_mm, new.shape, spacing, strict=True):
        assert m == 1 or abs(n * old - m * mm) <= mm / 2 + 1e-9


def test_with_its_own_spacing_a_grid_is_the_same() -> None:
    grid = _grid()
    assert grid.with_spacing(grid.spacing_mm).is_close(grid)


def test_same_as_allows_a_thousandth_of_a_voxel() -> None:
    grid = _grid()

    def shifted(voxels: float) -> Grid:
        affine = grid.affine.copy()
        affine[:3, 3] += voxels * affine[:3, 1]
        return Grid(SHAPE, affine)

    assert grid.is_close(Grid(SHAPE, grid.affine))
    assert grid.is_close(shifted(5e-4))
    assert not grid.is_close(shifted(2e-3))
    assert not grid.is_close(Grid((5, 7, 7), grid.affine))
    scale = np.diag([1, 1, 1.001, 1])  # the far corner is 6 thousandths off
    assert not grid.is_close(Grid(SHAPE, grid.affine @ scale))
    assert not grid.is_close(_grid(flips=(True, False, False)))


def test_a_grid_cannot_be_changed() -> None:
    matrix = oracles.oblique_affine()
    grid = Grid(SHAPE, matrix)
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid.shape = (1, 1, 1)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9
    matrix[0, 0] = 9
    assert grid.affine[0, 0] != 9


def test_repr_says_shape_spacing_and_orientation() -> None:
    grid = Grid((4, 5, 6), np.diag([-2.0, 2.0, 3.5, 1.0]))
    assert repr(grid) == "Grid(shape=(4, 5, 6), spacing_mm=(2, 2, 3.5), orientation='LAS')"


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 7), (0, 5, 6), (4, -1, 6)])
def test_unusable_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three sizes of at least 1"):
        Grid(shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2.7, 3, 4), (4.0, 5, 6), 5, "abc", ("4", "5", "6"), None, (4, None, 6)])
def test_shapes_that_are_no_whole_numbers(shape: Any) -> None:
    with pytest.raises(GeometryError, match="three whole numbers"):
        Grid(shape)


@pytest.mark.parametrize(
    "shape", [[4, 5, 6], np.array([4, 5, 6]), torch.Size([4, 5, 6]), (np.int16(4), 5, np.uint8(6))]
)
def test_whole_numbers_of_any_kind_are_a_shape(shape: Any) -> None:
    found = Grid(shape).shape
    assert found == (4, 5, 6)
    assert [type(n) for n in found] == [int] * 3


def _changed(row: int, column: int, value: float) -> np.ndarray:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), r"must have shape \(4, 4\)"),
        (np.zeros((4, 4)), "last row"),
        (_changed(3, 0, 0.5), "last row"),
        (_changed(0, 3, np.nan), "NaN or Inf"),
        (_changed(1, 1, np.inf), "NaN or Inf"),
        (_changed(2, 2, 0.0), "singular"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_unusable_affines(affine: np.ndarray, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Grid((4, 5, 6), affine)


@pytest.mark.parametrize("spacing", [(2, 6, 2), (5, 1, 1), (0, 2, 2), (2, 2, -1), (1, 1, 0)])
def test_pooling_by_nothing_or_more_than_the_shape(spacing: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match=r"from 1 to \(4, 5, 6\)"):
        Grid((4, 5, 6)).pool(spacing)


@pytest.mark.parametrize("spacing", [(2.0, 2, 2), (1.5, 2, 2), ("2", 2, 2), (None, 1, 1), 2, "222"])
def test_pooling_by_what_is_no_whole_number(spacing: Any) -> None:
    with pytest.raises(GeometryError, match="three whole numbers of voxels"):
        Grid((4, 5, 6)).pool(spacing)
    with pytest.raises(GeometryError, match=r"from 1 to \(4, 5, 6\)"):
        Grid((4, 5, 6)).pool((2, 2))  # type: ignore[arg-type]


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    found = Grid((4, 5, 6)).pool(tuple(np.array([2, 1, 3])))
    assert found.shape == (2, 5, 2)
    np.testing.assert_array_equal(found.affine[:3, 3], (0.5, 0, 1))


@pytest.mark.parametrize("affine", [1j * np.eye(4), "identity", [[1, 2], [3]]])
def test_affines_that_are_no_numbers(affine: Any) -> None:
    with pytest.raises(GeometryError, match="4x4 array of numbers"):
        Grid((4, 5, 6), affine)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_of_no_size(value: float, axis: int) -> None:
    spacing = [1.0, 2.0, 3.0]
    spacing[axis] = value
    with pytest.raises(GeometryError, match="three positive numbers"):
        Grid((4, 5, 6)).with_spacing((spacing[0], spacing[1], spacing[2]))
