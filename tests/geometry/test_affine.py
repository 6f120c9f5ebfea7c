"""Affine transforms, against 4x4 algebra and naive interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Image
from convexadam.geometry import affine as affine_module

# Unequal, non-cubic, anisotropic and oblique; LPS and PIR by their axes and flips.
FIXED = Grid((6, 5, 7), oracles.oblique_affine((1.5, 0.8, 2.5)))
LPS = Grid((9, 11, 8), oracles.oblique_affine((1.2, 1.1, 1.6), degrees=(5, 10, -4), flips=(True, True, False)))
PIR = Grid(
    (8, 9, 12),
    oracles.oblique_affine((1.3, 1.7, 0.9), degrees=(-3, 7, 6), axes=(1, 2, 0), flips=(True, True, False)),
)


def centred(grid: Grid, centre_mm: np.ndarray) -> Grid:
    """The same grid, moved so that its middle is at a place."""
    affine = grid.affine.copy()
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    return Grid(grid.shape, affine)


def middle(grid: Grid) -> np.ndarray:
    return np.asarray(grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3])


def motion(degrees: tuple[float, float, float] = (25.0, -10.0, 40.0), scale: float = 1.1) -> np.ndarray:
    """Turn about the middle of the fixed grid, scale along one axis, and shift."""
    matrix = oracles.oblique_affine((scale, 1.0, 1.0), degrees=degrees, origin=(0.0, 0.0, 0.0))
    matrix[:3, 3] = middle(FIXED) - matrix[:3, :3] @ middle(FIXED) + (3.0, -2.0, 1.5)
    return matrix


def moved_voxels(matrix: np.ndarray, fixed: Grid, moving: Grid) -> np.ndarray:
    """Indices in the moving grid of each voxel of the fixed grid, ``[3, ...]``."""
    return oracles.mm_of_voxels(np.linalg.inv(moving.affine) @ matrix @ fixed.affine, fixed.shape)


def test_points_are_multiplied() -> None:
    points = 40 * oracles.noise(9, 3)
    found = Affine(motion())(points)
    assert found.dtype == torch.float64
    expected = points.numpy() @ motion()[:3, :3].T + motion()[:3, 3]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-11)
    lps = points * torch.tensor([-1.0, -1.0, 1.0])
    flipped = Affine(motion()).warp_points(lps, space="lps_mm").numpy() * (-1, -1, 1)
    np.testing.assert_allclose(flipped, expected, rtol=0, atol=1e-11)


def test_the_default_changes_nothing() -> None:
    points = oracles.noise(4, 3)
    assert torch.equal(Affine()(points), points)
    image = Image(oracles.noise(2, *LPS.shape), LPS)
    assert torch.equal(Affine().warp(image, LPS).data, image.data)


@pytest.mark.parametrize("grid", [FIXED, LPS, PIR], ids=["oblique", "LPS", "PIR"])
def test_displacements_at_voxels(grid: Grid) -> None:
    mm = oracles.mm_of_voxels(grid.affine, grid.shape)
    expected = oracles.mm_of_voxels(motion() @ grid.affine, grid.shape) - mm
    field = Affine(motion()).to_displacement_field(grid)
    assert field.grid is grid
    assert field.disp_mm.dtype == torch.float32
    # Three products and sums of at most 100 mm each, in float32.
    np.testing.assert_allclose(field.disp_mm.numpy(), expected, rtol=0, atol=100 * 6 * 2**-24)
    before = oracles.noise(3, *grid.shape)
    after = Affine(motion()).displacement_on(grid, before, torch.empty(0, dtype=torch.float64)).numpy()
    linear = motion()[:3, :3]
    expected = np.einsum("ab,bijk->aijk", linear, mm + before.numpy()) + motion()[:3, 3].reshape(3, 1, 1, 1) - mm
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("moving", [LPS, PIR], ids=["LPS", "PIR"])
def test_warp_reads_the_moving_image_at_the_moved_points(moving: Grid) -> None:
    moving = centred(moving, middle(FIXED))
    image = Image(oracles.noise(2, *moving.shape), moving)
    where = moved_voxels(motion(), FIXED, moving)
    seen = oracles.inside(where, moving.shape)
    assert 0 < seen.sum() < seen.size
    expected = np.where(seen, oracles.trilinear(image.numpy(), where), -5.0)
    for reference in (FIXED, Image(torch.zeros(1, *FIXED.shape), FIXED)):
        found = Affine(motion()).warp(image, reference, fill_value=-5)
        assert found.grid is FIXED
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)


def test_warp_of_labels() -> None:
    moving = centred(PIR, middle(FIXED))
    labels = Image(torch.arange(moving.n_voxels).reshape(1, *moving.shape) + 2**53 + 1, moving)
    where = moved_voxels(motion(), FIXED, moving)
    expected = np.where(oracles.inside(where, moving.shape), oracles.nearest(labels.data.numpy(), where), 7)
    assert np.array_equal(Affine(motion()).warp(labels, FIXED, fill_value=7).data.numpy(), expected)


def test_warp_equals_that_of_the_same_motion_as_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = centred(LPS, middle(FIXED))
    image = Image(oracles.noise(1, *moving.shape), moving)
    matrix = motion()
    mm = oracles.mm_of_voxels(FIXED.affine, FIXED.shape)
    disp_mm = oracles.mm_of_voxels(matrix @ FIXED.affine, FIXED.shape) - mm
    expected = DisplacementField(torch.from_numpy(disp_mm), FIXED).warp(image)
    monkeypatch.setattr(affine_module, "evaluate_affine", None)  # and no displacement is made for it
    torch.testing.assert_close(Affine(matrix).warp(image, FIXED).data, expected.data, rtol=0, atol=1e-9)


@pytest.mark.parametrize("grid", [FIXED, LPS, PIR], ids=["oblique", "LPS", "PIR"])
def test_the_volume_changes_by_the_determinant(grid: Grid) -> None:
    expected = np.linalg.det(motion()[:3, :3])
    found = Affine(motion()).jacobian(grid)
    # Displacements of up to 100 mm in float32, over two voxels of 0.8 mm and more: relative errors of derivatives,
    # of which three (each below 2) are multiplied, in six products.
    allowed = 100 * 6 * 2**-24 / 0.8 * 4 * 6
    assert np.abs(found.numpy() - expected).max() <= allowed < 0.01


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    scale=st.floats(0.2, 5.0),
    shift=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_the_inverse_takes_points_back(
    degrees: tuple[float, float, float], scale: float, shift: tuple[float, float, float]
) -> None:
    matrix = oracles.oblique_affine((scale, 1.0, 1 / scale), degrees=degrees, origin=shift)
    transform, points = Affine(matrix), 100 * oracles.noise(6, 3)
    # Products of condition 25 and less of coordinates below 5000 mm, in float64.
    torch.testing.assert_close(transform.inverse()(transform(points)), points, rtol=0, atol=1e-8)
    torch.testing.assert_close(transform(transform.inverse()(points)), points, rtol=0, atol=1e-8)


def test_indices_need_grids() -> None:
    indices = oracles.uniform(5, 3) * 5
    matrix = motion()
    chain = np.linalg.inv(PIR.affine) @ matrix @ FIXED.affine
    expected = indices.numpy() @ chain[:3, :3].T + chain[:3, 3]
    for fixed, moving in [(FIXED, PIR), (Image(torch.zeros(1, *FIXED.shape), FIXED), PIR)]:
        found = Affine(matrix).warp_points(indices, space="voxel", fixed=fixed, moving=moving)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)
    back = Affine(matrix).inverse().warp_points(found, space="voxel", fixed=PIR, moving=FIXED)
    torch.testing.assert_close(back, indices, rtol=0, atol=1e-10)
    own = np.linalg.inv(FIXED.affine) @ matrix @ FIXED.affine
    found = Affine(matrix).warp_points(indices, space="fixed_voxel", fixed=FIXED)
    np.testing.assert_allclose(found.numpy(), indices.numpy() @ own[:3, :3].T + own[:3, 3], rtol=0, atol=1e-10)
    for space in ("voxel", "fixed_voxel"):
        moving_or_none: Any = PIR if space == "voxel" else None
        with pytest.raises(ConfigError, match="pass fixed="):
            Affine(matrix).warp_points(indices, space=space, moving=moving_or_none)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"moving must be a Grid .* pass moving="):
        Affine(matrix).warp_points(indices, space="voxel", fixed=FIXED)
    with pytest.raises(ConfigError, match="moving must be None"):
        Affine(matrix).warp_points(indices, space="fixed_voxel", fixed=FIXED, moving=PIR)


def test_a_grid_is_needed() -> None:
    image = Image(oracles.noise(1, *LPS.shape), LPS)
    assert Affine().fixed_grid is None
    for call in (lambda: Affine().warp(image), lambda: Affine().jacobian()):
        with pytest.raises(ConfigError, match=r"reference must be a Grid or an Image, got None.*pass reference="):
            call()
    wrong: Any = np.eye(4)
    with pytest.raises(InputError, match=r"reference: array must have three axes \(i, j, k\), got shape \(4, 4\)"):
        Affine().warp(image, wrong)
    with pytest.raises(InputError, match=r"image must be a path, .*got builtins.int"):
        Affine().warp(3, FIXED)


def _with(row: int, column: int, value: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (_with(0, 3, np.nan), "finite"),
        (_with(1, 1, np.inf), "finite"),
        (_with(3, 0, 0.1), "last row"),
        (_with(3, 3, 2.0), "last row"),
        (_with(2, 2, 0.0), "singular"),
        (_with(2, 2, 1e-9), "singular"),
        (np.array([[1.0, 2, 0, 0], [2, 4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.eye(3), r"must have shape \(4, 4\), got \(3, 3\)"),
        (np.zeros((2, 4, 4)), r"must have shape \(4, 4\)"),
        ("identity", "4x4 array of numbers"),
        ([[1, 2], [3]], "4x4 array of numbers"),
        (1j * np.eye(4), "4x4 array of numbers"),
    ],
)
def test_matrices_that_are_no_transform(matrix: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Affine(matrix)


def test_a_transform_keeps_its_own_matrix() -> None:
    given_matrix = motion()
    transform = Affine(given_matrix)
    given_matrix[0, 3] = 99
    np.testing.assert_array_equal(transform.matrix, motion())
    with pytest.raises(ValueError, match="read-only"):
        transform.matrix[0, 0] = 2
    tiny = np.diag([1e-4, 1e-4, 1e-4, 1.0])  # small, but far from singular
    np.testing.assert_allclose(Affine(tiny).inverse().matrix, np.diag([1e4, 1e4, 1e4, 1.0]))
    assert repr(Affine()) == "Affine([1 0 0 0; 0 1 0 0; 0 0 1 0])"
    assert torch.equal(Affine(torch.eye(4)).warp_points(torch.ones(1, 3), space="mm"), torch.ones(1, 3).double())


def test_only_the_exact_identity_is_one() -> None:
    nearly = np.eye(4)
    nearly[0, 3] = 1e-9
    assert Affine().is_identity
    assert not Affine(nearly).is_identity


def test_the_identity_displaces_nothing_and_returns_a_given_field() -> None:
    grid = Grid((3, 4, 5), oracles.oblique_affine())
    assert not Affine().to_displacement_field(grid).disp_mm.any()
    disp_mm = oracles.noise(3, 3, 4, 5)
    assert Affine().displacement_on(grid, disp_mm, disp_mm) is disp_mm
