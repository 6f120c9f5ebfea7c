"""Images read on other grids."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import ConfigError
from convexadam.geometry import Grid, Image, resample
from convexadam.geometry.resample import coverage, resample_tensor

SHAPE = (7, 9, 6)


def _grid(shape: tuple[int, int, int] = SHAPE, **options: Any) -> Grid:
    return Grid(shape, oracles.oblique_affine(**options))


def _inner_grid(grid: Grid, shape: tuple[int, int, int] = (4, 3, 5)) -> Grid:
    """An oblique, anisotropic grid of another orientation around the centre of ``grid``, small enough to lie inside."""
    affine = oracles.oblique_affine((0.6, 0.9, 0.5), degrees=(-30, 50, 10), axes=(2, 0, 1), flips=(True, False, True))
    centre = grid.index_to_world((torch.tensor([grid.shape]).double() - 1) / 2)[0].numpy()
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def _positions(grid: Grid, reference: Grid) -> np.ndarray:
    """Voxel indices of ``grid`` at the voxels of ``reference``."""
    mm = oracles.mm_of_voxels(reference.affine, reference.shape).reshape(3, -1)
    return grid.world_to_index(torch.from_numpy(mm).T).T.numpy().reshape(3, *reference.shape)


def test_a_linear_image_is_exact_inside() -> None:
    grid = _grid()
    reference = _inner_grid(grid)
    assert oracles.inside(_positions(grid, reference), [n - 1 for n in SHAPE]).all()
    # Three channels that hold the positions in mm: linear in the index, so linear interpolation is exact.
    image = Image(torch.from_numpy(oracles.mm_of_voxels(grid.affine, SHAPE)), grid)
    found = resample(image, reference)
    np.testing.assert_allclose(
        found.numpy(), oracles.mm_of_voxels(reference.affine, reference.shape), rtol=0, atol=1e-10
    )
    assert found.grid is reference


def test_linear_equals_naive_loops_inside_and_outside() -> None:
    grid, reference = (
        _grid(),
        _grid((5, 11, 8), spacing=(2.0, 1.1, 2.4), degrees=(5, 60, -10), flips=(True, False, False)),
    )
    image = Image(oracles.noise(2, *SHAPE), grid)
    positions = _positions(grid, reference)
    seen = oracles.inside(positions, SHAPE)
    assert 0 < seen.sum() < seen.size
    expected = np.where(seen, oracles.trilinear(image.numpy(), positions), -7.5)
    found = resample(image, reference, fill_value=-7.5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)
    assert np.array_equal(coverage(grid, reference, like=image.data).numpy(), seen)
    unbounded = resample_tensor(image.data, grid, reference)
    np.testing.assert_allclose(unbounded.numpy(), oracles.trilinear(image.numpy(), positions), rtol=0, atol=1e-10)


# The field of view --------------------------------------------------------------------------------------------------


def _depth_voxels(grid: Grid, reference: Grid) -> np.ndarray:
    """Distance of each voxel of ``reference`` to the outer faces of ``grid``, in voxels of ``grid``, ``[3, ...]``."""
    positions = _positions(grid, reference)
    sizes = np.array(grid.shape).reshape(3, 1, 1, 1)
    return np.minimum(positions + 0.5, sizes - 0.5 - positions)


@pytest.mark.parametrize("margin", [0, 1, 2, 50])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_coverage_shrinks_by_a_margin_of_the_target_grid(margin: int, axes: tuple[int, int, int]) -> None:
    # The same directions, in another order; voxels of another size along each.
    flips = (True, False, True)
    grid = Grid((16, 9, 3), oracles.oblique_affine((1.0, 1.5, 4.0)))
    spacing = (1.3, 0.8, 2.1)
    reference = Grid((18, 20, 15), oracles.oblique_affine(spacing, axes=axes, flips=flips))
    centres = [g.index_to_world((torch.tensor([g.shape]).double() - 1) / 2)[0].numpy() for g in (grid, reference)]
    affine = reference.affine.copy()
    affine[:3, 3] += centres[0] - centres[1] + 0.017  # off the faces, where rounding decides
    reference = Grid(reference.shape, affine)
    depth = _depth_voxels(grid, reference)
    expected = np.ones(reference.shape, bool)
    for axis, (n, mm) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        along = spacing[axes.index(axis)]  # of the target grid, along this axis of the source
        expected &= depth[axis] >= min(margin * along / mm, n // 8)  # at most an eighth of the voxels on either side
    found = coverage(grid, reference, like=torch.empty(0, dtype=torch.float64), margin=margin)
    assert np.array_equal(found.numpy(), expected)
    assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_coverage_margins_are_in_mm_where_voxels_are_cubes(margin: int) -> None:
    grid = _grid((40, 32, 28), spacing=(0.8, 1.1, 1.4))
    affine = oracles.oblique_affine((1.2, 1.2, 1.2), degrees=(50, -25, 10), axes=(1, 2, 0))
    centre = grid.index_to_world((torch.tensor([grid.shape]).double() - 1) / 2)[0].numpy()
    shape = (36, 38, 40)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    reference = Grid(shape, affine)
    depth_mm = _depth_voxels(grid, reference) * np.array(grid.spacing_mm).reshape(3, 1, 1, 1)
    clear = (np.abs(depth_mm - margin * 1.2) > 0.01).all(0)  # of the faces
    found = coverage(grid, reference, like=torch.empty(0), margin=margin)
    assert np.array_equal(found.numpy()[clear] == 1, (depth_mm >= margin * 1.2).all(0)[clear])
    assert clear.mean() > 0.9
    assert found.dtype == torch.float32


def test_coverage_margins_lie_between_those_of_the_finest_and_coarsest_axis() -> None:
    grid = _grid((30, 24, 20), spacing=(0.8, 1.1, 1.4))
    reference = _inner_grid(grid, (60, 40, 70))  # voxels of 0.6 x 0.9 x 0.5 mm, oblique to the grid
    depth_mm = _depth_voxels(grid, reference) * np.array(grid.spacing_mm).reshape(3, 1, 1, 1)
    found = coverage(grid, reference, like=torch.empty(0), margin=4).numpy() == 1
    assert found[(depth_mm >= 4 * 0.9 + 0.01).all(0)].all()
    assert not found[(depth_mm < 4 * 0.5 - 0.01).any(0)].any()
    assert 0 < found.sum() < (depth_mm >= 0).all(0).sum()


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 9, 2), (8, 16, 25)])
def test_coverage_keeps_most_of_a_small_volume(shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, oracles.oblique_affine())
    found = coverage(grid, grid, like=torch.empty(0), margin=9)
    kept = tuple(slice(n // 8, n - n // 8) for n in shape)
    expected = torch.zeros(shape)
    expected[kept] = 1
    assert torch.equal(found, expected)


def test_float32_errs_no_more_than_rounding_explains() -> None:
    grid, reference = _grid(), _grid((5, 11, 8), spacing=(2.0, 1.1, 2.4), degrees=(5, 60, -10))
    data = oracles.noise(2, *SHAPE)
    positions = _positions(grid, reference)
    seen = oracles.inside(positions, SHAPE)
    # Leave out voxels at the very end of the field of view, where rounding decides.
    clear = oracles.inside(positions * 1.0 + 1e-4, SHAPE) == oracles.inside(positions - 1e-4, SHAPE)
    expected = np.where(seen, oracles.trilinear(data.numpy(), positions), 0.0)
    found = resample(Image(data.float(), grid), reference, fill_value=0.0)
    # Positions: five roundings (offset, three ticks, [-1, 1] and back) at up to 40 voxels away from the origin; times
    # steps of 2 max, three axes; eight products.
    allowed = torch.finfo(torch.float32).eps * data.abs().max().item() * (3 * 2 * 7 * 40 + 16)
    assert np.abs(found.numpy() - expected)[:, clear].max() <= allowed < 1e-3


def test_onto_its_own_grid_the_values_are_untouched() -> None:
    image = Image(oracles.noise(1, *SHAPE).float(), _grid())
    assert torch.equal(resample(image, _grid()).data, image.data)
    labels = Image((oracles.uniform(1, *SHAPE) * 9).long() + 2**60, _grid())
    assert torch.equal(resample(labels, _grid()).data, labels.data)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_onto_the_canonical_grid_voxels_change_places_only(mode: Any) -> None:
    image = Image(oracles.noise(2, *SHAPE), _grid(axes=(2, 0, 1), flips=(True, False, True)))
    found = resample(image, image.grid.canonical(), mode=mode)
    torch.testing.assert_close(found.data, image.canonical().data, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), degrees=st.tuples(*[st.floats(-90, 90)] * 3))
def test_labels_are_never_invented(seed: int, degrees: tuple[float, float, float]) -> None:
    labels = torch.tensor([3, 2**24 + 1, 2**53 + 1, -7])[(oracles.uniform(1, *SHAPE, seed=seed) * 4).long()]
    found = resample(Image(labels, _grid()), _grid((6, 5, 7), degrees=degrees))
    assert found.data.dtype == torch.int64
    assert set(found.data.unique().tolist()) <= {0, *labels.unique().tolist()}


def test_labels_equal_naive_loops() -> None:
    grid = _grid()
    reference = _inner_grid(grid, (9, 8, 7))
    labels = torch.arange(7 * 9 * 6).reshape(1, *SHAPE) + 2**53 + 1
    positions = _positions(grid, reference)
    expected = np.where(oracles.inside(positions, SHAPE), oracles.nearest(labels.numpy(), positions), 0)
    assert np.array_equal(resample(Image(labels, grid), reference).data.numpy(), expected)
    for mode in ("nearest", "label"):
        assert np.array_equal(resample(Image(labels, grid), reference, mode=mode).data.numpy(), expected)


def test_masks_and_small_types_stay_what_they_are() -> None:
    grid = _grid()
    for dtype in (torch.bool, torch.uint8, torch.int16, torch.float16):
        found = resample(Image((oracles.uniform(1, *SHAPE) * 3).to(dtype), grid), _inner_grid(grid))
        assert found.data.dtype == dtype


def test_whole_numbers_read_linearly_are_rounded() -> None:
    image = Image.from_array(np.array([0, 10, 13], np.int16).reshape(1, 1, 3))
    reference = Grid((1, 1, 2), np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.26], [0, 0, 0, 1]]))
    found = resample(image, reference, mode="linear")
    assert found.data.ravel().tolist() == [3, 11]  # 2.6 and 10.78
    assert found.data.dtype == torch.int16


def test_fill_value() -> None:
    image = Image(oracles.uniform(1, 3, 4, 5, low=-1000, high=-500), Grid((3, 4, 5)))
    far = Grid((2, 2, 2), oracles.oblique_affine(origin=(500.0, 0.0, 0.0)))
    assert resample(image, far).data.unique().tolist() == [image.data.min().item()]
    assert resample(image, far, fill_value=12.0).data.unique().tolist() == [12]
    labels = Image(torch.full((1, 3, 4, 5), 4), Grid((3, 4, 5)))
    assert resample(labels, far).data.unique().tolist() == [0]
    for mode in ("linear", "cubic"):  # then they are a scan
        assert resample(labels, far, mode=mode).data.unique().tolist() == [4]
    floating = Image(labels.data.float(), labels.grid)
    assert resample(floating, far, mode="label").data.unique().tolist() == [0]
    assert resample(floating, far, mode="nearest").data.unique().tolist() == [4]
    assert resample(labels, far, fill_value=255).data.unique().tolist() == [255]


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        (torch.uint8, -1),
        (torch.uint8, 256.0),
        (torch.int16, -1e6),
        (torch.int16, 0.5),
        (torch.int64, 2.0**63),
        (torch.int32, float("nan")),
        (torch.int32, float("inf")),
        (torch.bool, 2),
        (torch.float16, 1e6),
        (torch.float32, -1e300),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["linear", "nearest", None])
def test_a_fill_value_that_the_type_does_not_hold(dtype: torch.dtype, fill_value: float, mode: Any) -> None:
    image = Image(torch.ones(1, 3, 4, 5).to(dtype), Grid((3, 4, 5)))
    for reference in (_grid(), image.grid):
        with pytest.raises(ConfigError, match=rf"fill_value .*{dtype}.*got {re.escape(repr(fill_value))}"):
            resample(image, reference, mode=mode, fill_value=fill_value)


@pytest.mark.parametrize("fill_value", ["0", (0,), 1j])
def test_a_fill_value_is_a_number(fill_value: Any) -> None:
    image = Image(torch.ones(1, 3, 4, 5), Grid((3, 4, 5)))
    with pytest.raises(ConfigError, match="fill_value must be a number"):
        resample(image, _grid(), fill_value=fill_value)


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        (torch.uint8, 255),
        (torch.int16, -32768.0),
        (torch.int64, 2**53 + 1),
        (torch.bool, True),
        (torch.float32, float("nan")),
        (torch.float16, -65504),
        (torch.float64, 1e300),
        (torch.int16, np.int16(-1000)),
    ],
    ids=str,
)
def test_a_fill_value_that_the_type_holds(dtype: torch.dtype, fill_value: float) -> None:
    image = Image(torch.ones(1, 3, 4, 5).to(dtype), Grid((3, 4, 5)))
    far = Grid((2, 2, 2), oracles.oblique_affine(origin=(500.0, 0.0, 0.0)))
    found = resample(image, far, fill_value=fill_value).data
    torch.testing.assert_close(found, torch.full_like(found, fill_value), rtol=0, atol=0, equal_nan=True)


def test_the_field_of_view_ends_half_a_voxel_beyond_the_centres() -> None:
    image = Image(torch.ones(1, 3, 3, 3, dtype=torch.float64), Grid((3, 3, 3), np.diag([2.0, 2, 2, 1])))
    for mm, value in [(-1.01, 0), (-0.99, 1), (4.99, 1), (5.01, 0)]:
        affine = np.eye(4)
        affine[1, 3] = mm
        assert resample(image, Grid((1, 1, 1), affine), fill_value=0.0).data.item() == value


def test_displaced_positions() -> None:
    grid, reference = _grid((9, 9, 9)), _inner_grid(_grid((9, 9, 9)))
    image = Image(torch.from_numpy(oracles.mm_of_voxels(grid.affine, grid.shape)), grid)
    disp_mm = oracles.uniform(3, *reference.shape, low=-0.5, high=0.5)
    found = resample(image, reference, disp_mm=disp_mm)
    expected = oracles.mm_of_voxels(reference.affine, reference.shape) + disp_mm.numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)
    still = resample(image, grid, disp_mm=torch.zeros(3, 9, 9, 9))
    torch.testing.assert_close(still.data, image.data, rtol=0, atol=1e-10)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, reference = _grid(), _inner_grid(_grid(), (7, 5, 6))
    image, disp_mm = Image(oracles.noise(2, *SHAPE), grid), 0.3 * oracles.noise(3, 7, 5, 6)
    whole = resample(image, reference, disp_mm=disp_mm)
    for voxels in (1, 61, 95):
        monkeypatch.setattr(sys.modules["convexadam.geometry.resample"], "_CHUNK_VOXELS", voxels)
        torch.testing.assert_close(resample(image, reference, disp_mm=disp_mm).data, whole.data, rtol=0, atol=1e-12)


def test_antialias_averages_out_what_the_grid_cannot_show() -> None:
    fine = Grid((24, 3, 16), np.diag([1.0, 2.0, 1.0, 1.0]))
    stripes = torch.from_numpy((-1.0) ** oracles.indices(fine.shape)[0])[None]
    coarse = Grid((5, 3, 5), np.array([[4.0, 0, 0, 3], [0, 2, 0, 0], [0, 0, 3, 1], [0, 0, 0, 1]]))
    plain = resample(Image(stripes, fine), coarse)
    assert plain.data.abs().min() == pytest.approx(1)  # a false constant
    # A Gaussian of sigma 1.94 lets exp(-sigma^2 pi^2 / 2) = 1e-8 of the stripes through. Cut off, an alternating sum
    # errs by at most the first weight left out on either side: exp(-0.5 (6 / 1.94)^2) / (1.94 sqrt(2 pi)) = 0.0017
    # inside, and at the border, three voxels from the outermost node, 0.062.
    found = resample(Image(stripes, fine), coarse, antialias=True).data.abs()
    assert found[:, 1:-1].max() < 0.0035
    assert found.max() < 0.07


def test_antialias_weakens_waves_as_its_gaussian_does() -> None:
    fine, coarse = Grid((48, 1, 1)), Grid((8, 1, 1), np.diag([4.0, 1, 1, 1]) + np.eye(4, k=3) * 9)
    wave = torch.from_numpy(np.cos(2 * np.pi / 6 * oracles.indices(fine.shape)[0]))[None]  # the new grid shows 8 and up
    plain = resample(Image(wave, fine), coarse).data
    found = resample(Image(wave, fine), coarse, antialias=True).data
    # sigma^2 = (4^2 - 1) / 4: exp(-sigma^2 (2 pi / 6)^2 / 2) = 0.128; cutting off at 3 sigma leaves out 0.2 %.
    torch.testing.assert_close(found, 0.128 * plain, rtol=0, atol=0.004)


def test_antialias_keeps_constants_ramps_and_fine_axes() -> None:
    fine = Grid((24, 5, 16), oracles.oblique_affine((1, 2, 1)))
    coarse = fine.with_spacing((4.0, 2.0, 3.0))
    constant = Image(torch.full((1, *fine.shape), 3.25, dtype=torch.float64), fine)
    torch.testing.assert_close(
        resample(constant, coarse, antialias=True).data, torch.full((1, *coarse.shape), 3.25, dtype=torch.float64)
    )
    ramp = Image(torch.from_numpy(oracles.indices(fine.shape)), fine)
    found, plain = resample(ramp, coarse, antialias=True).data, resample(ramp, coarse).data
    torch.testing.assert_close(found[:, 2:-2, :, 2:-2], plain[:, 2:-2, :, 2:-2], rtol=0, atol=1e-9)
    along_j = Image(torch.from_numpy((-1.0) ** oracles.indices(fine.shape)[1])[None], fine)  # j stays as fine as it is
    torch.testing.assert_close(resample(along_j, coarse, antialias=True).data, resample(along_j, coarse).data)


def test_antialias_onto_a_finer_grid_changes_nothing() -> None:
    image = Image(oracles.noise(1, *SHAPE), _grid())
    reference = _grid().with_spacing((0.9, 0.5, 1.5))
    torch.testing.assert_close(resample(image, reference, antialias=True).data, resample(image, reference).data)


def test_an_unknown_mode() -> None:
    with pytest.raises(ConfigError, match="sinc"):
        resample(Image(oracles.noise(1, *SHAPE), _grid()), _grid(), mode="sinc")  # type: ignore[arg-type]
