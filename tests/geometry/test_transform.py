"""Displacement fields as transforms of points and images."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.geometry.resample import resample_tensor

SHAPE = (7, 9, 6)
# An affine motion in mm: u(x) = MATRIX x + SHIFT, which linear interpolation of u reproduces exactly.
MATRIX = np.array([[0.05, -0.02, 0.01], [0.03, -0.04, 0.02], [0.0, 0.06, 0.02]])
SHIFT = np.array([1.5, -0.7, 0.4])


def _grid(shape: tuple[int, int, int] = SHAPE, **options: Any) -> Grid:
    return Grid(shape, oracles.oblique_affine(**options))


def _affine_motion(grid: Grid) -> DisplacementField:
    mm = oracles.mm_of_voxels(grid.affine, grid.shape)
    disp_mm = np.einsum("ab,bijk->aijk", MATRIX, mm) + SHIFT.reshape(3, 1, 1, 1)
    return DisplacementField(torch.from_numpy(disp_mm), grid)


def _points_inside(grid: Grid, count: int = 11) -> torch.Tensor:
    """Voxel indices inside the outer centres, ``(n, 3)``."""
    return oracles.uniform(count, 3, seed=3) * (torch.tensor(grid.shape).double() - 1)


@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS)
def test_from_voxels_and_back(axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    grid = _grid(axes=axes, flips=flips)
    disp_vox = oracles.noise(3, *SHAPE)
    transform = DisplacementField.from_voxels(disp_vox, grid)
    expected = np.einsum("ab,bijk->aijk", grid.affine[:3, :3], disp_vox.numpy())
    np.testing.assert_allclose(transform.disp_mm.numpy(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(transform.to_voxels(), disp_vox, rtol=0, atol=1e-12)


def test_float32_stays_float32() -> None:
    disp_vox = oracles.noise(3, *SHAPE).float()
    transform = DisplacementField.from_voxels(disp_vox, _grid())
    assert transform.disp_mm.dtype == torch.float32
    # Two products of a 3x3 matrix and its inverse, of condition 2.5 / 0.8: about 3.1 * 2 * 3 roundings of sums.
    allowed = 20 * torch.finfo(torch.float32).eps * disp_vox.abs().max() * 3.2
    assert (transform.to_voxels() - disp_vox).abs().max() <= allowed


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.uint8, torch.float16])
def test_whole_voxels_of_a_small_type_are_not_cut_off(dtype: torch.dtype) -> None:
    # Voxels of fractions of a millimetre along oblique axes: in whole millimetres little would be left.
    grid = _grid(spacing=(0.4, 0.8, 0.3))
    disp_vox = (oracles.uniform(3, *SHAPE) * 5).to(dtype)
    transform = DisplacementField.from_voxels(disp_vox, grid)
    expected = np.einsum("ab,bijk->aijk", grid.affine[:3, :3], disp_vox.double().numpy())
    assert transform.disp_mm.dtype == torch.float32
    # Three products of at most 4 * 0.8 mm, each of two roundings, and their sum.
    np.testing.assert_allclose(transform.disp_mm.numpy(), expected, rtol=0, atol=10 * 3.2 * 2**-23)
    assert np.abs(expected - np.trunc(expected)).max() > 0.4
    torch.testing.assert_close(transform.to_voxels(), disp_vox.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_read_in_the_type_of_the_field_and_returned_in_float64(dtype: torch.dtype) -> None:
    grid = _grid()
    transform = DisplacementField(_affine_motion(grid).disp_mm.to(dtype), grid)
    start = grid.index_to_world(_points_inside(grid))
    found = transform(start)
    assert found.dtype == torch.float64
    expected = start.numpy() + start.numpy() @ MATRIX.T + SHIFT
    # A voxel index errs by an eps of the size of an axis, a few times, a displacement by as much of at most 10 mm; the
    # point itself, up to 45 mm and more from the origin, is not rounded to float32.
    step = float((transform.disp_mm[:, 1:] - transform.disp_mm[:, :-1]).abs().max())
    allowed = torch.finfo(dtype).eps * (3 * 4 * max(SHAPE) * 3 * step + 10 * 10)
    assert np.abs(found.numpy() - expected).max() <= max(allowed, 1e-12)
    points = start + 2**-30  # less than float32 tells apart at 45 mm
    assert (transform(points) - found).abs().min() > 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_voxel_along_a_tensor_axis_is_one_column_of_the_affine(axis: int) -> None:
    grid = _grid(axes=(1, 2, 0), flips=(True, False, False))
    disp_vox = torch.zeros(3, *SHAPE, dtype=torch.float64)
    disp_vox[axis] = 1
    transform = DisplacementField.from_voxels(disp_vox, grid)
    start, end = torch.tensor([[2.0, 3.0, 1.0]]), torch.tensor([[2.0, 3.0, 1.0]])
    end[0, axis] += 1
    torch.testing.assert_close(transform(grid.index_to_world(start)), grid.index_to_world(end), rtol=0, atol=1e-10)


@pytest.mark.parametrize("space", ["mm", "lps_mm", "fixed_voxel"])
@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS[::3])
def test_points_follow_an_affine_motion(space: Any, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> None:
    grid = _grid(axes=axes, flips=flips)
    inside_vox = _points_inside(grid)
    start_mm = inside_vox.numpy() @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    end_mm = start_mm + start_mm @ MATRIX.T + SHIFT
    lps = np.diag([-1.0, -1.0, 1.0])
    if space == "mm":
        start, end = start_mm, end_mm
    elif space == "lps_mm":
        start, end = start_mm @ lps, end_mm @ lps
    else:
        start, end = inside_vox.numpy(), np.linalg.solve(grid.affine[:3, :3], (end_mm - grid.affine[:3, 3]).T).T
    found = _affine_motion(grid).warp_points(torch.from_numpy(start), space=space)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), end, rtol=0, atol=1e-9)


def test_points_outside_move_with_the_nearest_edge() -> None:
    grid = Grid((2, 3, 4))
    disp_mm = torch.zeros(3, 2, 3, 4)
    disp_mm[0, 1, 2, 3] = 5
    found = DisplacementField(disp_mm, grid)(torch.tensor([[50.0, 60.0, 70.0]]))
    torch.testing.assert_close(found, torch.tensor([[55.0, 60.0, 70.0]], dtype=torch.float64))


def test_no_points_at_all() -> None:
    assert _affine_motion(_grid()).warp_points(torch.zeros(0, 3), space="mm").shape == (0, 3)


@pytest.mark.parametrize("points", [torch.zeros(3), torch.zeros(4, 2), torch.zeros(2, 4, 3)])
def test_points_of_a_wrong_shape(points: Any) -> None:
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        _affine_motion(_grid()).warp_points(points, space="mm")


def test_points_may_be_a_numpy_array() -> None:
    points: Any = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])
    transform = _affine_motion(_grid())
    assert torch.equal(transform.warp_points(points, space="mm"), transform(torch.from_numpy(points)))


def test_points_that_are_no_numbers() -> None:
    with pytest.raises(InputError, match="NaN or Inf"):
        _affine_motion(_grid()).warp_points(torch.tensor([[0.0, torch.nan, 0.0]]), space="mm")


def test_fields_that_are_no_transform() -> None:
    grid = Grid((2, 3, 4))
    for shape in [(3, 2, 4, 3), (2, 2, 3, 4), (2, 3, 4), (3, 2, 3)]:
        with pytest.raises(GeometryError, match="must have shape"):
            DisplacementField(torch.zeros(shape), grid)
    for value in (torch.nan, torch.inf):
        bad = torch.zeros(3, 2, 3, 4)
        bad[1, 0, 2, 3] = value
        with pytest.raises(GeometryError, match="NaN or Inf"):
            DisplacementField(bad, grid)


@pytest.mark.parametrize("disp", [np.zeros((3, 4, 5, 6)), None, [0.0]])
def test_displacements_are_a_tensor(disp: Any) -> None:
    with pytest.raises(GeometryError, match=rf"tensor of shape \(3, 4, 5, 6\), got {type(disp).__name__}"):
        DisplacementField(disp, Grid((4, 5, 6)))
    with pytest.raises(GeometryError, match=rf"got {type(disp).__name__}"):
        DisplacementField.from_voxels(disp, Grid((4, 5, 6)))


@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS)
def test_resampled_from_the_canonical_grid_it_is_the_same_transform(
    axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    grid = _grid((3, 5, 4), axes=axes, flips=flips)
    canonical = grid.canonical()
    transform = DisplacementField(oracles.noise(3, *canonical.shape), canonical)
    found = transform.to_displacement_field(grid)
    assert found.grid is grid
    # Point by point, and by the interpolating path.
    mm = torch.from_numpy(oracles.mm_of_voxels(grid.affine, grid.shape).reshape(3, -1)).T
    expected = (transform(mm) - mm).T.reshape(3, *grid.shape)
    torch.testing.assert_close(found.disp_mm, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.disp_mm, resample_tensor(transform.disp_mm, canonical, grid), rtol=0, atol=1e-10)


def test_resampling_carries_gradients() -> None:
    grid = Grid((4, 5, 6), np.diag([-1.0, 2, 1, 1])[[1, 0, 2, 3]])
    for reference in (grid.canonical(), grid, Grid((3, 3, 3))):
        disp_mm = oracles.noise(3, *grid.canonical().shape).requires_grad_()
        found = DisplacementField(disp_mm, grid.canonical()).to_displacement_field(reference).disp_mm
        found.sum().backward()
        assert disp_mm.grad is not None
        assert float(disp_mm.grad.sum()) == pytest.approx(found.numel())


def test_resampled_onto_any_grid() -> None:
    grid = _grid()
    reference = Grid((4, 3, 5), oracles.oblique_affine((1.0, 0.5, 0.9), degrees=(-30, 50, 10), axes=(2, 0, 1)))
    transform = DisplacementField(oracles.noise(3, *SHAPE), grid)
    found = transform.to_displacement_field(reference)
    mm = torch.from_numpy(oracles.mm_of_voxels(reference.affine, reference.shape).reshape(3, -1)).T
    expected = (transform(mm) - mm).T.reshape(3, *reference.shape)
    torch.testing.assert_close(found.disp_mm, expected, rtol=0, atol=1e-10)
    same = transform.to_displacement_field(_grid())
    assert torch.equal(same.disp_mm, transform.disp_mm)


def _wave(mm: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    return np.sin(np.tensordot(frequency, mm, 1))


def test_warp_reads_the_moving_image_at_the_moved_points() -> None:
    # The moving image lies on a finer grid of another orientation, and is larger, so that each point is found in it.
    fixed = _grid()
    shape = (40, 34, 36)
    affine = oracles.oblique_affine((0.9, 0.7, 1.1), degrees=(5, 12, -9), axes=(2, 0, 1), flips=(True, False, True))
    centre = fixed.index_to_world((torch.tensor([fixed.shape]).double() - 1) / 2)[0].numpy()
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    moving = Grid(shape, affine)
    frequency = np.array([0.4, -0.3, 0.25])
    image = Image(torch.from_numpy(_wave(oracles.mm_of_voxels(affine, moving.shape), frequency))[None], moving)
    transform = _affine_motion(fixed)
    moved_mm = oracles.mm_of_voxels(fixed.affine, SHAPE) + transform.disp_mm.numpy()
    moved_vox = moving.world_to_index(torch.from_numpy(moved_mm.reshape(3, -1)).T)
    assert bool(((moved_vox >= 0) & (moved_vox <= torch.tensor(moving.shape) - 1)).all())
    found = transform.warp(image)
    assert found.grid is fixed
    # Trilinear interpolation errs by at most 1/8 of the second derivative along each voxel axis.
    allowed = ((frequency @ affine[:3, :3]) ** 2).sum() / 8
    error = np.abs(found.numpy() - _wave(moved_mm, frequency)).max()
    assert error <= allowed < 0.05
    # It tells the motion from its inverse and from none at all.
    assert np.abs(found.numpy() - _wave(oracles.mm_of_voxels(fixed.affine, SHAPE), frequency)).max() > 5 * allowed


def test_warp_of_labels_takes_values_as_they_are() -> None:
    grid = _grid()
    labels = Image(torch.arange(7 * 9 * 6).reshape(1, *SHAPE) + 2**53 + 1, grid)
    disp_vox = torch.zeros(3, *SHAPE)
    disp_vox[2], disp_vox[0] = 1.2, -0.9
    found = DisplacementField.from_voxels(disp_vox, grid).warp(labels)
    assert found.data.dtype == torch.int64
    assert torch.equal(found.data[:, 1:, :, :-1], labels.data[:, :-1, :, 1:])
    assert not found.data[:, 0].any()  # -0.9 is outside the field of view
    assert not found.data[..., -1].any()
    filled = DisplacementField.from_voxels(disp_vox, grid).warp(labels, fill_value=5)
    assert filled.data[:, 0].unique().tolist() == [5]


def test_warp_with_a_chosen_mode_and_several_channels() -> None:
    grid = _grid()
    image = Image(oracles.noise(3, *SHAPE), grid)
    transform = DisplacementField.from_voxels(torch.full((3, *SHAPE), 0.3, dtype=torch.float64), grid)
    found = transform.warp(image, mode="nearest", fill_value=9.0)
    torch.testing.assert_close(found.data, image.data, rtol=0, atol=0)
    mixed = transform.warp(image)
    positions = oracles.indices(SHAPE) + 0.3
    np.testing.assert_allclose(mixed.numpy(), oracles.trilinear(image.numpy(), positions), rtol=0, atol=1e-10)


def test_no_displacement_changes_nothing() -> None:
    grid = _grid()
    still = DisplacementField(torch.zeros(3, *SHAPE), grid)
    image = Image(oracles.noise(1, *SHAPE), grid)
    torch.testing.assert_close(still.warp(image).data, image.data, rtol=0, atol=1e-10)
    points = 100 * oracles.noise(5, 3)
    assert torch.equal(still(points), points)
    torch.testing.assert_close(still.jacobian(), torch.ones(SHAPE), rtol=0, atol=1e-6)


def test_jacobian_of_an_affine_motion() -> None:
    expected = np.linalg.det(np.eye(3) + MATRIX)
    found = _affine_motion(_grid(axes=(1, 2, 0), flips=(True, False, True))).jacobian()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


def test_one_line_says_what_it_is() -> None:
    field = DisplacementField.from_voxels(torch.ones(3, 4, 5, 6), Grid((4, 5, 6), np.diag([2.0, 3.0, 6.0, 1.0])))
    assert repr(field).startswith("DisplacementField(up to 7 mm, Grid(shape=(4, 5, 6), ")
    assert "\n" not in repr(field)


@pytest.mark.parametrize("space", ["vox", "ras", None])
def test_an_unknown_space(space: Any) -> None:
    with pytest.raises(ConfigError, match="space must be one of"):
        _affine_motion(_grid()).warp_points(torch.zeros(1, 3), space=space)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(shift=st.tuples(*[st.floats(-20, 20)] * 3), degrees=st.tuples(*[st.floats(-90, 90)] * 3))
def test_a_constant_shift_moves_all_points_alike(
    shift: tuple[float, float, float], degrees: tuple[float, float, float]
) -> None:
    grid = _grid((3, 4, 2), degrees=degrees)
    disp_mm = torch.tensor(shift, dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, *grid.shape)
    points = 30 * oracles.noise(4, 3)
    expected = points + torch.tensor(shift, dtype=torch.float64)
    transform = DisplacementField(disp_mm, grid)
    torch.testing.assert_close(transform(points), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(transform.jacobian(), torch.ones(grid.shape, dtype=torch.float64), rtol=0, atol=1e-10)
