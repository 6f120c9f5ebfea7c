"""HDF5 files of unknown origin, examined with h5py before ITK or nitransforms read them."""

from __future__ import annotations

import importlib
import math
import re
import struct
from pathlib import Path
from typing import Any

from convexadam._claims import check_claim
from convexadam.errors import FileError, MissingExtraError

_MIN_HEAP, _HEAP_HEADER = 4096, 16
"""Smallest size of a global heap, and of the headers of it and its objects, in bytes."""


def check_hdf5(source: Path) -> None:
    """Raise unless an HDF5 file stands alone and can hold what it claims. Call it within `check_file`.

    Links to other files, and datasets that are stored in other files, are refused. So are transforms of ITK whose
    numbers of parameters contradict each other, which crash ITK.

    Raises
    ------
    FileError
        If it does not.
    MissingExtraError
        If h5py is not installed.
    """
    h5py = _import_h5py()
    if not _has_sound_heaps(source.read_bytes()):
        raise FileError(f"cannot read {source}: its heaps of texts must be whole, got a damaged one; copy it again")
    with h5py.File(source, "r") as file:
        _check_group(h5py, file, source, depth=0)
        transforms = file.get("TransformGroup")
        for part in transforms.values() if isinstance(transforms, h5py.Group) else ():
            if isinstance(part, h5py.Group) and "TransformType" in part:
                _check_transform(part, source)


def check_parameters(kind: str, fixed: list[float], count: int, source: Path) -> None:
    """Raise unless a transform of ITK has as many parameters as its grid needs, if it has a grid.

    ``fixed`` begins with the size of the grid along each axis; each point has three parameters.

    Raises
    ------
    FileError
        If not.
    """
    if not ("DisplacementField" in kind or "BSpline" in kind or "VelocityField" in kind):
        return
    size = fixed[:3]
    whole = len(size) == 3 and all(math.isfinite(n) and n >= 1 and n == int(n) for n in size)
    if not whole or math.prod(map(int, size)) * 3 != count:
        raise FileError(
            f"cannot read {source}: a {kind} must have three parameters for each point of its grid {size}, got {count} "
            "parameters; it is damaged or truncated"
        )


def _has_sound_heaps(content: bytes) -> bool:
    """Whether the objects of each global heap fill it exactly: HDF5 reads others without an end."""
    for match in re.finditer(rb"GCOL\x01\0\0\0", content):
        (size,) = struct.unpack_from("<Q", content.ljust(match.end() + 8, b"\0"), match.end())
        at, end = match.start() + _HEAP_HEADER, match.start() + size
        if not _MIN_HEAP <= size <= len(content) - match.start():
            continue  # bytes that look alike, or a heap that HDF5 refuses
        while at + _HEAP_HEADER <= end:
            index, length = struct.unpack_from("<H6xQ", content, at)
            if index == 0:  # free space up to the end, of which the length includes this header
                if length != end - at:
                    return False
                break
            at += _HEAP_HEADER + -(-length // 8) * 8
        if at > end:
            return False
    return True


def _check_group(h5py: Any, group: Any, source: Path, depth: int) -> None:
    if depth > 8:
        raise FileError(f"cannot read {source}: its groups must be nested at most 8 deep; it is no file of transforms")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise FileError(f"cannot read {source}: it must stand alone, got a link named {name!r}; copy its target")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_group(h5py, item, source, depth + 1)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise FileError(f"cannot read {source}: it must stand alone, got {name!r} in another file; copy it")
            claimed = math.prod(map(int, item.shape or ())) * int(item.dtype.itemsize)
            check_claim(claimed, source.stat().st_size, source, packed=item.chunks is not None)


def _check_transform(part: Any, source: Path) -> None:
    kind = part["TransformType"][()]
    words = kind.tolist() if hasattr(kind, "tolist") else kind
    first = words[0] if isinstance(words, list) and words else words
    name = first.decode("latin-1") if isinstance(first, bytes) else str(first)
    fixed_name = next((key for key in part if key.startswith("TransformFixedParam")), None)
    own_name = next((key for key in part if key.startswith("TransformParam")), None)
    if fixed_name is not None and own_name is not None:
        fixed = [float(v) for v in part[fixed_name][:3]]
        check_parameters(name, fixed, int(part[own_name].size), source)


def _import_h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise MissingExtraError(
            "reading HDF5 needs h5py, which is not installed: pip install 'convexadam-torch[itk]'"
        ) from error
