"""The beginnings of files, by which their formats are detected."""

from __future__ import annotations

import gzip
import mmap
import re
import zipfile
from pathlib import Path

from convexadam.errors import FileError
from convexadam.geometry import Grid
from convexadam.io.nifti import open_nifti
from convexadam.io.reading import is_zip
from convexadam.io.transform_format import FileHeader, NiftiHeader

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")
_IMAGE_OF_PAIR = re.compile(r"\.img(\.gz)?$")
_HEAD_BYTES = 512


def read_header(path: Path, fixed: Grid | None = None) -> FileHeader:
    """Read the parts of a file by which its format is detected. Call it within `check_file`.

    Raises
    ------
    FileError
        If the file is NIfTI by its content but not by its name, which nibabel cannot open.
    """
    head = read_head(path)
    nifti = _read_nifti_header(path) if has_nifti_signature(head) else None
    archive = None
    if is_zip(path):
        with zipfile.ZipFile(path) as opened:
            archive = tuple(opened.namelist())
    return FileHeader(path=path, head=head, nifti=nifti, archive=archive, fixed=fixed)


def read_head(path: Path) -> bytes:
    """Return the first 512 bytes of a file, decompressed; of the header file if the path is that of the values."""
    header = path.with_name(_IMAGE_OF_PAIR.sub(r".hdr\1", path.name))  # an .img file has no header of its own
    path = header if header.is_file() else path
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as archive:
            return archive.read(_HEAD_BYTES)
    return head


def has_nifti_signature(head: bytes) -> bool:
    """Whether the first bytes are those of NIfTI, version 1 or 2."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def hdf5_contains(header: FileHeader, *words: bytes) -> bool:
    """Whether a file is HDF5 and all of these bytes occur in it. The names of its groups are stored as they are."""
    if not header.head.startswith(HDF5_SIGNATURE):
        return False
    with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(word) >= 0 for word in words)


def _read_nifti_header(path: Path) -> NiftiHeader:
    if not path.name.endswith(_NIFTI_SUFFIXES):
        raise FileError(f"the name of a NIfTI file must end in .nii or .nii.gz, got {path}; rename it")
    nifti = open_nifti(path)
    return NiftiHeader(shape=tuple(nifti.shape), intent=int(nifti.header["intent_code"]))
