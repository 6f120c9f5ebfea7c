"""Displacement fields as other programs read them; SimpleITK is the witness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam.errors import FileError, GeometryError
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.io import (
    read_itk_field,
    read_learn2reg,
    write_image,
    write_itk_field,
    write_learn2reg,
)

SHAPE = (14, 11, 9)
SPACING = (1.3, 0.9, 2.5)
PIR = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])


def turned(about_x: float, about_z: float) -> np.ndarray:
    x, z = np.deg2rad((about_x, about_z))
    return np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    )


def grid_along(directions: np.ndarray) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    affine[:3, 3] = (-20.5, 33.25, 12)
    return Grid(SHAPE, affine)


GRIDS = {
    "RAS": grid_along(np.eye(3)),
    "LAS": grid_along(np.diag([-1.0, 1, 1])),
    "LPS": grid_along(np.diag([-1.0, -1, 1])),
    "PIR": grid_along(PIR),
    "oblique": grid_along(turned(25, -40)),
    "oblique PIR": grid_along(turned(-15, 30) @ PIR),
}

every_grid = pytest.mark.parametrize("name", GRIDS)


def random_transform(grid: Grid, size: float = 2.0) -> DisplacementField:
    generator = torch.Generator().manual_seed(0)
    return DisplacementField(size * torch.randn(3, *grid.shape, generator=generator), grid)


def smooth_transform(grid: Grid) -> DisplacementField:
    """Waves of up to 1.5 mm along each of R, A and S, all different."""
    ticks = [torch.linspace(0, 3, n) for n in grid.shape]
    i, j, k = torch.meshgrid(*ticks, indexing="ij")
    return DisplacementField(torch.stack([1.5 * torch.sin(i + j), torch.cos(j - k), 0.8 * torch.sin(k + 2 * i)]), grid)


@every_grid
def test_itk_round_trip(name: str, tmp_path: Path) -> None:
    transform = random_transform(GRIDS[name])
    for ending in (".nii", ".nii.gz"):
        write_itk_field(transform, tmp_path / f"field{ending}")
        found = read_itk_field(str(tmp_path / f"field{ending}"))
        assert found.grid.is_close(transform.grid)
        assert torch.equal(found.disp_mm, transform.disp_mm)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["field.nii", "field.nii.gz"]


def test_itk_layout(tmp_path: Path) -> None:
    disp_mm = torch.zeros(3, *SHAPE, dtype=torch.float64)
    disp_mm[:, 1, 2, 3] = torch.tensor([5.0, 6, 7])
    write_itk_field(DisplacementField(disp_mm, GRIDS["RAS"]), tmp_path / "a.nii.gz")
    nifti: Any = nibabel.load(tmp_path / "a.nii.gz")
    assert nifti.shape == (*SHAPE, 1, 3)
    assert int(nifti.header["intent_code"]) == 1007
    assert int(nifti.header["dim"][0]) == 5
    assert nifti.get_data_dtype() == np.float32
    assert (int(nifti.header["qform_code"]), int(nifti.header["sform_code"])) == (1, 1)
    assert nifti.get_fdata()[1, 2, 3, 0].tolist() == [-5, -6, 7]


@every_grid
def test_simpleitk_moves_points_alike(name: str, tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    grid = GRIDS[name]
    transform = random_transform(grid)
    write_itk_field(transform, tmp_path / "field.nii.gz")
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64))
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(50, 3, generator=generator, dtype=torch.float64) * (torch.tensor(SHAPE) - 1.2) + 0.1
    flip = torch.tensor([-1.0, -1, 1], dtype=torch.float64)
    points_lps = grid.index_to_world(inside) * flip
    moved_lps = torch.tensor([theirs.TransformPoint(p) for p in points_lps.tolist()], dtype=torch.float64)
    ours = transform(points_lps * flip) * flip
    torch.testing.assert_close(ours, moved_lps, atol=1e-3, rtol=0)
    assert float((moved_lps - points_lps).norm(dim=1).min()) > 0.1  # they do move
    torch.testing.assert_close(transform.warp_points(points_lps, space="lps_mm"), moved_lps, atol=1e-3, rtol=0)


@every_grid
def test_simpleitk_warps_images_alike(name: str, tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    fixed = GRIDS[name]
    # The moving image covers the fixed one with a margin, in other voxels along other axes.
    around = np.eye(4)
    around[:3, :3] = turned(10, 5) @ np.diag([1.0, -1, 1]) * 1.5
    centre = fixed.index_to_world((torch.tensor([SHAPE]) - 1) / 2)[0].numpy()
    around[:3, 3] = centre - around[:3, :3] @ np.array([15.5, 15.5, 15.5])
    moving_grid = Grid((32, 32, 32), around)
    i, j, k = torch.meshgrid(*(torch.linspace(0, 6, 32) for _ in range(3)), indexing="ij")
    moving = Image((torch.sin(i) + torch.cos(1.3 * j) + torch.sin(0.7 * k + i))[None], moving_grid)
    transform = smooth_transform(fixed)
    write_itk_field(transform, tmp_path / "field.nii.gz")
    write_image(moving, tmp_path / "moving.nii.gz")
    write_image(Image(torch.zeros(1, *SHAPE), fixed), tmp_path / "fixed.nii.gz")
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64))
    names = (str(tmp_path / "moving.nii.gz"), str(tmp_path / "fixed.nii.gz"))
    resampled = sitk.Resample(sitk.ReadImage(names[0]), sitk.ReadImage(names[1]), theirs, sitk.sitkLinear)
    expected = torch.from_numpy(sitk.GetArrayFromImage(resampled).T.copy())
    found = transform.warp(moving).data[0]
    inner = (slice(1, -1),) * 3
    spread = float(moving.data.max() - moving.data.min())
    assert float((found - expected)[inner].abs().max()) < 1e-3 * spread
    still = DisplacementField(torch.zeros(3, *SHAPE), fixed).warp(moving).data[0]
    assert float((found - still)[inner].abs().max()) > 0.05 * spread  # the field matters


def test_itk_has_no_sheared_grids(tmp_path: Path) -> None:
    affine = np.diag([*SPACING, 1.0])
    affine[0, 1] = 0.4
    with pytest.raises(GeometryError, match="right angles"):
        write_itk_field(random_transform(Grid(SHAPE, affine)), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "intent", "message"),
    [
        ((*SHAPE, 3), 1007, "shape"),
        ((*SHAPE, 1, 2), 1007, "shape"),
        (SHAPE, 0, "shape"),
        ((*SHAPE, 1, 3), 0, "intent .* got 0"),
        ((*SHAPE, 1, 3), 1006, "intent .* got 1006"),
    ],
)
def test_itk_refuses_other_layouts(shape: tuple[int, ...], intent: int, message: str, tmp_path: Path) -> None:
    nifti: Any = nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4))
    nifti.header["intent_code"] = intent
    nibabel.save(nifti, tmp_path / "field.nii")
    with pytest.raises(FileError, match=rf"cannot read \S*field\.nii: the {message}"):
        read_itk_field(tmp_path / "field.nii")


def test_itk_reads_double(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(*SHAPE, 1, 3))
    nifti: Any = nibabel.Nifti1Image(vectors, GRIDS["LPS"].affine)
    nifti.header["intent_code"] = 1007
    nibabel.save(nifti, tmp_path / "field.nii")
    found = read_itk_field(tmp_path / "field.nii")
    assert found.disp_mm.dtype == torch.float64
    np.testing.assert_array_equal(found.disp_mm[0], -vectors[..., 0, 0])
    np.testing.assert_array_equal(found.disp_mm[2], vectors[..., 0, 2])


def test_broken_fields_are_named(tmp_path: Path) -> None:
    path = tmp_path / "field.nii.gz"
    write_itk_field(random_transform(GRIDS["RAS"]), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(FileError, match=r"cannot read .* from \S*field\.nii\.gz"):
        read_itk_field(path)
    nifti: Any = nibabel.Nifti1Image(np.full((*SHAPE, 1, 3), np.nan, np.float32), np.eye(4))
    nifti.header["intent_code"] = 1007
    nibabel.save(nifti, path)
    with pytest.raises(FileError, match=r"field\.nii\.gz.*NaN"):
        read_itk_field(path)
    with pytest.raises(FileError, match="no file"):
        read_itk_field(tmp_path / "missing.nii.gz")


@every_grid
def test_learn2reg_round_trip(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name]
    transform = random_transform(grid)
    write_learn2reg(transform, tmp_path / "disp_0001_0002.nii.gz")
    found = read_learn2reg(tmp_path / "disp_0001_0002.nii.gz", grid)
    torch.testing.assert_close(found.disp_mm, transform.disp_mm, atol=1e-5, rtol=0)
    write_learn2reg(transform, tmp_path / "disp_0001_0002.npz")
    found = read_learn2reg(tmp_path / "disp_0001_0002.npz", grid)
    largest = float(transform.to_voxels().abs().max())
    allowed = largest * 2.0**-11  # float16 rounds to 11 bits
    assert float((found.to_voxels() - transform.to_voxels()).abs().max()) <= allowed + 1e-5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disp_0001_0002.nii.gz", "disp_0001_0002.npz"]


def test_learn2reg_layout(tmp_path: Path) -> None:
    """One voxel along j of a grid whose j runs along -S is -0.9 mm along S, and (0, 1, 0) in the file."""
    grid = GRIDS["PIR"]
    disp_mm = torch.zeros(3, *SHAPE)
    disp_mm[2, 1, 2, 3] = -0.9
    transform = DisplacementField(disp_mm, grid)
    write_learn2reg(transform, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["arr_0"]
        assert archive["arr_0"].dtype == np.float16
        assert archive["arr_0"].shape == (*SHAPE, 3)
        assert archive["arr_0"][1, 2, 3].tolist() == [0, 1, 0]
    write_learn2reg(transform, tmp_path / "a.nii.gz")
    nifti: Any = nibabel.load(tmp_path / "a.nii.gz")
    assert nifti.get_data_dtype() == np.float32
    np.testing.assert_allclose(nifti.get_fdata()[1, 2, 3], [0, 1, 0], atol=1e-6)


def test_learn2reg_refusals(tmp_path: Path) -> None:
    grid = GRIDS["RAS"]
    with pytest.raises(FileError, match="ending"):
        write_learn2reg(random_transform(grid), tmp_path / "a.nii")
    with pytest.raises(FileError, match="not a folder"):
        write_learn2reg(random_transform(grid), tmp_path / "missing" / "a.npz")
    old = np.zeros((3, *SHAPE), np.float16)
    np.savez(tmp_path / "old.npz", old)
    with pytest.raises(FileError, match=r"old\.npz: the shape .* got \(3, 14"):
        read_learn2reg(tmp_path / "old.npz", grid)
    np.savez(tmp_path / "two.npz", old, old)
    with pytest.raises(FileError, match="exactly one array"):
        read_learn2reg(tmp_path / "two.npz", grid)
    np.savez(tmp_path / "objects.npz", np.array([None, 1]))
    (tmp_path / "text.npz").write_text("no archive")
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, old)
    for name in ("objects", "text", "cut", "array"):
        with pytest.raises(FileError, match=rf"{name}\.npz"):
            read_learn2reg(tmp_path / f"{name}.npz", grid)


def test_any_key_of_an_archive_will_do(tmp_path: Path) -> None:
    disp = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    np.savez(tmp_path / "a.npz", field=disp)
    found = read_learn2reg(tmp_path / "a.npz", GRIDS["oblique"])
    torch.testing.assert_close(found.to_voxels().permute(1, 2, 3, 0), torch.from_numpy(disp))
