"""Chains of transforms, against 4x4 algebra, naive interpolation and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from scipy import ndimage
from turned import FIXED_GRID, MATRIX, MOVING_GRID, field_of

from convexadam.errors import ConfigError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Image, Transform, compose
from convexadam.geometry import transform as transform_module
from convexadam.geometry.composite import invert_transform


def around(shape: tuple[int, int, int], spacing: tuple[float, float, float], **options: Any) -> Grid:
    """A grid with its middle near one place."""
    affine = oracles.oblique_affine(spacing, **options)
    affine[:3, 3] = PLACE + 0.3 - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


PLACE = np.array([11.0, -25.0, 52.0])
FIXED = around((6, 5, 7), (1.5, 0.8, 2.5))
# A grid of the space between: LPS, larger, with another spacing.
MIDDLE = around((9, 11, 8), (2.2, 1.4, 2.6), degrees=(5, 10, -4), flips=(True, True, False))
PIR = around((8, 9, 6), (1.9, 1.4, 1.8), degrees=(9, 3, 6), axes=(1, 2, 0), flips=(True, True, False))


def field(grid: Grid, seed: int = 0, dtype: torch.dtype = torch.float64) -> DisplacementField:
    return DisplacementField((2 * oracles.noise(3, *grid.shape, seed=seed)).to(dtype), grid)


def turn(degrees: float = 20.0) -> Affine:
    matrix = oracles.oblique_affine((1.05, 1.0, 0.9), degrees=(degrees, -5, 8))
    matrix[:3, 3] = PLACE - matrix[:3, :3] @ PLACE + (2.0, -1.0, 3.0)
    return Affine(matrix)


def naive(transform: Transform, mm: np.ndarray) -> np.ndarray:
    """Points ``[3, ...]`` through one transform: a product, or scipy's linear interpolation of the vectors."""
    if isinstance(transform, Affine):
        shift = transform.matrix[:3, 3].reshape(3, *[1] * (mm.ndim - 1))
        return np.asarray(np.tensordot(transform.matrix[:3, :3], mm, 1) + shift)
    assert isinstance(transform, DisplacementField)
    inverse = np.linalg.inv(transform.grid.affine)
    where = np.tensordot(inverse[:3, :3], mm, 1) + inverse[:3, 3].reshape(3, *[1] * (mm.ndim - 1))
    disp = [ndimage.map_coordinates(u, where, order=1, mode="nearest") for u in transform.disp_mm.double().numpy()]
    return np.asarray(mm + np.stack(disp))


CHAINS: dict[str, list[Transform]] = {
    "affine, field": [turn(), field(MIDDLE)],
    "field, affine": [field(FIXED), turn()],
    "field, field": [field(FIXED), field(MIDDLE, seed=1)],
    "affine, field, affine, field": [turn(5), field(MIDDLE), turn(-30), field(PIR, seed=1)],
    "field of float32, field": [field(FIXED, dtype=torch.float32), field(MIDDLE, seed=1)],
}


def expected_points(parts: list[Transform], mm: np.ndarray) -> np.ndarray:
    for part in parts:
        mm = naive(part, mm)
    return mm


@pytest.mark.parametrize("name", CHAINS)
def test_points_go_through_one_after_the_other(name: str) -> None:
    mm = oracles.mm_of_voxels(FIXED.affine, FIXED.shape).reshape(3, -1)
    expected = expected_points(CHAINS[name], mm)
    chain = compose(*CHAINS[name])
    found = chain(torch.from_numpy(mm.T))
    assert found.dtype == torch.float64
    # Of a float32 field: indices below 12 in a few roundings, times steps of up to 20 mm a voxel, on three axes.
    allowed = 12 * 4 * 20 * 3 * 2**-24 if "float32" in name else 1e-9
    np.testing.assert_allclose(found.numpy().T, expected, rtol=0, atol=allowed)
    # The order does matter, so that the wrong one would be seen.
    assert np.abs(expected_points(CHAINS[name][::-1], mm) - expected).max() > 0.5


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("grid", [FIXED, PIR], ids=["fixed", "PIR"])
def test_displacements_at_the_voxels_of_a_grid(name: str, grid: Grid) -> None:
    mm = oracles.mm_of_voxels(grid.affine, grid.shape)
    expected = expected_points(CHAINS[name], mm) - mm
    chain = Composite(tuple(CHAINS[name]))
    found = chain.to_displacement_field(grid)
    assert found.grid is grid
    assert found.disp_mm.dtype == (torch.float32 if "float32" in name else torch.float64)
    allowed = 12 * 4 * 20 * 3 * 2**-24 * 4 if "float32" in name else 1e-9
    np.testing.assert_allclose(found.disp_mm.numpy(), expected, rtol=0, atol=allowed)
    # Started from displacements, and in the type that is asked for.
    before = oracles.noise(3, *grid.shape)
    after = chain.displacement_on(grid, before, torch.empty(0, dtype=torch.float64))
    assert after.dtype == torch.float64
    expected = expected_points(CHAINS[name], mm + before.numpy()) - mm
    np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=allowed)
    single = chain.displacement_on(grid, None, torch.empty(0))
    assert single.dtype == torch.float32


