"""Fields of Learn2Reg as its evaluation uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import GRIDS, MOVING, anatomy, sheared, waves
from scipy.ndimage import map_coordinates, zoom

from convexadam.errors import FileError
from convexadam.geometry import DisplacementField, Grid
from convexadam.io import (
    check_learn2reg,
    check_learn2reg_2021,
    read_learn2reg,
    read_learn2reg_2021,
    read_learn2reg_voxels,
    write_learn2reg,
    write_learn2reg_2021,
)


@pytest.mark.parametrize("name", GRIDS)
def test_warps_as_the_evaluation_does(name: str, tmp_path: Path) -> None:
    """``map_coordinates(moving, identity + disp)``, on grids that differ."""
    fixed, moving = GRIDS[name], anatomy(MOVING)
    for transform in (waves(fixed), sheared()):
        write_learn2reg(transform, tmp_path / "a.nii.gz", fixed=fixed, moving=MOVING)
        found = read_learn2reg(tmp_path / "a.nii.gz", fixed, moving=MOVING)
        wanted = transform.to_displacement_field(fixed)
        torch.testing.assert_close(found.disp_mm, wanted.disp_mm.float(), atol=3e-5, rtol=0)
        import nibabel

        disp = np.moveaxis(np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj), -1, 0)  # type: ignore[attr-defined]
        warped = map_coordinates(moving.numpy(), np.indices(fixed.shape) + disp, order=1)
        np.testing.assert_allclose(warped, transform.warp(moving, fixed).numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 12, 10), (15, 13, 11)])
def test_halved_as_in_2021(shape: tuple[int, int, int], tmp_path: Path) -> None:
    grid = Grid(shape, GRIDS["oblique PIR"].affine)
    field = waves(grid)
    write_learn2reg_2021(field, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["arr_0"]
        stored = archive["arr_0"]
    assert stored.dtype == np.float16
    full = field.to_voxels().numpy()
    np.testing.assert_array_equal(stored, np.array([zoom(d, 0.5, order=2) for d in full]).astype(np.float16))
    assert stored.shape[1:] == tuple(round(n / 2) for n in shape)
    found = read_learn2reg_2021(tmp_path / "a.npz", grid).to_voxels().numpy()
    factors = [n / m for n, m in zip(shape, stored.shape[1:], strict=True)]
    np.testing.assert_allclose(found, [zoom(d.astype(np.float32), factors, order=2) for d in stored], atol=1e-5)
    assert np.abs(found - full).mean() < 0.1 * np.abs(full).mean()  # it is the same field


def test_hippocampus_is_not_halved(tmp_path: Path) -> None:
    grid = Grid((64, 64, 64))
    field = DisplacementField(torch.randn(3, 64, 64, 64, generator=torch.Generator().manual_seed(0)), grid)
    write_learn2reg_2021(field, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["arr_0"].shape == (3, 64, 64, 64)
    found = read_learn2reg_2021(tmp_path / "a.npz", grid)
    torch.testing.assert_close(found.disp_mm, field.disp_mm, atol=5 * 2.0**-11, rtol=0)
    with pytest.raises(FileError, match="a field of 2021 on this grid must be"):
        read_learn2reg_2021(tmp_path / "a.npz", Grid((64, 64, 60)))
    with pytest.raises(FileError, match=r"must end in \.npz"):
        write_learn2reg_2021(field, tmp_path / "a.nii.gz")


def test_what_can_be_handed_in(tmp_path: Path) -> None:
    field = waves(GRIDS["LPS"])
    for name in ("disp_0001_0000_0002_0001.npz", "disp_0001_0002.npz", "disp_0001_0000_0002_0001.nii.gz"):
        write_learn2reg(field, tmp_path / name)
        check_learn2reg(tmp_path / name, field.grid)
        check_learn2reg(tmp_path / name, field.grid.shape, modalities=(0, 1))
    with pytest.raises(FileError, match="must be the long one"):
        check_learn2reg(tmp_path / "disp_0001_0002.npz", field.grid, modalities=(0, 0))
    with pytest.raises(FileError, match=r"the modalities in its name must be \(0, 0\), got \(0, 1\)"):
        check_learn2reg(tmp_path / "disp_0001_0000_0002_0001.npz", field.grid, modalities=(0, 0))
    with pytest.raises(FileError, match=r"shape must be \(9, 11, 14, 3\), got \(14, 11, 9, 3\)"):
        check_learn2reg(tmp_path / "disp_0001_0002.npz", (9, 11, 14))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("disp_1_2.npz", np.zeros((4, 5, 6, 3)), "four digits each"),
        ("disp_0001_0002_0003.npz", np.zeros((4, 5, 6, 3)), "four digits each"),
        ("warp_0001_0002.npz", np.zeros((4, 5, 6, 3)), "four digits each"),
        ("disp_0001_0002.npz", np.zeros((3, 2, 2, 3)), "a field of 2021"),
        ("disp_0001_0002.npz", np.zeros((3, 4, 5, 6)), "a field of 2021"),
        ("disp_0001_0002.npz", np.zeros((4, 5, 6, 3), int), "its type must be .*, got int64"),
        ("disp_0001_0002.npz", np.full((4, 5, 6, 3), np.inf), "NaN or Inf"),
        ("disp_1_2.npz", np.zeros((4, 5, 6), int), "four digits.*; its shape.*; its type"),
    ],
)
def test_what_cannot_be_handed_in(name: str, values: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / name, values)
    with pytest.raises(FileError, match=message):
        check_learn2reg(tmp_path / name, (4, 5, 6))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file"):
        check_learn2reg(tmp_path / "disp_0001_0002.npz", (4, 5, 6))
    (tmp_path / "disp_0001_0002.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(FileError, match="damaged"):
        check_learn2reg(tmp_path / "disp_0001_0002.npz", (4, 5, 6))
    with pytest.raises(FileError, match=r"end in \.npz or \.nii\.gz"):
        check_learn2reg(tmp_path / "disp_0001_0002.nii", (4, 5, 6))


@pytest.mark.parametrize("name", ["disp.npz", "disp.nii.gz"])
def test_voxels_come_to_the_last_bit(name: str, tmp_path: Path) -> None:
    import nibabel

    values = np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    if name.endswith("npz"):
        np.savez(tmp_path / name, anything=values.astype(np.float16))
        values = values.astype(np.float16).astype(np.float32)
    else:
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / name)  # type: ignore[attr-defined]
    found = read_learn2reg_voxels(tmp_path / name, (4, 5, 6))
    assert found.dtype == np.float64
    assert np.array_equal(found, np.moveaxis(values, -1, 0))
    with pytest.raises(FileError, match=r"its shape must be \(6, 5, 4, 3\), got \(4, 5, 6, 3\)"):
        read_learn2reg_voxels(tmp_path / name, (6, 5, 4))


def test_what_could_be_handed_in_in_2021(tmp_path: Path) -> None:
    field = waves(Grid((16, 13, 10)))
    write_learn2reg_2021(field, tmp_path / "disp_0001_0002.npz")
    check_learn2reg_2021(tmp_path / "disp_0001_0002.npz", (16, 13, 10))
    np.savez(tmp_path / "disp_0001_0000_0002_0001.npz", np.full((8, 6, 5, 3), np.nan, np.float32))
    with pytest.raises(FileError, match=r"must be disp_FFFF_MMMM.npz .*; its shape .*; its type .*; its values .* NaN"):
        check_learn2reg_2021(tmp_path / "disp_0001_0000_0002_0001.npz", (16, 13, 10))
    np.savez(tmp_path / "disp_0003_0004.npz", np.zeros((3, 64, 64, 64), np.float16))
    check_learn2reg_2021(tmp_path / "disp_0003_0004.npz", (64, 64, 64))
