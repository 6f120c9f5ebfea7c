"""``convexadam warp``: images and landmarks, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from turned import FIXED_GRID, MOVING_GRID, transformed

from convexadam import Affine, Grid, Image, read_image, write_image
from convexadam.io import read_landmarks, write_landmarks

FIXED_MM = np.array([[4.0, -6.0, 5.0]])
MOVING_MM = transformed(FIXED_MM)
CLOSE_MM = 0.2
"""A tenth of a voxel: what linear interpolation may shift the centre of a blob that is wider than two voxels."""


def blob(grid: Grid, centre_mm: np.ndarray) -> Image:
    """A Gaussian of 5 mm, on a field of view whose ends it does not reach."""
    voxels = np.indices(grid.shape).reshape(3, -1).T
    points = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    values = np.exp(-((points - centre_mm) ** 2).sum(1) / (2 * 5.0**2)).reshape(grid.shape)
    return Image(torch.from_numpy(values[None].astype(np.float32)), grid)


def centre_of(image: Image) -> np.ndarray:
    weights = image.data[0].double().numpy().ravel()
    voxel = (np.indices(image.grid.shape).reshape(3, -1) * weights).sum(1) / weights.sum()
    return np.asarray(image.grid.affine[:3, :3] @ voxel + image.grid.affine[:3, 3])


@pytest.fixture(scope="module")
def blobs(turned: Path) -> Path:
    write_image(blob(FIXED_GRID, FIXED_MM), turned / "fixed_blob.nii.gz")
    write_image(blob(MOVING_GRID, MOVING_MM), turned / "moving_blob.nii.gz")
    return turned


def test_an_image_comes_to_fixed_space(run: Any, blobs: Path, tmp_path: Path) -> None:
    assert run("warp", blobs / "field.nii.gz", blobs / "moving_blob.nii.gz", tmp_path / "moved.nii.gz") == (0, "", "")
    moved = read_image(tmp_path / "moved.nii.gz")
    assert moved.grid.is_close(FIXED_GRID)
    np.testing.assert_allclose(centre_of(moved), FIXED_MM[0], atol=CLOSE_MM)


def test_the_inverse_takes_an_image_to_moving_space(run: Any, blobs: Path, tmp_path: Path) -> None:
    options = ["--inverse", "--reference", blobs / "moving_blob.nii.gz"]
    ran = run("warp", blobs / "field.nii.gz", blobs / "fixed_blob.nii.gz", tmp_path / "moved.nii.gz", *options)
    assert ran == (0, "", "")
    moved = read_image(tmp_path / "moved.nii.gz")
    assert moved.grid.is_close(MOVING_GRID)
    np.testing.assert_allclose(centre_of(moved), MOVING_MM[0], atol=CLOSE_MM)


def test_landmarks_agree_with_images(run: Any, blobs: Path, tmp_path: Path) -> None:
    run("warp", blobs / "field.nii.gz", blobs / "moving_blob.nii.gz", tmp_path / "moved.nii.gz")
    seen = centre_of(read_image(tmp_path / "moved.nii.gz"))
    write_landmarks(torch.from_numpy(seen[None]), tmp_path / "fixed.csv")
    ran = run("warp", blobs / "field.nii.gz", tmp_path / "fixed.csv", tmp_path / "moving.csv", "--space", "mm")
    assert ran == (0, "", "warped 1 landmarks from fixed to moving space\n")
    np.testing.assert_allclose(read_landmarks(tmp_path / "moving.csv").numpy(), MOVING_MM, atol=CLOSE_MM)


@pytest.mark.parametrize("space", ["mm", "lps_mm", "voxel"])
def test_landmarks_there_and_back(space: str, run: Any, blobs: Path, tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(-12, 12, (7, 3))
    expected = transformed(points)
    if space == "voxel":
        start, goal = ((p - g.affine[:3, 3]) @ np.linalg.inv(g.affine[:3, :3]).T
                       for p, g in ((points, FIXED_GRID), (expected, MOVING_GRID)))  # fmt: skip
    else:
        sign = np.array([-1, -1, 1] if space == "lps_mm" else [1, 1, 1])
        start, goal = points * sign, expected * sign
    write_landmarks(torch.from_numpy(start), tmp_path / "fixed.csv")
    options = ["--space", space, "--moving", blobs / "moving_blob.nii.gz"]
    assert run("warp", blobs / "field.nii.gz", tmp_path / "fixed.csv", tmp_path / "there.csv", *options).status == 0
    np.testing.assert_allclose(read_landmarks(tmp_path / "there.csv").numpy(), goal, atol=1e-3)  # float32 at 50 mm
    ran = run("warp", blobs / "field.nii.gz", tmp_path / "there.csv", tmp_path / "back.csv", *options, "--inverse")
    assert ran == (0, "", "warped 7 landmarks from moving to fixed space\n")
    np.testing.assert_allclose(
        read_landmarks(tmp_path / "back.csv").numpy(), start, atol=5e-3
    )  # solved to 0.001 voxels


def test_labels_stay_labels(run: Any, blobs: Path, tmp_path: Path) -> None:
    data = (read_image(blobs / "moving_blob.nii.gz").data > 0.3).to(torch.int16) * 7
    write_image(Image(data, MOVING_GRID), tmp_path / "labels.nii.gz")
    run("warp", blobs / "field.nii.gz", tmp_path / "labels.nii.gz", tmp_path / "moved.nii.gz", "--mode", "label")
    moved = read_image(tmp_path / "moved.nii.gz")
    assert {*moved.data.unique().tolist()} == {0, 7}
    np.testing.assert_allclose(centre_of(moved), FIXED_MM[0], atol=1.0)


def test_onto_chooses_the_grid(run: Any, blobs: Path, tmp_path: Path) -> None:
    coarse = FIXED_GRID.with_spacing((4.0, 4.0, 4.0))
    write_image(Image(torch.zeros(1, *coarse.shape), coarse), tmp_path / "coarse.nii.gz")
    places = [blobs / "field.nii.gz", blobs / "moving_blob.nii.gz", tmp_path / "moved.nii.gz"]
    assert run("warp", *places, "--reference", tmp_path / "coarse.nii.gz", "--mode", "cubic").status == 0
    moved = read_image(tmp_path / "moved.nii.gz")
    assert moved.grid.is_close(coarse)
    np.testing.assert_allclose(centre_of(moved), FIXED_MM[0], atol=CLOSE_MM)


def test_an_affine_transform_has_no_grid(
    run: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = np.eye(4)
    shift[:3, 3] = MOVING_MM - FIXED_MM
    monkeypatch.setattr("convexadam.cli.transform_files.read_transform", lambda path, **_: Affine(shift))
    places = ["affine.tfm", blobs / "moving_blob.nii.gz", tmp_path / "moved.nii.gz"]
    ran = run("warp", *places)
    assert (ran.status, ran.error.count("\n")) == (1, 1)
    assert "--reference must be an image" in ran.error
    assert run("warp", *places, "--reference", blobs / "fixed_blob.nii.gz").status == 0
    np.testing.assert_allclose(centre_of(read_image(places[2])), FIXED_MM[0], atol=CLOSE_MM)
    write_landmarks(torch.zeros(1, 3), tmp_path / "zero.csv")
    options = ["--space", "voxel", "--moving", blobs / "moving_blob.nii.gz"]
    ran = run("warp", "affine.tfm", tmp_path / "zero.csv", tmp_path / "out.csv", *options)
    assert ran.status == 1
    assert "--fixed must be the fixed image" in ran.error


WRONG: dict[str, tuple[list[str], str]] = {
    "landmarks without a space": (["p.csv", "OUT.csv"], "--space must be mm (RAS+)"),
    "voxels without a moving image": (["p.csv", "OUT.csv", "--space", "voxel"], "--moving must be the moving image"),
    "landmarks to an image": (["p.csv", "OUT.nii.gz", "--space", "mm"], "must both be landmarks"),
    "an image to landmarks": (["moving_blob.nii.gz", "OUT.csv"], "must both be landmarks"),
    "a mode of landmarks": (["p.csv", "OUT.csv", "--space", "mm", "--mode", "linear"], "--mode must be omitted"),
    "a space of images": (["moving_blob.nii.gz", "OUT.nii.gz", "--space", "mm"], "--space must be omitted for images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(name: str, run: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(blobs)
    arguments, message = WRONG[name]
    ran = run("warp", "field.nii.gz", *(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert (ran.status, ran.out, ran.error.count("\n")) == (2, "", 1)
    assert message in ran.error
    assert not list(tmp_path.iterdir())
