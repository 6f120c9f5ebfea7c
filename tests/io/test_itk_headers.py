"""Units, spaces and data files in the headers of NRRD and MetaImage, which ITK does not read or not check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convexadam import FileError, read_image

pytest.importorskip("SimpleITK")
SHAPE = (2, 3, 4)
DIRECTIONS = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)\n"


def nrrd(path: Path, fields: str, sizes: str = "2 3 4", data: bytes = np.arange(24, dtype="<i2").tobytes()) -> Path:
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n{fields}\n"
    path.write_bytes(head.encode() + data)
    return path


def meta(path: Path, fields: str = "", sizes: str = "2 3 4", data: str = "a.raw") -> Path:
    (path.parent / "a.raw").write_bytes(np.arange(24, dtype="<i2").tobytes())
    path.write_text(
        f"ObjectType = Image\nNDims = 3\n{fields}ElementSpacing = 2 3 4\nDimSize = {sizes}\nElementType = MET_SHORT\n"
        f"ElementDataFile = {data}\n"
    )
    return path


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("um", 1e-3), ("micron", 1e-3), ("\u00b5m", 1e-3), ("nm", 1e-6), ("cm", 10), ("m", 1e3), ("mm", 1)],
)
def test_units_of_nrrd(unit: str, mm: float, tmp_path: Path) -> None:
    units = " ".join([f'"{unit}"'] * 3)
    with_space = nrrd(tmp_path / "a.nrrd", f"space: LPS\n{DIRECTIONS}space units: {units}\n")
    grid = read_image(with_space).grid
    truth = np.diag([-2.0, -3, 4, 1]) + np.array([[0, 0, 0, -10], [0, 0, 0, -20], [0, 0, 0, 30], [0, 0, 0, 0]])
    np.testing.assert_allclose(grid.affine[:3], truth[:3] * mm, rtol=1e-12)
    without = read_image(nrrd(tmp_path / "b.nrrd", f"spacings: 2 3 4\nunits: {units}\n")).grid
    np.testing.assert_allclose(without.spacing_mm, np.array([2, 3, 4]) * mm, rtol=1e-12)


def test_units_of_metaimage(tmp_path: Path) -> None:
    for unit, mm in (("um", 1e-3), ("cm", 10), ("mm", 1)):
        grid = read_image(meta(tmp_path / "a.mhd", f"DistanceUnits = {unit}\n")).grid
        np.testing.assert_allclose(grid.spacing_mm, np.array([2, 3, 4]) * mm, rtol=1e-12)


def test_a_unit_of_time_is_none_of_length(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="units must be of length, got s, s, s"):
        read_image(nrrd(tmp_path / "a.nrrd", f'space: LPS\n{DIRECTIONS}space units: "s" "s" "s"\n'))


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed"])
def test_a_space_without_anatomy_is_said(space: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"space: {space}"):
        read_image(nrrd(tmp_path / "a.nrrd", f"space: {space}\n{DIRECTIONS}"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "..\\a.raw", "C:\\a.raw", "b/../../a.raw"])
def test_no_header_reads_files_of_other_folders(name: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.raw").write_bytes(bytes(48))
    header = meta(tmp_path / "b" / "a.mhd", data=name)
    with pytest.raises(FileError, match="in its folder"):
        read_image(header)
    with pytest.raises(FileError, match="in its folder"):
        read_image(nrrd(tmp_path / "b" / "a.nhdr", f"spacings: 2 3 4\ndata file: {name}\n", data=b""))


def test_a_list_of_data_files_is_checked_too(tmp_path: Path) -> None:
    path = meta(tmp_path / "a.mhd", data="LIST\n../a.raw")
    with pytest.raises(FileError, match="in its folder"):
        read_image(path)


def test_a_claim_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    many = "30000 30000 30000"
    for path in (
        nrrd(tmp_path / "a.nrrd", "spacings: 2 3 4\n", many),
        meta(tmp_path / "a.mhd", sizes=many),
        meta(tmp_path / "b.mhd", "CompressedData = True\n", sizes=many),
    ):
        with pytest.raises(FileError, match="must claim at most"):
            read_image(path)


def test_pairs_of_files_are_read(tmp_path: Path) -> None:
    for path in (meta(tmp_path / "a.mhd"), nrrd(tmp_path / "a.nhdr", "spacings: 2 3 4\ndata file: a.raw\n", data=b"")):
        found: Any = read_image(path).numpy()
        np.testing.assert_array_equal(found, np.arange(24).reshape(4, 3, 2).T)
