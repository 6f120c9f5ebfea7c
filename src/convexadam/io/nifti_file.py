"""Opening NIfTI and MGH files with nibabel: whatever their name, and only if they can hold what the header claims."""

from __future__ import annotations

import functools
import gzip
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexadam._claims import check_claim
from convexadam.errors import FileError, GeometryError
from convexadam.io.nibabel_log import take_over_messages
from convexadam.io.nifti import check_nifti
from convexadam.io.reading import StrPath

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Pair

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")

_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 1024
_IMAGE_OF_PAIR = re.compile(r"\.img(\.gz)?$")
_HEADER_OF_PAIR = re.compile(r"\.hdr(\.gz)?$")
_SURPLUS = 2**20
"""Bytes after the values that are read without complaint: some programs pad their files."""
_LONG_QUATERNION = 1e-4
"""Excess of the squared length of the quaternion of a qform over 1 that counts as rounding."""
_MGH_BYTES = 284
_MGH_TYPES = {0: 1, 1: 4, 3: 4, 4: 2, 10: 2}
"""Types of MGH: uint8, int32, float32, int16, uint16; bytes of each."""


def load_nifti(path: StrPath) -> Nifti1Pair:
    """Open a NIfTI file to read its values; the checksum of a gzip file is verified. Call it within `check_file`."""
    nifti = open_nifti(path)
    header: Any = nifti.header
    claimed = header.get_data_dtype().itemsize * math.prod(map(int, nifti.shape))
    values = find_values_file(Path(path))
    begin = int(header.get_data_offset()) if values == Path(path) or values.suffix == ".nii" else 0
    check_size(values, begin + claimed)
    return nifti


