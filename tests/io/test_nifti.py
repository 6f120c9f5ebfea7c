"""NIfTI images: round trips, types, and files that are not what their names promise."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam.errors import FileError, InputError
from convexadam.geometry import Grid, Image
from convexadam.io import read_image, write_image

SHAPE = (5, 7, 4)
SPACING = (1.3, 0.7, 3.0)


def turned(about_x: float, about_z: float) -> np.ndarray:
    x, z = np.deg2rad((about_x, about_z))
    return np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    )


def grid_along(directions: np.ndarray) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * SPACING
    affine[:3, 3] = (-80.5, 33.25, 120)
    return Grid(SHAPE, affine)


GRIDS = {
    "RAS": grid_along(np.eye(3)),
    "LAS": grid_along(np.diag([-1.0, 1, 1])),
    "LPS": grid_along(np.diag([-1.0, -1, 1])),
    "PIR": grid_along(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])),
    "oblique": grid_along(turned(25, -40)),
    "oblique PIR": grid_along(turned(-15, 30) @ np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])),
}


def noise(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", GRIDS)
def test_round_trip(name: str, ending: str, tmp_path: Path) -> None:
    image = Image(noise(), GRIDS[name])
    path = tmp_path / f"image{ending}"
    write_image(image, path)
    found = read_image(str(path))
    assert torch.equal(found.data, image.data)
    assert found.grid.is_close(image.grid)
    assert found.grid.orientation == image.grid.orientation
    header: Any = nibabel.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), image.grid.affine, atol=1e-4)
    np.testing.assert_allclose(header.get_sform(), image.grid.affine, atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"


def test_voxels_keep_their_places(tmp_path: Path) -> None:
    data = torch.zeros(1, *SHAPE)
    data[0, 1, 5, 2] = 3
    write_image(Image(data, GRIDS["PIR"]), tmp_path / "a.nii.gz")
    loaded: Any = nibabel.load(tmp_path / "a.nii.gz")
    assert np.argwhere(loaded.get_fdata()).tolist() == [[1, 5, 2]]


def test_a_sheared_grid_has_an_sform_alone(tmp_path: Path) -> None:
    affine = np.diag([*SPACING, 1.0])
    affine[0, 1] = 0.4
    image = Image(noise(), Grid(SHAPE, affine))
    write_image(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").grid.is_close(image.grid)
    header: Any = nibabel.load(tmp_path / "a.nii").header
    assert int(header["qform_code"]) == 0


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (torch.bool, "uint8"),
        (torch.uint8, "uint8"),
        (torch.int8, "int8"),
        (torch.int16, "int16"),
        (torch.int32, "int32"),
        (torch.int64, "int32"),
        (torch.float16, "float32"),
        (torch.bfloat16, "float32"),
        (torch.float32, "float32"),
        (torch.float64, "float64"),
    ],
)
def test_types_written(dtype: torch.dtype, stored: str, tmp_path: Path) -> None:
    data = noise(dtype)
    write_image(Image(data, GRIDS["RAS"]), tmp_path / "a.nii.gz")
    loaded: Any = nibabel.load(tmp_path / "a.nii.gz")
    assert loaded.get_data_dtype() == stored
    found = read_image(tmp_path / "a.nii.gz").data
    assert str(found.dtype) == f"torch.{stored}"
    assert torch.equal(found.double(), data.double())


def test_large_int64_stays(tmp_path: Path) -> None:
    data = torch.full((1, *SHAPE), -(2**40))
    with pytest.warns(UserWarning, match="written as int64"):
        write_image(Image(data, GRIDS["RAS"]), tmp_path / "a.nii")
    assert torch.equal(read_image(tmp_path / "a.nii").data, data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [("u1", torch.uint8), ("i2", torch.int16), ("u2", torch.int32), ("u4", torch.int64), ("f4", torch.float32)],
)
def test_types_and_byte_orders_read(stored: str, expected: torch.dtype, order: str, tmp_path: Path) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(order + stored)
    if stored == "u2":
        values[0, 0, 1] = 65535
    header: Any = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(values.dtype)
    nifti: Any = nibabel.Nifti1Image(values, GRIDS["LAS"].affine, header)
    nibabel.save(nifti, tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == np.array(348, order + "i4").tobytes()
    found = read_image(tmp_path / "a.nii")
    assert found.data.dtype == expected
    np.testing.assert_array_equal(found.numpy(), values)
    assert found.grid.is_close(GRIDS["LAS"])


def test_scaled_values_are_floating_point(tmp_path: Path) -> None:
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    nifti: Any = nibabel.Nifti1Image(values, np.eye(4))
    nifti.header.set_slope_inter(0.5, -1024)
    (tmp_path / "a.nii").write_bytes(b"")
    nibabel.save(nifti, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())  # nibabel would scale the values back: set the fields by hand
    raw[112:120] = np.array([0.5, -1024], "<f4").tobytes()
    raw[352:] = values.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(raw)
    found = read_image(tmp_path / "a.nii")
    assert found.data.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), values * 0.5 - 1024)


def test_nan_is_allowed(tmp_path: Path) -> None:
    data = noise()
    data[0, 1, 2, 3] = torch.nan
    write_image(Image(data, GRIDS["RAS"]), tmp_path / "a.nii.gz")
    assert torch.equal(read_image(tmp_path / "a.nii.gz").data.isnan(), data.isnan())


def test_trailing_axes_of_one_are_dropped(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 7, 1, 1, 1), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").data.shape == (1, 5, 7, 1)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_units_become_mm(unit: str, factor: float, tmp_path: Path) -> None:
    nifti: Any = nibabel.Nifti1Image(np.ones(SHAPE, np.float32), GRIDS["oblique"].affine)
    nifti.header.set_xyzt_units(unit, "sec")
    nibabel.save(nifti, tmp_path / "a.nii")
    expected = np.diag([factor, factor, factor, 1]) @ GRIDS["oblique"].affine
    assert read_image(tmp_path / "a.nii").grid.is_close(Grid(SHAPE, expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((5, 7, 4, 3), np.float32), "extract a frame"),
        (np.ones(5, np.float32), r"three axes, or two in NIfTI, got shape \(5,\)"),
        (np.ones((5, 7, 4), np.complex64), "complex numbers"),
        (np.zeros((5, 7, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours"),
    ],
)
def test_refuses_what_is_no_volume(values: np.ndarray, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(FileError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_points_to_the_reader_of_fields(tmp_path: Path) -> None:
    nifti: Any = nibabel.Nifti1Image(np.ones((5, 7, 4, 1, 3), np.float32), np.eye(4))
    nifti.header.set_intent("vector")
    nibabel.save(nifti, tmp_path / "field.nii")
    with pytest.raises(FileError, match=r"vector field.*read_transform"):
        read_image(tmp_path / "field.nii")


def test_refuses_a_singular_affine(tmp_path: Path) -> None:
    nifti: Any = nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4))
    nibabel.save(nifti, tmp_path / "flat.nii")
    raw = bytearray((tmp_path / "flat.nii").read_bytes())
    raw[280:296] = bytes(16)  # first row of the sform
    (tmp_path / "flat.nii").write_bytes(raw)
    with pytest.raises(FileError, match=r"flat\.nii.*singular"):
        read_image(tmp_path / "flat.nii")


def damaged(path: Path, how: str) -> Path:
    """Make one kind of file that no image can be read from."""
    write_image(Image(torch.rand(1, 20, 20, 20), Grid((20, 20, 20))), path)
    raw = path.read_bytes()
    if how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "missing":
        path.unlink()
    else:
        contents = {
            "empty": b"",
            "text": b"this is no image\n" * 50,
            "cut": raw[: len(raw) // 2],
            "only the header": raw[:100],
            "changed": raw[:-4000] + bytes(2000) + raw[-2000:],
            "text within": gzip.compress(b"this is no image\n" * 50),
        }
        path.write_bytes(contents[how])
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("how", ["folder", "missing", "empty", "text", "cut", "only the header"])
def test_damaged_files_are_named(how: str, ending: str, tmp_path: Path) -> None:
    path = damaged(tmp_path / f"volume{ending}", how)
    with pytest.raises(FileError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"volume\.nii must be .* got an empty file"):
        read_image(damaged(tmp_path / "volume.nii", "empty"))


@pytest.mark.parametrize("how", ["changed", "text within"])
def test_damaged_archives_are_named(how: str, tmp_path: Path) -> None:
    path = damaged(tmp_path / "volume.nii.gz", how)
    with pytest.raises(FileError, match=r"volume\.nii\.gz"):
        read_image(path)


def test_foreign_formats_are_named(tmp_path: Path) -> None:
    path = tmp_path / "foreign.img"
    nibabel.save(nibabel.Spm2AnalyzeImage(np.ones(SHAPE, np.float32), np.eye(4)), path)
    with pytest.raises(FileError, match=r"foreign.*must be (a )?NIfTI"):
        read_image(path)


@pytest.mark.parametrize("name", ["image.png", "image.gz", "image", "image.nii.bz2", "image.NII"])
def test_refuses_other_endings(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="ending"):
        write_image(Image(noise(), GRIDS["RAS"]), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_several_channels(tmp_path: Path) -> None:
    image = Image(torch.cat([noise(), -2 * noise()]), GRIDS["RAS"])
    write_image(image, tmp_path / "a.nii")
    nifti: Any = nibabel.load(tmp_path / "a.nii")
    assert nifti.shape == (*SHAPE, 2)
    np.testing.assert_array_equal(nifti.get_fdata()[..., 1], image.data[1])
    nibabel.save(nibabel.Nifti1Image(nifti.get_fdata()[:, :, :, None], nifti.affine), tmp_path / "b.nii")
    for name in ("a.nii", "b.nii"):
        with pytest.raises(FileError, match=r"channels=True"):
            read_image(tmp_path / name)
        found = read_image(tmp_path / name, channels=True)
        torch.testing.assert_close(found.data.to(image.data.dtype), image.data)
        assert found.grid.is_close(image.grid)
    with pytest.raises(InputError, match="image: array must have three axes"):
        write_image(image.numpy(), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2, 3)), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(FileError, match="one volume"):
        read_image(tmp_path / "c.nii", channels=True)


def test_refuses_folders_that_are_none(tmp_path: Path) -> None:
    image = Image(noise(), GRIDS["RAS"])
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.nii", tmp_path / "missing" / "a.nii"):
        with pytest.raises(FileError, match="is not a folder") as caught:
            write_image(image, path)
        assert str(path) in str(caught.value)
    (tmp_path / "taken.nii").mkdir()
    with pytest.raises(FileError, match="got a folder"):
        write_image(image, tmp_path / "taken.nii")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_a_failure_leaves_the_old_file_alone(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(noise(dtype), GRIDS["RAS"])
    write_image(image, tmp_path / "a.nii.gz")

    def full(self: gzip.GzipFile, data: bytes) -> int:
        gzip.GzipFile.flush(self)  # the begin of the file is on the disk
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(FileError, match=r"a\.nii\.gz: No space left"):
        write_image(Image(image.data + 1, GRIDS["RAS"]), tmp_path / "a.nii.gz")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert torch.equal(read_image(tmp_path / "a.nii.gz").data, image.data)


def test_old_files_are_replaced(tmp_path: Path) -> None:
    for shift in (0, 1):
        write_image(Image(noise() + shift, GRIDS["RAS"]), tmp_path / "a.nii.gz")
    assert torch.equal(read_image(tmp_path / "a.nii.gz").data, noise() + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_the_same_image_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    """Floating-point values are packed by another strategy, whose files other programs read as well."""
    data = torch.randn(20, 18, 16, generator=torch.Generator().manual_seed(0))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(Image.from_array(data), tmp_path / name)
    packed = (tmp_path / "a.nii.gz").read_bytes()
    assert packed == (tmp_path / "b.nii.gz").read_bytes()
    nibabel.save(nibabel.load(tmp_path / "a.nii.gz"), tmp_path / "theirs.nii.gz")
    assert gzip.decompress(packed) == gzip.decompress((tmp_path / "theirs.nii.gz").read_bytes())
    assert len(packed) <= (tmp_path / "theirs.nii.gz").stat().st_size


def test_messages_of_nibabel_are_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "negative.nii"
    image = Image(torch.rand(1, *SHAPE), GRIDS["RAS"])
    write_image(image, path)
    content = bytearray(path.read_bytes())
    content[80:92] = (-np.frombuffer(content[80:92], np.float32)).tobytes()  # pixdim[1..3]
    path.write_bytes(content)
    for _ in range(2):
        assert read_image(path).grid.is_close(image.grid)
    said = [record.getMessage() for record in caplog.records if record.name == "convexadam"]
    assert said == [f"convexadam: {path}: pixdim[1,2,3] should be positive; setting to abs of pixdim values"]
    assert not capfd.readouterr().err
    nibabel.load(path)  # whoever uses nibabel itself still gets them
    assert "pixdim" in capfd.readouterr().err or any(record.name == "nibabel.global" for record in caplog.records)
