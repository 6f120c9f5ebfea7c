"""Images of MetaImage, NRRD and DICOM, written and read with SimpleITK as witness."""

from __future__ import annotations

import locale
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import GRIDS, anatomy

from convexadam.errors import FileError, GeometryError, MissingExtraError
from convexadam.geometry import Grid, Image
from convexadam.io import read_image, write_image

sitk: Any = pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_simpleitk(name: str, channels: int, tmp_path: Path) -> None:
    """What SimpleITK writes after reading our NIfTI is what we read; and what we write, it reads the same."""
    grid = GRIDS[name]
    image = Image(torch.cat([anatomy(grid).data * (n + 1) for n in range(channels)]), grid)
    write_image(anatomy(grid), tmp_path / "a.nii.gz")
    one = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    theirs = one if channels == 1 else sitk.Compose([one * (n + 1) for n in range(channels)])
    for ending in ("mha", "mhd", "nrrd", "nii"):
        sitk.WriteImage(theirs, str(tmp_path / f"theirs.{ending}"))
        found = read_image(tmp_path / f"theirs.{ending}", channels=channels > 1)
        torch.testing.assert_close(found.data, image.data)
        assert found.grid.is_close(grid)
    for ending in ("mha", "nrrd"):
        write_image(image, tmp_path / f"ours.{ending}")
        again = sitk.ReadImage(str(tmp_path / f"ours.{ending}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(theirs))
        np.testing.assert_allclose(again.GetDirection(), one.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(again.GetOrigin(), one.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(again.GetSpacing(), one.GetSpacing(), atol=1e-6)
        shutil.copy(tmp_path / f"ours.{ending}", tmp_path / "copy.nii")  # the content decides
        assert torch.equal(read_image(tmp_path / "copy.nii", channels=channels > 1).data, image.data)


def test_vectors_are_no_image_unless_asked_for(tmp_path: Path) -> None:
    grid = GRIDS["oblique"]
    write_image(Image(anatomy(grid).data.expand(2, *grid.shape), grid), tmp_path / "a.mha")
    with pytest.raises(FileError, match=r"a\.mha.*2 values per voxel"):
        read_image(tmp_path / "a.mha")


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_damaged_files_are_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    write_image(anatomy(GRIDS["LAS"]), path)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=rf"a\.{ending}"):
            read_image(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    slanted = np.eye(4)
    slanted[0, 1] = 0.3
    for name in ("a.mha", "a.nrrd"):
        with pytest.raises(GeometryError, match="right angles"):
            write_image(Image(torch.zeros(1, 4, 5, 6), Grid((4, 5, 6), slanted)), tmp_path / name)
        with pytest.raises(FileError, match="not a folder"):
            write_image(anatomy(GRIDS["LAS"]), tmp_path / "missing" / name)
    with pytest.raises(FileError, match="change the ending"):
        write_image(anatomy(GRIDS["LAS"]), tmp_path / "a.mhd")
    assert list(tmp_path.iterdir()) == []


def test_without_simpleitk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(anatomy(GRIDS["LAS"]), tmp_path / "a.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    for path in (tmp_path / "a.mha", tmp_path):
        with pytest.raises(MissingExtraError, match=r"pip install 'convexadam-torch\[itk\]'"):
            read_image(path)
    with pytest.raises(MissingExtraError, match="writing"):
        write_image(anatomy(GRIDS["LAS"]), tmp_path / "b.mha")


def write_series(folder: Path, grid: Grid, *, series: str = "1.2.3", slip: float = 0.0) -> np.ndarray:
    """Slices along k in files whose names are in no order; returns the values ``[i, j, k]``."""
    folder.mkdir(exist_ok=True)
    values = np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape)
    affine = np.diag([-1.0, -1, 1, 1]) @ grid.affine
    row, column = (affine[:3, a] / grid.spacing_mm[a] for a in range(2))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    locale_before = locale.setlocale(locale.LC_ALL)
    for k in range(grid.shape[2]):
        piece = sitk.GetImageFromArray(values[:, :, k].T[None].copy())
        piece.SetSpacing(grid.spacing_mm)
        place = affine[:3, 3] + k * affine[:3, 2] + slip * k * row
        tags = {
            "0008|0060": "CT", "0020|000e": series, "0020|000d": "1.2", "0008|0018": f"{series}.{k + 1}",
            "0020|0032": "\\".join(f"{v:.6f}" for v in place),
            "0020|0037": "\\".join(f"{v:.6f}" for v in (*row, *column)),
        }  # fmt: skip
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{(k * 5) % 7}_{series}_{k}.dcm"))
        writer.Execute(piece)
    locale.setlocale(locale.LC_ALL, locale_before)  # writing DICOM, unlike reading it, sets that of the process to C
    return values


@pytest.mark.parametrize("name", ["LPS", "oblique", "anisotropic"])
def test_folders_with_a_series(name: str, tmp_path: Path) -> None:
    grid = Grid((6, 5, 7), GRIDS[name].affine)
    values = write_series(tmp_path / "ct", grid)
    for path in (tmp_path / "ct", str(tmp_path / "ct")):
        found = read_image(path)
        expected = Image(torch.from_numpy(values)[None], grid).canonical()
        assert found.canonical().grid.is_close(expected.grid)
        assert torch.equal(found.canonical().data.to(torch.int16), expected.data)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (b"\x28\x00\x11\x00", b"\xff\xff", "must claim at most"),  # columns
        (b"\x20\x00\x32\x00", b"\\\\", "must be 3 finite numbers"),  # position
        (b"\x08\x00\x60\x00", b"", "elements must end before the file does"),  # modality, whose length is changed
    ],
)
def test_a_damaged_slice_is_refused_before_memory_is_taken(
    tag: bytes, value: bytes, message: str, tmp_path: Path
) -> None:
    write_series(tmp_path, Grid((6, 5, 4)))
    slice_file = sorted(tmp_path.iterdir())[1]
    content = bytearray(slice_file.read_bytes())
    at = content.index(tag) + 8  # tag, type and length
    if value:
        content[at : at + 2] = value
    else:
        content[at - 4 : at + 4] = b"UN\0\0" + (2**31).to_bytes(4, "little")
    slice_file.write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_image(tmp_path)


def test_a_series_of_one_channel_with_leave(tmp_path: Path) -> None:
    grid = Grid((6, 5, 7), GRIDS["LPS"].affine)
    write_series(tmp_path, grid)
    assert torch.equal(read_image(tmp_path, channels=True).data, read_image(tmp_path).data)


def test_series_that_are_refused(tmp_path: Path) -> None:
    grid = Grid((6, 5, 7), GRIDS["oblique"].affine)
    with pytest.raises(FileError, match=r"exactly one DICOM series.*with none"):
        read_image(tmp_path)
    write_series(tmp_path / "two", grid)
    write_series(tmp_path / "two", grid, series="1.2.4")
    with pytest.raises(FileError, match=r"1\.2\.3.*\(7 files\).*1\.2\.4.*\(7 files\)"):
        read_image(tmp_path / "two")
    write_series(tmp_path / "gap", grid)
    next((tmp_path / "gap").glob("*_3.dcm")).unlink()
    with pytest.raises(FileError, match=r"got distances of 2\.5 to 5 mm; add missing slices"):
        read_image(tmp_path / "gap")
    write_series(tmp_path / "tilted", grid, slip=0.4)
    with pytest.raises(FileError, match="tilted gantry"):
        read_image(tmp_path / "tilted")
    write_series(tmp_path / "single", Grid((6, 5, 1), grid.affine))
    with pytest.raises(FileError, match="one slice"):
        read_image(tmp_path / "single")
    with pytest.raises(FileError, match=r"got one DICOM slice.*folder of the series"):
        read_image(next((tmp_path / "single").iterdir()))