def open_nifti(path: StrPath) -> Nifti1Pair:
    """Open a NIfTI file to read its header; the values may be truncated. Call it within `check_file`.

    A file that is packed although its name does not end in ``.gz``, or the reverse, is read as what it is. A quaternion
    that is too long by rounding is normalised.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    source = Path(path)
    head = read_head(source)
    try:
        if not has_nifti_signature(head):
            with take_over_messages(source):
                return check_nifti(nibabel.load(source))
        if not source.name.endswith(NIFTI_SUFFIXES):
            raise FileError(f"the name of a NIfTI file must end in .nii or .nii.gz, got {path}; rename it")
        kind = _tolerant_classes()[_class_name(head)]
        as_named = is_packed(source) == source.name.endswith(".gz") or not source.name.endswith((".nii", ".nii.gz"))
        with take_over_messages(source):
            opened: Any = kind.from_filename(source) if as_named else kind.from_bytes(_read_whole(source, head))
        return opened  # type: ignore[no-any-return]
    except (ImageFileError, HeaderDataError) as error:
        raise FileError(
            f"cannot read an image from {path}: it must be NIfTI or MGH ({error}); convert it to .nii.gz"
        ) from error


def load_mgh(path: StrPath) -> Any:
    """Open an MGH or MGZ file of FreeSurfer. Call it within `check_file`, after `is_mgh`."""
    import nibabel

    source = Path(path)
    head = read_head(source)
    i, j, k, frames, kind = (int.from_bytes(head[at : at + 4], "big", signed=True) for at in range(4, 24, 4))
    claimed = i * j * k * frames * _MGH_TYPES[kind] + _MGH_BYTES
    check_size(source, claimed)
    content = gzip.decompress(source.read_bytes()) if is_packed(source) else source.read_bytes()
    return nibabel.MGHImage.from_bytes(content)


def is_mgh(head: bytes) -> bool:
    """Whether the first bytes, unpacked, are those of MGH: version 1, four sizes, a known type."""
    numbers = [int.from_bytes(head[at : at + 4], "big", signed=True) for at in range(0, 24, 4)]
    return len(head) > 30 and numbers[0] == 1 and min(numbers[1:5]) >= 1 and numbers[5] in _MGH_TYPES


def read_head(path: Path) -> bytes:
    """Return the first 1024 bytes of a file, decompressed; of the header file if the path is that of the values."""
    header = path.with_name(_IMAGE_OF_PAIR.sub(r".hdr\1", path.name))  # an .img file has no header of its own
    path = header if header.is_file() else path
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_GZIP):
        with gzip.open(path) as archive:
            return archive.read(_HEAD_BYTES)
    return head


def has_nifti_signature(head: bytes) -> bool:
    """Whether the first bytes are those of NIfTI, version 1 or 2."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def is_packed(path: Path) -> bool:
    """Whether a file is a gzip archive, by its content."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def find_values_file(path: Path) -> Path:
    """Return the file with the values: the ``.img`` file of a pair, else the file itself."""
    values = path.with_name(_HEADER_OF_PAIR.sub(r".img\1", path.name))
    return values if values.is_file() else path


def check_size(path: Path, claimed: int) -> None:
    """Raise unless a file holds as many bytes, unpacked, as its header claims.

    A gzip file is read to its end, so that its checksum is verified, but not beyond what was claimed. Nothing of the
    size of the claim is allocated before.

    Raises
    ------
    FileError
        If it holds fewer bytes; if a gzip file holds more; or if the values do not fit into the memory of the machine.
    """
    packed, stat = is_packed(path), path.stat()
    check_claim(claimed, stat.st_size, path, packed=packed)
    if packed:
        _read_to_end(path, claimed, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _read_to_end(path: Path, claimed: int, size: int, mtime_ns: int) -> None:
    """Verify a gzip file; not again until its size or time is another one."""
    number = 0
    with gzip.open(path) as archive:
        while part := archive.read(2**22):
            number += len(part)
            if number > claimed + _SURPLUS:
                raise FileError(f"{path} must hold {claimed} bytes, as its header says, got more; write it again")
    if number < claimed:
        raise FileError(f"{path} must hold {claimed} bytes, as its header says, got {number}; it is truncated")


def _class_name(head: bytes) -> str:
    version = 1 if head[344:346] in (b"n+", b"ni") else 2
    magic = head[344:346] if version == 1 else head[4:6]
    return f"Nifti{version}{'Image' if magic == b'n+' else 'Pair'}"


def _read_whole(source: Path, head: bytes) -> bytes:
    """Return an unpacked file that is small enough for what its header claims."""
    kind = _tolerant_classes()[_class_name(head)].header_class
    header = kind(head[: kind.sizeof_hdr], check=False)
    size = header.get_data_dtype().itemsize * math.prod(map(int, header.get_data_shape()))
    check_size(source, int(header.get_data_offset()) + size)
    return gzip.decompress(source.read_bytes()) if is_packed(source) else source.read_bytes()


@functools.cache
def _tolerant_classes() -> dict[str, Any]:
    """Return nibabel's classes with a wider tolerance of the quaternion."""
    import nibabel

    made: dict[str, Any] = {}
    for name in ("Nifti1Image", "Nifti1Pair", "Nifti2Image", "Nifti2Pair"):
        base: Any = getattr(nibabel, name)
        method = {"get_qform_quaternion": _complete_quaternion}
        header = type(base.header_class.__name__, (base.header_class,), method)
        made[name] = type(name, (base,), {"header_class": header})
    return made


def _complete_quaternion(header: Any) -> np.ndarray:
    """Return the unit quaternion of a qform, whose first number is not stored."""
    stored = np.array([float(header[name]) for name in ("quatern_b", "quatern_c", "quatern_d")])
    square = float(stored @ stored)
    if not square <= 1 + _LONG_QUATERNION:
        raise GeometryError(
            f"the quaternion of a qform must have at most length 1, got {math.sqrt(square):g}; correct the header, or "
            "set its qform_code to 0"
        )
    return np.array([math.sqrt(max(0.0, 1 - square)), *stored / max(1.0, math.sqrt(square))])
