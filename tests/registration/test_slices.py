"""2-D images: volumes of one slice, whose motion stays in the plane."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torso import QUICK

from convexadam import (
    Affine,
    ConfigError,
    DisplacementField,
    Grid,
    Image,
    InputError,
    IsotropicGrid,
    NativeGrid,
    RegistrationConfig,
    as_image,
    preset,
    register,
    write_image,
)
from convexadam.cli import main
from convexadam.data import PhantomPair, phantom_pair
from convexadam.linear import LinearAlignment
from convexadam.registration.foreground import AutoForeground

THICK = np.array([[0, 0, 16.0, 40], [-4.2, 0, 0, 160], [0, 3.8, 0, -140], [0, 0, 0, 1]])
"""Sagittal: index i runs to posterior, j to superior; thick, off the origin."""


@functools.cache
def plane_pair(across: int = 2) -> PhantomPair:
    shape = [64, 56]
    shape.insert(across, 1)
    return phantom_pair((shape[0], shape[1], shape[2]), contrasts=("t1", "t1"), displacement_mm=18, seed=2)


def error_vox(transform: Any, pair: PhantomPair) -> float:
    assert isinstance(transform, DisplacementField)
    off = (transform.to_voxels() - pair.disp_vox).norm(dim=0)
    return float(off[pair.fixed_labels.data[0] > 0].mean())


def before_vox(pair: PhantomPair) -> float:
    return float(pair.disp_vox.norm(dim=0)[pair.fixed_labels.data[0] > 0].mean())


@pytest.mark.parametrize("across", [0, 1, 2])
@pytest.mark.parametrize("grid", [NativeGrid(), IsotropicGrid()], ids=["native", "isotropic"])
def test_motion_in_the_plane(across: int, grid: Any) -> None:
    pair = plane_pair(across)
    result = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, grid=grid))
    assert error_vox(result.transform, pair) < 0.4 * before_vox(pair)
    assert not bool(result.transform.disp_mm[across].any())  # every bit
    assert result.diagnostics["folded_percent"] == 0
    inverse = result.transform.inverse(pair.moving)
    assert not bool(inverse.disp_mm[across].any())


@pytest.mark.parametrize("name", ["default", "best", "published"])
def test_every_preset_takes_a_slice(name: str) -> None:
    pair = plane_pair()
    result = register(pair.fixed, pair.moving, preset(name))
    assert error_vox(result.transform, pair) < 0.5 * before_vox(pair)
    assert not bool(result.transform.disp_mm[2].any())
    if result.estimated_inverse is not None:
        assert float(result.estimated_inverse.to_displacement_field(pair.moving).disp_mm[2].abs().max()) == 0


def test_a_thick_slice_is_not_divided() -> None:
    grid = Grid((40, 36, 1), THICK)
    assert IsotropicGrid()(grid).shape == (1, math.ceil(40 * 4.2 / 3.8 - 0.5), 36)
    assert IsotropicGrid(spacing_mm=8.0)(grid).shape == (1, 21, 17)
    assert IsotropicGrid(max_voxels=100)(grid).n_voxels <= 100
    assert grid.dims == 2
    assert grid.slice_axis == 2
    assert Grid((4, 5, 6)).dims == 3
    assert Grid((1, 1, 6)).dims == 3  # a line is no plane


def turned_pair(degrees: float, shift_mm: tuple[float, float]) -> tuple[Image, Image, np.ndarray]:
    """A slice, the same one after a rotation and a translation in its plane, and the 4x4 truth."""
    pair = plane_pair()
    angle = math.radians(degrees)
    truth = np.eye(4)
    truth[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    truth[:2, 3] = shift_mm
    moving = Affine(np.linalg.inv(truth)).warp(pair.fixed, pair.fixed, mode="cubic")
    return pair.fixed, moving, truth


@pytest.mark.parametrize("name", ["rigid", "similarity", "affine"])
def test_linear_registration_in_the_plane(name: str) -> None:
    fixed, moving, truth = turned_pair(9, (14.0, -10.0))
    result = register(fixed, moving, preset(name))
    assert isinstance(result.transform, Affine)
    assert result.linear is not None
    assert result.linear.accepted
    matrix = result.transform.matrix
    assert matrix[2].tolist() == [0.0, 0.0, 1.0, 0.0]
    corners = np.array([[x, y, 0, 1] for x in (-120, 120) for y in (-80, 80)])
    off_mm = np.linalg.norm((corners @ (matrix - truth).T)[:, :2], axis=1).max()
    assert off_mm < 1.0  # a quarter of a pixel


def test_a_linear_alignment_comes_before() -> None:
    fixed, moving, _ = turned_pair(14, (30.0, -20.0))
    config = dataclasses.replace(QUICK, linear=LinearAlignment(model="rigid"))
    result = register(fixed, moving, config)
    assert result.linear is not None
    assert result.linear.model == "rigid"
    assert not bool(result.transform.disp_mm[2].any())


def test_planes_need_not_be_at_the_same_place_exactly() -> None:
    # within half a slice of each other, as headers round
    fixed, moving, _ = turned_pair(9, (14.0, -10.0))
    affine = moving.grid.affine.copy()
    affine[2, 3] += 0.4 * fixed.grid.spacing_mm[2]
    result = register(fixed, Image(moving.data, Grid(moving.grid.shape, affine)), preset("rigid"))
    exact = register(fixed, moving, preset("rigid"))
    np.testing.assert_allclose(result.transform.matrix, exact.transform.matrix, atol=1e-3)


def test_planes_apart_do_not_overlap() -> None:
    pair = plane_pair()
    affine = pair.moving.grid.affine.copy()
    affine[2, 3] += 30
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, affine))
    with pytest.raises(InputError, match=r"must overlap .* pass an initial_transform"):
        register(pair.fixed, moving, QUICK)
    start = np.eye(4)
    start[2, 3] = 30
    found = register(pair.fixed, moving, QUICK, initial_transform=start).transform.disp_mm
    same = register(pair.fixed, pair.moving, QUICK).transform.disp_mm
    torch.testing.assert_close(found[:2], same[:2])
    torch.testing.assert_close(found[2], torch.full_like(found[2], 30.0))


def test_arrays_of_two_axes_say_so() -> None:
    pair = plane_pair()
    fixed, moving = (image.numpy()[:, :, 0] for image in (pair.fixed, pair.moving))
    with pytest.raises(InputError, match=r"array must have three axes .*, got shape \(64, 56\); .*dims=2"):
        register(fixed, moving)
    affine = pair.fixed.grid.affine
    images = [as_image(values, affine, dims=2) for values in (fixed, moving)]
    found = register(*images, QUICK)
    assert torch.equal(found.transform.disp_mm, register(pair.fixed, pair.moving, QUICK).transform.disp_mm)
    masked = register(*images, QUICK, fixed_mask=fixed > 20, moving_mask=torch.from_numpy(moving > 20))
    assert not torch.equal(masked.transform.disp_mm, found.transform.disp_mm)


def test_a_foreground_in_the_plane() -> None:
    pair = plane_pair()
    mask = AutoForeground()(pair.fixed)
    assert mask is not None
    body = pair.fixed_labels.data[0] > 0
    inside = Affine().warp(mask, pair.fixed, mode="nearest").data[0] > 0
    assert float(inside[body].float().mean()) > 0.99
    assert float(inside.float().mean()) < 0.95


def test_weights_in_the_plane() -> None:
    pair = plane_pair()
    found = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, restrict_deformation=(1.0, 0.0, 1.0)))
    assert not bool(found.transform.disp_mm[1:].any())
    with pytest.raises(ConfigError, match="restrict_deformation must leave an axis in the plane of a 2-D image free"):
        register(pair.fixed, pair.moving, RegistrationConfig(restrict_deformation=(0.0, 0.0, 1.0)))


def test_a_slice_of_a_volume_may_leave_its_plane() -> None:
    # only between two slices is motion across them forbidden
    volume = phantom_pair((36, 32, 30), contrasts=("t1", "t1"), displacement_mm=0, seed=2).fixed
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 14
    slab = Image(volume.data[..., 14:15], Grid((36, 32, 1), affine))
    shifted = volume.grid.affine.copy()
    shifted[2, 3] += 20
    moving = Image(volume.data, Grid(volume.grid.shape, shifted))
    result = register(slab, moving, preset("rigid"))
    assert isinstance(result.transform, Affine)
    assert result.transform.matrix[2, 3] > 8


def test_commands_take_two_dimensional_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = plane_pair()
    for name in ("fixed", "moving"):
        image = getattr(pair, name)
        nibabel.save(nibabel.Nifti1Image(image.numpy()[:, :, 0], image.grid.affine), tmp_path / f"{name}.nii.gz")
        labels = getattr(pair, f"{name}_labels")
        write_image(labels, tmp_path / f"{name}_labels.nii.gz")
    out = tmp_path / "out"
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
    assert main(["register", *files, "--output-dir", str(out)]) == 0
    field = nibabel.load(out / "transform.nii.gz")
    assert field.shape == (64, 56, 1, 1, 3)
    assert not np.asarray(field.dataobj)[..., 2].any()
    assert nibabel.load(out / "moved.nii.gz").shape == (64, 56, 1)
    labels = [str(tmp_path / f"{name}_labels.nii.gz") for name in ("fixed", "moving")]
    warped = str(tmp_path / "warped.nii.gz")
    transform = str(out / "transform.nii.gz")
    assert main(["warp", transform, labels[1], warped, "--labels"]) == 0
    assert set(np.unique(nibabel.load(warped).dataobj)) <= set(np.unique(nibabel.load(labels[1]).dataobj))
    capsys.readouterr()
    assert main(["evaluate", transform, "--fixed-labels", labels[0], "--moving-labels", labels[1]]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["dice"] > scores["dice_before"]
    assert 0 < scores["hd95_mm"] < scores["hd95_before_mm"]
    assert main(["info", files[0]]) == 0
    assert "64" in capsys.readouterr().out
