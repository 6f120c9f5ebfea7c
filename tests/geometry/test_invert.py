"""Inverses of displacement fields, also of strong ones, against algebra and scipy's interpolation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from convexadam.errors import InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Image, compose

SPACING = (1.6, 1.1, 2.1)
GRID = Grid((24, 30, 19), oracles.oblique_affine(SPACING, flips=(True, True, False)))
CENTRE = GRID.affine[:3, :3] @ ((np.array(GRID.shape) - 1) / 2) + GRID.affine[:3, 3]
CLOSE_MM = 1e-3 * max(SPACING)
"""How closely the inverse promises to be solved: a thousandth of a voxel."""


def field(motion: Callable[[np.ndarray], np.ndarray], dtype: torch.dtype = torch.float64) -> DisplacementField:
    """The displacements of a motion of mm around the centre of the grid."""
    mm = oracles.mm_of_voxels(GRID.affine, GRID.shape) - CENTRE.reshape(3, 1, 1, 1)
    return DisplacementField(torch.from_numpy(motion(mm) - mm).to(dtype), GRID)


def linear(matrix: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda mm: np.tensordot(np.asarray(matrix), mm, 1)


def rotation(degrees: float) -> np.ndarray:
    return oracles.oblique_affine((1, 1, 1), degrees=(0.3 * degrees, 0, degrees))[:3, :3]


def swirl(mm: np.ndarray) -> np.ndarray:
    """Turn by up to 120 degrees in the middle, by nothing far away."""
    angle = np.radians(120) * np.exp(-(mm**2).sum(0) / (2 * 9.0**2))
    x, y, z = mm
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, z])


def bump(mm: np.ndarray) -> np.ndarray:
    """Push the middle by 12 mm: along R lengths change from 0.1 to 1.9."""
    moved = mm.copy()
    moved[0] += 12 * np.exp(-(mm**2).sum(0) / (2 * (12 * np.exp(-0.5) / 0.9) ** 2))
    return moved


MOTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda mm: mm,
    "35 mm": lambda mm: mm + np.array([35.0, -10.0, 5.0]).reshape(3, 1, 1, 1),
    "30 degrees": linear(rotation(30)),
    "60 degrees": linear(rotation(60)),
    "90 degrees": linear(rotation(90)),
    "stretched": linear(np.diag([3.0, 1.0, 0.4])),
    "sheared": linear([[1.0, 2.0, 0], [0, 1, 0], [0, -1.5, 1]]),
    "swirl": swirl,
    "bump": bump,
}


def missed_mm(transform: DisplacementField, inverse: DisplacementField) -> tuple[np.ndarray, np.ndarray]:
    """How far from each voxel of the inverse's grid it is after both, and whether it was between the field's voxels."""
    start = oracles.mm_of_voxels(inverse.grid.affine, inverse.grid.shape)
    between = start + inverse.disp_mm.double().numpy()
    back = np.linalg.inv(transform.grid.affine)
    where = np.tensordot(back[:3, :3], between, 1) + back[:3, 3].reshape(3, 1, 1, 1)
    disp = [ndimage.map_coordinates(u, where, order=1, mode="nearest") for u in transform.disp_mm.double().numpy()]
    known = np.all([(where[a] >= 0) & (where[a] <= n - 1) for a, n in enumerate(transform.grid.shape)], axis=0)
    return np.linalg.norm(between + disp - start, axis=0), known


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strong_motions_are_solved_everywhere(name: str, dtype: torch.dtype) -> None:
    transform = field(MOTIONS[name], dtype)
    inverse = transform.inverse()
    assert inverse.grid is GRID
    assert inverse.disp_mm.dtype == dtype
    missed, known = missed_mm(transform, inverse)
    # In float32, some roundings of positions up to 60 mm from the origin of the grid, times lengths up to 3.
    allowed = CLOSE_MM + (60 * 16 * 3 * 2**-24 if dtype == torch.float32 else 1e-9)
    assert missed.max() <= allowed
    assert inverse.inverse_error_mm == pytest.approx(missed[known].max() if known.any() else 0.0, abs=allowed)
    assert transform.inverse_error_mm is None


@pytest.mark.parametrize("name", ["30 degrees", "60 degrees", "stretched", "sheared"])
def test_a_linear_motion_has_a_linear_inverse(name: str) -> None:
    transform = field(MOTIONS[name])
    unit = np.stack([MOTIONS[name](e.reshape(3, 1, 1, 1)).ravel() for e in np.eye(3)], axis=1)
    back = np.linalg.inv(unit)
    reference = Grid((11, 8, 9), oracles.oblique_affine((2.0, 1.4, 1.7), degrees=(40, -20, 5), axes=(1, 2, 0)))
    reference = Grid(
        reference.shape,
        np.block(
            [[reference.affine[:3, :3], (CENTRE - reference.affine[:3, :3] @ (5, 3.5, 4))[:, None]], [0, 0, 0, 1]]
        ),
    )
    for grid, given_reference in (
        (GRID, None),
        (reference, reference),
        (reference, Image(torch.zeros(1, *reference.shape), reference)),
    ):
        inverse = transform.inverse(given_reference)
        assert inverse.grid is grid
        start = oracles.mm_of_voxels(grid.affine, grid.shape)
        exact = np.tensordot(back, start - CENTRE.reshape(3, 1, 1, 1), 1) + CENTRE.reshape(3, 1, 1, 1)
        to_voxels = np.linalg.inv(GRID.affine)
        where = np.tensordot(to_voxels[:3, :3], exact, 1) + to_voxels[:3, 3].reshape(3, 1, 1, 1)
        clear = oracles.inside(where + 0.51, GRID.shape) & oracles.inside(where - 0.51, GRID.shape)
        assert clear.sum() > 0.1 * clear.size
        off = np.linalg.norm(start + inverse.disp_mm.numpy() - exact, axis=0)[clear]
        assert off.max() <= CLOSE_MM * np.linalg.norm(back, 2)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    degrees=st.floats(-60, 60),
    scale=st.floats(0.6, 1.8),
    height=st.floats(0, 1.5),
    shift=st.tuples(*[st.floats(-15, 15)] * 3),
)
def test_there_and_back(degrees: float, scale: float, height: float, shift: tuple[float, float, float]) -> None:
    turn, direction = rotation(degrees) * scale, np.array(shift).reshape(3, 1, 1, 1)
    wave = lambda mm: mm + height * np.sin(np.roll(mm, 1, 0) / 5)  # noqa: E731
    transform = field(lambda mm: np.tensordot(turn, wave(mm), 1) + direction)
    # Everything that the middle of the grid is moved to lies on this one.
    wide = Grid((40, 40, 40), np.diag([1.5, 1.5, 1.5, 1.0]))
    wide = Grid(wide.shape, wide.affine + np.pad((CENTRE + shift - 1.5 * 19.5)[:, None], ((0, 1), (3, 0))))
    inverse = transform.inverse(wide)
    assert inverse.inverse_error_mm is not None
    assert inverse.inverse_error_mm <= CLOSE_MM
    points = GRID.index_to_world((torch.tensor(GRID.shape) - 1) * oracles.uniform(50, 3, low=0.3, high=0.7))
    back = inverse(transform(points))
    # The inverse is interpolated between voxels of 1.5 mm: waves of 1.5 mm over 5 mm, as steep as the solution of
    # x + 0.3 sin x, bend it by no more than 1.5 / 25 / (1 - 0.3)^3 / 0.6^2 per mm^2 for each axis; and the field
    # itself is piecewise linear, with kinks of its second derivative times a voxel of at most 2.1 mm.
    bend = height / 25 / (1 - height / 5) ** 3 / min(scale, 1) ** 2
    assert (back - points).norm(dim=1).max() <= 3 * bend * (1.5**2 / 8 + 1.5 * 2.1 / 4) + 2 * CLOSE_MM / scale


@pytest.mark.parametrize("degrees", [110, 150])
def test_where_the_field_is_a_guess_nothing_is_counted(degrees: float) -> None:
    # Beyond its edges a field goes on with edge values: a turn by more than 90 degrees folds there, but not inside.
    transform = field(linear(rotation(degrees)))
    inverse = transform.inverse()
    missed, known = missed_mm(transform, inverse)
    assert missed[~known].max() > 0.5
    assert 0.2 < known.mean() < 0.9
    assert inverse.inverse_error_mm == pytest.approx(missed[known].max(), abs=1e-9)
    assert inverse.inverse_error_mm is not None
    assert inverse.inverse_error_mm <= CLOSE_MM


def test_far_from_the_field_nothing_is_counted() -> None:
    away = Grid((3, 4, 5), np.diag([1.0, 1.0, 1.0, 1.0]) + np.pad([[500.0]] * 3, ((0, 1), (3, 0))))
    assert field(lambda mm: mm).inverse(away).inverse_error_mm == 0


def test_a_fold_has_no_inverse() -> None:
    transform = field(lambda mm: mm + np.stack([8 * np.sin(mm[0] / 4), 0 * mm[0], 0 * mm[0]]))
    assert float(transform.jacobian().min()) < 0
    with pytest.warns(UserWarning, match="error of the inverse .* see jacobian") as caught:
        inverse = transform.inverse()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    missed, known = missed_mm(transform, inverse)
    assert inverse.inverse_error_mm == pytest.approx(missed[known].max(), abs=1e-9)
    wrong = int((missed[known] > min(SPACING) / 2).sum())
    assert f"above half a voxel at {wrong} of {missed.size} voxels" in str(caught[0].message) and wrong > 0
    with pytest.warns(UserWarning, match="error of the inverse"):
        chain = compose(Affine(), transform, Affine(), transform).inverse()
    assert [type(part) for part in chain.transforms] == [DisplacementField, Affine, DisplacementField, Affine]  # type: ignore[attr-defined]


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = field(swirl)
    whole = transform.inverse()
    for voxels in (1, 3000):
        monkeypatch.setattr(sys.modules["convexadam.geometry.invert"], "_CHUNK_VOXELS", {"cpu": voxels, "gpu": voxels})
        found = transform.inverse()
        # Whether plain steps go on depends on the company, so that the same is solved only as closely as promised.
        assert (found.disp_mm - whole.disp_mm).abs().max() <= 2 * CLOSE_MM * 3
        assert found.inverse_error_mm is not None
        assert found.inverse_error_mm <= CLOSE_MM


def test_warp_and_warp_back() -> None:
    transform = field(swirl)
    inverse = transform.inverse()
    mm = oracles.mm_of_voxels(GRID.affine, GRID.shape) - CENTRE.reshape(3, 1, 1, 1)
    image = Image(torch.from_numpy(np.exp(-((mm - 4) ** 2).sum(0) / 60))[None], GRID)
    back = inverse.warp(transform.warp(image, mode="cubic"), mode="cubic")
    assert (transform.warp(image).data - image.data).abs().max() > 0.3
    # Both times between voxels of up to 2.1 mm, of blobs that the swirl made about 4 mm narrow.
    assert (back.data - image.data).abs().max() < 0.1


def test_no_gradient_flows_through() -> None:
    moving = field(bump)
    disp_mm = moving.disp_mm.clone().requires_grad_()
    assert not DisplacementField(disp_mm, GRID).inverse().disp_mm.requires_grad


def test_a_short_grid() -> None:
    grid = Grid((1, 2, 1), np.diag([2.0, 1.0, 3.0, 1.0]))
    inverse = DisplacementField(torch.tensor([0.5, -0.25, 0.75]).reshape(3, 1, 1, 1).expand(3, 1, 2, 1), grid).inverse()
    assert inverse.disp_mm[:, 0, 1, 0].tolist() == [-0.5, 0.25, -0.75]
    assert inverse.inverse_error_mm == 0


def test_onto_what_is_no_grid() -> None:
    wrong: Any = (3, 4, 5)
    with pytest.raises(InputError, match=r"reference must be a Grid or an image, got \(3, 4, 5\)"):
        field(bump).inverse(wrong)
