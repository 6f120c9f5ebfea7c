"""Matrices and fields of FSL against its own definition of coordinates, written out voxel by voxel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from foreign import GRIDS, MOVING, RIGHT_HANDED, sheared, voxel_points, waves

from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, DisplacementField, Grid
from convexadam.io import read_fsl, read_transform, write_fsl, write_transform

every_pair = pytest.mark.parametrize(
    ("name", "moving"),
    list(itertools.product(GRIDS, [MOVING, RIGHT_HANDED])),
    ids=lambda value: value if isinstance(value, str) else value.orientation,
)


def fsl_mm(index: np.ndarray, grid: Grid) -> np.ndarray:
    """Index times voxel size, the first axis from its far end where the axes are right-handed."""
    index = np.array(index, dtype=float)
    if np.dot(np.cross(grid.affine[:3, 0], grid.affine[:3, 1]), grid.affine[:3, 2]) > 0:
        index[0] = grid.shape[0] - 1 - index[0]
    return index * grid.spacing_mm


def index_of(point_mm: np.ndarray, grid: Grid) -> np.ndarray:
    return np.linalg.solve(grid.affine[:3, :3], point_mm - grid.affine[:3, 3])


def test_both_kinds_of_grids_are_tried() -> None:
    handed = {float(np.sign(np.linalg.det(grid.affine))) for grid in GRIDS.values()}
    assert handed == {-1.0, 1.0}
    assert np.linalg.det(MOVING.affine) * np.linalg.det(RIGHT_HANDED.affine) < 0


@every_pair
def test_matrix(name: str, moving: Grid, tmp_path: Path) -> None:
    """FLIRT: coordinates of the input (moving) image to those of the reference (fixed) image."""
    fixed, affine = GRIDS[name], sheared()
    write_transform(affine, tmp_path / "a.mat", format="fsl", fixed=fixed, moving=moving)
    matrix = np.loadtxt(tmp_path / "a.mat")
    indices, points = voxel_points(fixed)
    for index, target in zip(indices.numpy(), affine(points).numpy(), strict=True):
        there = np.append(fsl_mm(index_of(target, moving), moving), 1)
        np.testing.assert_allclose((matrix @ there)[:3], fsl_mm(index, fixed), atol=1e-9)
    np.savetxt(tmp_path / "theirs.mat", matrix, fmt="%.10f")  # as FLIRT prints it
    found = read_transform(tmp_path / "theirs.mat", format="fsl", fixed=fixed, moving=moving)
    assert isinstance(found, Affine)
    np.testing.assert_allclose(found.matrix, affine.matrix, atol=1e-7)


@every_pair
def test_matrix_as_nitransforms_has_it(name: str, moving: Grid, tmp_path: Path) -> None:
    linear: Any = pytest.importorskip("nitransforms.io.fsl")
    images = [nibabel.Nifti1Image(np.zeros(grid.shape, np.uint8), grid.affine) for grid in (GRIDS[name], moving)]
    write_fsl(sheared(), tmp_path / "a.mat", fixed=GRIDS[name], moving=moving)
    found = linear.FSLLinearTransform.from_string((tmp_path / "a.mat").read_text())
    np.testing.assert_allclose(found.to_ras(reference=images[0], moving=images[1]), sheared().matrix, atol=1e-6)


@every_pair
def test_field(name: str, moving: Grid, tmp_path: Path) -> None:
    """Relative field: coordinates in the input image minus coordinates in the reference image, in mm."""
    fixed = GRIDS[name]
    field = waves(fixed)
    write_transform(field, tmp_path / "warp.nii.gz", format="fsl", moving=moving)
    nifti: Any = nibabel.load(tmp_path / "warp.nii.gz")
    assert (nifti.shape, int(nifti.header["intent_code"])) == ((*fixed.shape, 3), 2006)
    np.testing.assert_allclose(nifti.affine, fixed.affine, atol=1e-5)
    vectors = nifti.get_fdata()
    indices, points = voxel_points(fixed)
    for index, target in zip(indices.numpy(), field(points).numpy(), strict=True):
        expected = fsl_mm(index_of(target, moving), moving) - fsl_mm(index, fixed)
        np.testing.assert_allclose(vectors[tuple(index)], expected, atol=1e-4)  # float32 within 100 mm
    found = read_transform(tmp_path / "warp.nii.gz", moving=moving)  # the intent says what it is
    assert isinstance(found, DisplacementField)
    torch.testing.assert_close(found.disp_mm.double(), field.disp_mm, atol=1e-4, rtol=0)
    header_only: Any = nibabel.Nifti1Image(vectors.astype(np.float32), nifti.affine)  # as convertwarp leaves it
    nibabel.save(header_only, tmp_path / "bare.nii.gz")
    found = read_transform(tmp_path / "bare.nii.gz", format="fsl", fixed=fixed, moving=moving)
    torch.testing.assert_close(found.to_displacement_field(fixed).disp_mm.double(), field.disp_mm, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", GRIDS)
def test_absolute_positions_are_refused(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    write_fsl(waves(grid), tmp_path / "warp.nii.gz", fixed=None, moving=grid)
    nifti: Any = nibabel.load(tmp_path / "warp.nii.gz")
    own = np.array([fsl_mm(np.array(index), grid) for index in np.ndindex(grid.shape)]).reshape(*grid.shape, 3)
    nibabel.save(nibabel.Nifti1Image(nifti.get_fdata() + own, grid.affine, nifti.header), tmp_path / "abs.nii.gz")
    with pytest.raises(FileError, match=r"abs\.nii\.gz: .* got absolute positions.*--relout"):
        read_fsl(tmp_path / "abs.nii.gz", fixed=grid, moving=grid)


def test_refusals(tmp_path: Path) -> None:
    grid = GRIDS["oblique"]
    write_fsl(waves(grid), tmp_path / "warp.nii.gz", fixed=None, moving=grid)
    with pytest.raises(FileError, match=r"must be the fixed grid Grid.*got Grid"):
        read_fsl(tmp_path / "warp.nii.gz", fixed=GRIDS["LAS"], moving=grid)
    nifti: Any = nibabel.load(tmp_path / "warp.nii.gz")
    nifti.header["intent_code"] = 2007
    nibabel.save(nifti, tmp_path / "coefficients.nii.gz")
    with pytest.raises(FileError, match="coefficients"):
        read_fsl(tmp_path / "coefficients.nii.gz", fixed=None, moving=grid)
    nibabel.save(nibabel.Nifti1Image(np.zeros(grid.shape, np.float32), grid.affine), tmp_path / "image.nii.gz")
    with pytest.raises(FileError, match=r"of FSL must be \(i, j, k, 3\), got"):
        read_fsl(tmp_path / "image.nii.gz", fixed=None, moving=grid)
    for matrix in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        np.savetxt(tmp_path / "a.mat", matrix)
        with pytest.raises(FileError, match=r"a\.mat"):
            read_fsl(tmp_path / "a.mat", fixed=grid, moving=grid)
    with pytest.raises(ConfigError, match="fixed="):
        write_fsl(Affine(), tmp_path / "b.mat", fixed=None, moving=grid)