def test_displacements_that_are_there_are_not_changed() -> None:
    parts = field(FIXED), turn(), field(MIDDLE)
    kept = [part.disp_mm.clone() for part in parts if isinstance(part, DisplacementField)]
    before = oracles.noise(3, *FIXED.shape)
    given = before.clone()
    compose(*parts).displacement_on(FIXED, before, before)
    compose(*parts).displacement_on(FIXED, None, before)
    assert torch.equal(before, given)
    assert all(torch.equal(part.disp_mm, was) for part, was in zip((parts[0], parts[2]), kept, strict=True))


@pytest.mark.parametrize("name", CHAINS)
def test_an_image_is_interpolated_once_at_the_end_of_the_chain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moving = PIR
    image = Image(oracles.noise(2, *moving.shape, seed=5), moving)
    mm = oracles.mm_of_voxels(FIXED.affine, FIXED.shape)
    inverse = np.linalg.inv(moving.affine)
    end = expected_points(CHAINS[name], mm)
    where = np.tensordot(inverse[:3, :3], end, 1) + inverse[:3, 3].reshape(3, 1, 1, 1)
    seen = oracles.inside(where, moving.shape)
    assert 0 < seen.sum() < seen.size
    expected = [ndimage.map_coordinates(c, where, order=1, mode="nearest") for c in image.numpy()]
    reads = []
    once = transform_module.resample
    monkeypatch.setattr(transform_module, "resample", lambda *a, **o: reads.append(a) or once(*a, **o))
    found = compose(*CHAINS[name]).warp(image, FIXED, fill_value=-9.0)
    assert len(reads) == 1
    # A step of 8 between two voxels of noise, positions in float32: see above.
    allowed = 12 * 4 * 20 * 3 * 2**-24 * 8 if "float32" in name else 1e-8
    np.testing.assert_allclose(found.numpy(), np.where(seen, expected, -9.0), rtol=0, atol=allowed)


def test_neighbouring_affines_become_one() -> None:
    a, b, u = turn(10), turn(50), field(MIDDLE)
    both = compose(a, b)
    assert isinstance(both, Affine)
    np.testing.assert_allclose(both.matrix, b.matrix @ a.matrix, rtol=0, atol=1e-12)
    chain = compose(a, compose(b, u), compose(a, b))
    assert isinstance(chain, Composite)
    assert [type(part) for part in chain.transforms] == [Affine, DisplacementField, Affine]
    assert compose(u) is u
    assert Composite((a, Composite((b, u)))).transforms == (a, b, u)


def test_the_grid_is_that_of_the_first() -> None:
    assert Composite((field(FIXED), turn())).fixed_grid is FIXED
    assert Composite((turn(), field(MIDDLE))).fixed_grid is None  # its grid is not in fixed space
    image = Image(oracles.noise(1, *PIR.shape), PIR)
    assert compose(field(FIXED), turn()).warp(image).grid is FIXED
    with pytest.raises(ConfigError, match="must be a Grid or an Image"):
        compose(turn(), field(MIDDLE)).warp(image)
    with pytest.raises(ConfigError, match="pass fixed="):
        compose(turn(), field(MIDDLE)).warp_points(torch.zeros(1, 3), space="voxel", moving=PIR)


def test_indices_of_two_grids() -> None:
    indices = oracles.uniform(7, 3) * 5
    mm = indices.numpy() @ FIXED.affine[:3, :3].T + FIXED.affine[:3, 3]
    end = expected_points([field(FIXED), turn()], mm.T)
    expected = np.linalg.solve(PIR.affine[:3, :3], end - PIR.affine[:3, 3:]).T
    chain = compose(field(FIXED), turn())
    for moving in (PIR, Image(torch.zeros(1, *PIR.shape), PIR)):
        found = chain.warp_points(indices, space="voxel", moving=moving)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)


def smooth_field(grid: Grid, size_mm: float) -> DisplacementField:
    """Waves of 60 mm and more, of which no voxel changes by much against its neighbour."""
    mm = oracles.mm_of_voxels(grid.affine, grid.shape)
    waves = [size_mm * np.sin(np.tensordot(k, mm, 1) / 12 + a) for a, k in enumerate(np.eye(3)[[1, 2, 0]])]
    return DisplacementField(torch.from_numpy(np.stack(waves)), grid)


