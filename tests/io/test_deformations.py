"""Deformations of SPM and NiftyReg as these programs write them, and what must not be taken for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from foreign import GRIDS, about_centre, sheared, turned, waves

from convexadam import FileError, Grid, read_transform, write_transform
from convexadam.geometry import Affine, Composite, DisplacementField, Transform, compose
from convexadam.io import write_itk_field

GRID = GRIDS["oblique PIR"]
VOXELS = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in GRID.shape))
FLIP = torch.tensor([-1.0, -1, 1], dtype=torch.float64)


def truth() -> Composite | Transform:
    return compose(waves(GRID), sheared())


def save(path: Path, vectors: torch.Tensor, *, intent: int = 1007, name: str = "", p1: float = 0) -> Path:
    """Save vectors ``[n, 3]`` of all voxels with nibabel."""
    values = vectors.reshape(*GRID.shape, 1, 3).numpy().astype(np.float32)
    image: Any = nibabel.Nifti1Image(values, GRID.affine)
    image.set_sform(GRID.affine, 1)
    image.set_qform(GRID.affine, 1)
    image.header["intent_code"], image.header["intent_name"], image.header["intent_p1"] = intent, name, p1
    nibabel.save(image, path)
    return path


def positions() -> torch.Tensor:
    return truth()(GRID.index_to_world(VOXELS))


def assert_right(found: Transform) -> None:
    points = GRID.index_to_world(VOXELS)
    torch.testing.assert_close(found.warp_points(points, space="mm"), positions(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["y_subject.nii", "iy_subject.nii.gz"])
def test_spm(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, positions(), name="Mapping")
    assert_right(read_transform(path))
    with pytest.raises(FileError, match="format='spm'"):
        read_transform(path, format="itk")


def test_spm_of_the_point_zero(tmp_path: Path) -> None:
    values = np.zeros((3, 3, 3, 1, 3), np.float32)
    values[..., 0, :] = np.moveaxis(np.indices((3, 3, 3)), 0, -1) + np.array([1, 2, 3])
    image: Any = nibabel.Nifti1Image(values, np.eye(4))
    image.header["intent_code"], image.header["intent_name"] = 1007, "Mapping"
    nibabel.save(image, tmp_path / "y.nii")
    point = torch.zeros(1, 3, dtype=torch.float64)
    assert read_transform(tmp_path / "y.nii").warp_points(point, space="mm").tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("intent", [1007, 0])
def test_unnamed_positions_are_told_by_their_values(intent: int, tmp_path: Path) -> None:
    path = save(tmp_path / "field.nii.gz", positions(), intent=intent)
    with pytest.raises(FileError, match="format='spm'"):
        read_transform(path)
    assert_right(read_transform(path, format="spm"))


def test_positions_under_the_intent_of_displacements(tmp_path: Path) -> None:
    path = save(tmp_path / "field.nii.gz", positions(), intent=1006)
    with pytest.raises(FileError, match="absolute positions"):
        read_transform(path)


def test_positions_in_lps_are_no_displacements(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="absolute positions"):
        read_transform(save(tmp_path / "field.nii.gz", positions() * FLIP))


@pytest.mark.parametrize(("p1", "relative"), [(0, False), (1, True)])
def test_niftyreg(p1: int, relative: bool, tmp_path: Path) -> None:
    vectors = positions() - GRID.index_to_world(VOXELS) if relative else positions()
    assert_right(read_transform(save(tmp_path / "nrr.nii.gz", vectors, name="NREG_TRANS", p1=p1)))


@pytest.mark.parametrize(
    ("p1", "what"),
    [
        (2, "cubic control points"),
        (3, "velocities"),
        (4, "velocities"),
        (5, "grid of velocities"),
        (6, "linear control"),
    ],
)
def test_niftyreg_refused_by_name(p1: int, what: str, tmp_path: Path) -> None:
    path = save(tmp_path / "cpp.nii", positions(), name="NREG_TRANS", p1=p1)
    for named in (None, "niftyreg"):
        with pytest.raises(FileError, match=rf"{what}.*reg_transform"):
            read_transform(path, format=named)


@pytest.mark.parametrize("name", ["Mapping", "NREG_TRANS"])
def test_a_name_that_the_values_contradict(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "field.nii", positions() - GRID.index_to_world(VOXELS), name=name)
    with pytest.raises(FileError, match="must be positions, got displacements"):
        read_transform(path)


@pytest.mark.parametrize("name", ["spm", "niftyreg"])
def test_written_files_hold_positions(name: str, tmp_path: Path) -> None:
    write_transform(truth(), tmp_path / "y.nii", format=name, fixed=GRID)
    image: Any = nibabel.load(tmp_path / "y.nii")
    found = torch.from_numpy(np.asarray(image.dataobj)[..., 0, :].reshape(-1, 3)).double()
    torch.testing.assert_close(found, positions(), atol=2e-5, rtol=0)
    assert (int(image.header["intent_code"]), float(image.header["intent_p1"])) == (1007, 0)
    assert_right(read_transform(tmp_path / "y.nii"))


MAPS = {
    "identity": Affine(),
    "shift": about_centre(np.eye(3), (900.0, -800.0, 700.0)),
    "half turn": about_centre(np.diag([-1.0, -1, 1]), (0.0, 0, 0)),
    "half turn about R": about_centre(np.diag([1.0, -1, -1]), (0.0, 0, 0)),
    "mirror": about_centre(np.diag([-1.0, 1, 1]), (5.0, 0, 0)),
    "quarter": about_centre(turned(90, 90), (0.0, 0, 0)),
    "third": about_centre(turned(120, 0), (0.0, 0, 0)),
    "smaller": about_centre(np.eye(3) * 0.6, (0.0, 0, 0)),
    "larger": about_centre(np.eye(3) * 1.4, (0.0, 0, 0)),
    "flatter": about_centre(np.diag([1.0, 1.3, 0.6]), (0.0, 0, 0)),
}


@pytest.mark.parametrize("grid", ["cubic", "LPS", "oblique"])
@pytest.mark.parametrize("name", MAPS)
def test_fields_of_itk_stay_readable(name: str, grid: str, tmp_path: Path) -> None:
    """Whatever the motion, displacements are not taken for positions, nor positions for displacements."""
    transform = compose(waves(GRIDS[grid], torch.float64), MAPS[name])
    field = transform.to_displacement_field(GRIDS[grid])
    write_itk_field(field, tmp_path / "itk.nii.gz")
    write_transform(field, tmp_path / "nifti.nii.gz", format="nifti")
    write_transform(field, tmp_path / "y.nii.gz", format="spm")
    for file in ("itk.nii.gz", "nifti.nii.gz", "y.nii.gz"):
        found = read_transform(tmp_path / file)
        assert isinstance(found, DisplacementField)
        torch.testing.assert_close(found.disp_mm, field.disp_mm.float(), atol=2e-3, rtol=0)


def test_a_field_of_noise_is_one_of_displacements(generator: torch.Generator, tmp_path: Path) -> None:
    noise = 30 * torch.randn(3, *GRID.shape, generator=generator)
    for grid in (GRID, Grid((14, 1, 9)), Grid((1, 1, 1))):
        i, j, k = grid.shape
        write_itk_field(DisplacementField(noise[:, :i, :j, :k], grid), tmp_path / "field.nii.gz")
        read_transform(tmp_path / "field.nii.gz")


@pytest.mark.parametrize("spacing", [(0.002, 0.002, 0.005), (0.7, 0.7, 0.7), (1.5, 2.0, 3.1), (40.0, 25.0, 60.0)])
def test_voxels_of_any_size_against_simpleitk(spacing: tuple[float, float, float], tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    shape, unit = (8, 7, 6), min(spacing)
    affine = np.eye(4)
    affine[:3, :3] = turned(20, 30) @ np.diag(spacing)
    affine[:3, 3] = 11 * unit, -7 * unit, 30 * unit
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)
    moved_index = index + 0.4 * np.sin(index[..., ::-1]) + [0.8, -1.1, 0.3]
    points, moved = (v @ affine[:3, :3].T + affine[:3, 3] for v in (index, moved_index))
    for name, values, title in (
        ("y_1.nii", moved, "Mapping"),
        ("unnamed.nii", moved, ""),
        ("itk.nii", moved - points, ""),
    ):
        flips = [-1, -1, 1] if name == "itk.nii" else [1, 1, 1]
        image: Any = nibabel.Nifti1Image((values * flips)[:, :, :, None].astype(np.float32), affine)
        image.set_sform(affine, 1)
        image.header["intent_code"], image.header["intent_name"] = 1007, title
        nibabel.save(image, tmp_path / name)
    field = sitk.ReadImage(str(tmp_path / "itk.nii"), sitk.sitkVectorFloat64)
    witness = sitk.DisplacementFieldTransform(field)
    inner = np.random.default_rng(0).uniform(0.5, np.array(shape) - 1.5, (20, 3)) @ affine[:3, :3].T + affine[:3, 3]
    expected = np.array([witness.TransformPoint(p) for p in inner * [-1, -1, 1]]) * [-1, -1, 1]
    for name in ("y_1.nii", "itk.nii"):
        found = read_transform(tmp_path / name).warp_points(torch.from_numpy(inner), space="mm")
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4 * unit)
    with pytest.raises(FileError, match="absolute positions"):
        read_transform(tmp_path / "unnamed.nii")
