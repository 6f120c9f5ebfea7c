"""Archives and HDF5 files that claim what they do not hold, run code, or read other files."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import FileError, Grid, read_image, read_transform, write_transform
from convexadam.geometry import Affine, DisplacementField
from convexadam.io import read_landmarks, read_learn2reg

GRID = Grid((4, 5, 6))


def npy(shape: tuple[int, ...], kind: str = "<f4", values: bytes = b"", header: str | None = None) -> bytes:
    text = header or f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + values


def npz(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("arr_0.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "method", "message"),
    [
        (npy((30000, 30000, 30000, 3)), zipfile.ZIP_DEFLATED, "must claim at most"),
        (npy((4, 5, 6, 3), values=bytes(400)), zipfile.ZIP_STORED, "at most the 528 bytes"),
        (npy((4, 5, 6, 3), "|O", bytes(1440)), zipfile.ZIP_DEFLATED, "Python objects"),
        (npy((1,), header="{'descr': (((((((("), zipfile.ZIP_DEFLATED, "cannot read"),
        (npy((1,), header="{'descr': '<f4', 'shape': (__import__('os'),)}"), zipfile.ZIP_DEFLATED, "cannot read"),
        (npy((4, 5, 6, 3), values=bytes(1440)), zipfile.ZIP_BZIP2, "stored or deflated"),
    ],
)
def test_archives_of_arrays(content: bytes, method: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message):
        read_learn2reg(npz(tmp_path / "disp.npz", content, method), GRID)


def test_archives_with_pickles_are_not_unpickled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(FileError, match="Python objects"):
        read_learn2reg(npz(tmp_path / "disp.npz", stream.getvalue()), GRID)


def test_a_tensor_of_stride_zero_is_no_grid(tmp_path: Path) -> None:
    write_transform(DisplacementField(torch.zeros(3, *GRID.shape), GRID), tmp_path / "a.pt", moving=GRID)
    content: dict[str, Any] = torch.load(tmp_path / "a.pt", weights_only=True)
    content["grid"] = torch.zeros(1).expand(1, 30000, 30000, 30000, 3)
    torch.save(content, tmp_path / "b.pt")
    with pytest.raises(FileError, match="at most the 4 bytes"):
        read_transform(tmp_path / "b.pt")


TEXT = (
    "#Insight Transform File V1.0\n#Transform 0\nTransform: {}\nParameters: 0 0 0\nFixedParameters: {} 0 0 0 1 1 1 {}\n"
)
KINDS = "DisplacementFieldTransform_double_3_3", "BSplineTransform_double_3_3"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["30000 30000 30000", "1000 1000 1000", "-1 1 1", "nan 1 1", "1.5 1 1", "1e30 1 1"])
def test_sizes_that_crash_itk_are_refused(kind: str, size: str, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "a.tfm").write_text(TEXT.format(kind, size, "1 0 0 0 1 0 0 0 1"))
    with pytest.raises(FileError, match="three parameters for each point"):
        read_transform(tmp_path / "a.tfm", fixed=GRID)


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    pytest.importorskip("SimpleITK")
    pytest.importorskip("h5py")
    write_transform(DisplacementField(torch.rand(3, *GRID.shape), GRID), tmp_path / "a.h5")
    read_transform(tmp_path / "a.h5")
    return tmp_path / "a.h5"


def test_hdf5_claims(h5: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(h5, "r+") as file:
        group = file["TransformGroup/0"]
        del group["TransformParameters"]
        group.create_dataset("TransformParameters", (30000**3,), "<f8", chunks=(1024,))
    with pytest.raises(FileError, match="must claim at most"):
        read_transform(h5)


def test_hdf5_sizes_that_contradict_the_parameters(h5: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(h5, "r+") as file:
        file["TransformGroup/0/TransformFixedParameters"][0] = 2000.0
    with pytest.raises(FileError, match="three parameters for each point"):
        read_transform(h5)


@pytest.mark.parametrize("how", ["external link", "soft link", "external storage", "virtual"])
def test_hdf5_reads_no_other_file(how: str, h5: Path, tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(h5, "r+") as file:
        group = file["TransformGroup/0"]
        old = group["TransformParameters"]
        count, kind = old.size, old.dtype
        del group["TransformParameters"]
        (tmp_path / "secret").write_bytes(bytes(count * 8))
        if how == "external link":
            group["TransformParameters"] = h5py.ExternalLink("secret", "/a")
        elif how == "soft link":
            group["TransformParameters"] = h5py.SoftLink("/elsewhere")
        elif how == "external storage":
            group.create_dataset("TransformParameters", (count,), kind, external=[("secret", 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout((count,), kind)
            layout[:] = h5py.VirtualSource("secret", "a", (count,))
            group.create_virtual_dataset("TransformParameters", layout)
    with pytest.raises(FileError, match="must stand alone"):
        read_transform(h5)


def test_x5_is_examined_too(tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    pytest.importorskip("nitransforms")
    write_transform(Affine(), tmp_path / "a.x5")
    with h5py.File(tmp_path / "a.x5", "r+") as file:
        file["TransformGroup/9"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(FileError, match="must stand alone"):
        read_transform(tmp_path / "a.x5")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.nii")
    code = f"from convexadam import read_image; read_image({str(tmp_path / 'a.nii')!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "got a pipe or device" in ran.stderr


@pytest.mark.parametrize("read", [read_image, read_transform, read_landmarks], ids=["image", "transform", "landmarks"])
def test_a_name_that_is_too_long_is_an_error_of_the_file(read: Any) -> None:
    with pytest.raises(FileError, match="must be a file name that the system allows"):
        read("a" * 100_000)
