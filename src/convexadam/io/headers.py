"""The beginnings of files, by which their formats are detected."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path
from typing import Any

from convexadam.geometry import Grid
from convexadam.io.nifti import read_intent_name
from convexadam.io.nifti_file import has_nifti_signature, open_nifti, read_head
from convexadam.io.reading import is_zip
from convexadam.io.transform_format import FileHeader, NiftiHeader

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


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


def hdf5_contains(header: FileHeader, *words: bytes) -> bool:
    """Whether a file is HDF5 and all of these bytes occur in it. The names of its groups are stored as they are."""
    if not header.head.startswith(HDF5_SIGNATURE):
        return False
    with header.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(word) >= 0 for word in words)


def _read_nifti_header(path: Path) -> NiftiHeader:
    nifti = open_nifti(path)
    header: Any = nifti.header
    parameters = tuple(float(header[f"intent_p{n}"]) for n in (1, 2, 3))
    return NiftiHeader(
        shape=tuple(nifti.shape),
        intent=int(header["intent_code"]),
        name=read_intent_name(header),
        parameters=(parameters[0], parameters[1], parameters[2]),
    )