def test_the_inverse_takes_points_back() -> None:
    grid = around((24, 20, 26), (2.2, 2.5, 2.0), flips=(True, True, False))
    chain = compose(smooth_field(grid, 1.5), turn(15), smooth_field(grid, 1.0))
    assert isinstance(chain, Composite)
    back = chain.inverse()
    assert [type(part) for part in back.transforms] == [DisplacementField, Affine, DisplacementField]
    residuals = [p.inverse_error_mm for p in back.transforms if isinstance(p, DisplacementField)]
    assert all(r is not None and r < 0.01 for r in residuals)
    # Inside by a quarter, where neither field is asked about places outside its grid on the way.
    shape = torch.tensor(grid.shape).double() - 1
    points = grid.index_to_world(shape * oracles.uniform(40, 3, low=0.4, high=0.6))
    forth = chain(points)
    # Linear interpolation of waves of 1.5 mm and 75 mm length errs by h^2 / 8 of second derivatives (1.5 / 144), each.
    allowed = 2 * 0.02 + 2 * 3 * 2.5**2 / 8 * 1.5 / 144
    assert (forth - points).abs().min() >= 0
    assert (forth - points).norm(dim=1).max() > 5
    assert (back(forth) - points).norm(dim=1).max() < allowed
    assert (chain(back(points)) - points).norm(dim=1).max() < allowed


def test_jacobian_of_a_chain() -> None:
    # Affine motions as fields, so that determinants multiply exactly; the grid between is large enough.
    matrix = turn(3).matrix
    wide = Grid(
        (30, 32, 28), MIDDLE.affine @ np.array([[1.0, 0, 0, -10], [0, 1, 0, -10], [0, 0, 1, -10], [0, 0, 0, 1]])
    )
    mm = oracles.mm_of_voxels(wide.affine, wide.shape)
    disp = oracles.mm_of_voxels(matrix @ wide.affine, wide.shape) - mm
    chain = compose(turn(5), DisplacementField(torch.from_numpy(disp), wide))
    end = np.linalg.solve(wide.affine, turn(5).matrix @ FIXED.affine)
    assert oracles.inside(oracles.mm_of_voxels(end, FIXED.shape), wide.shape).all()
    expected = np.linalg.det(matrix[:3, :3]) * np.linalg.det(turn(5).matrix[:3, :3])
    np.testing.assert_allclose(chain.jacobian(FIXED).numpy(), expected, rtol=0, atol=1e-9)
    with pytest.raises(ConfigError, match="must be a Grid or an Image"):
        chain.jacobian()


@pytest.mark.parametrize("parts", [(), []])
def test_nothing_to_compose(parts: Any) -> None:
    with pytest.raises(ConfigError, match="at least one transform, got none"):
        Composite(parts)
    with pytest.raises(ConfigError, match="at least one transform, got none"):
        compose()


@pytest.mark.parametrize("part", [np.eye(4), None, FIXED, "affine"], ids=["matrix", "None", "grid", "text"])
def test_what_is_no_transform(part: Any) -> None:
    with pytest.raises(ConfigError, match="each of transforms must be a Transform"):
        compose(turn(), part)
    with pytest.raises(ConfigError, match="transforms must be a tuple"):
        Composite(part)


def test_a_field_of_half_precision_is_computed_in_float32() -> None:
    half = field(FIXED, dtype=torch.float16)
    exact = DisplacementField(half.disp_mm.double(), FIXED)
    image = Image(oracles.noise(1, *PIR.shape), PIR)
    assert compose(half, turn()).to_displacement_field(FIXED).disp_mm.dtype == torch.float32
    found, expected = compose(half, turn()).warp(image, fill_value=0), compose(exact, turn()).warp(image, fill_value=0)
    near = torch.isclose(found.data, expected.data, rtol=0, atol=1e-3)
    assert float(near.double().mean()) > 0.98  # but at the border of the field of view, where rounding decides
    torch.testing.assert_close(half(torch.zeros(1, 3)), exact(torch.zeros(1, 3)), rtol=0, atol=1e-5)


def test_inverses_of_chains() -> None:
    points = np.random.default_rng(0).uniform(-12, 12, (9, 3))  # in mm, well within both grids
    warp = DisplacementField(torch.from_numpy(field_of(MATRIX)), FIXED_GRID)
    shift = np.eye(4)
    shift[:3, 3] = 3, -1, 2
    chains = {"field first": compose(warp, Affine(shift)), "affine first": compose(Affine(shift), warp)}
    for chain in (Affine(MATRIX), *chains.values()):
        there = chain(torch.from_numpy(points))
        back = invert_transform(chain, MOVING_GRID)(there)
        np.testing.assert_allclose(back.numpy(), points, atol=1e-2)
    assert isinstance(invert_transform(Affine(MATRIX), None), Affine)
    found = invert_transform(chains["field first"], MOVING_GRID)
    assert isinstance(found, DisplacementField)
    assert found.grid.is_close(MOVING_GRID)
