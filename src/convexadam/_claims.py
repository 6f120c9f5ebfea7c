"""What a file claims to hold, compared with its size before memory is taken for it."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from convexadam.errors import FileError

_DEFLATE_RATIO = 1040
"""No deflated stream (gzip, zip, zlib) holds more bytes for each of its own: the limit of the format is 1032."""

_EMPTY_STREAM = 64
"""Bytes that a stream may hold beyond that, since short ones begin with a header."""


def check_claim(claimed: int, stored: int, source: Path, *, packed: bool) -> None:
    """Raise unless a file of ``stored`` bytes can hold the ``claimed`` bytes of its header, and memory as well.

    Call it before anything of the size of the claim is allocated: a header of 348 bytes may claim petabytes.

    Raises
    ------
    FileError
        If either is too small.
    """
    most = stored * _DEFLATE_RATIO + _EMPTY_STREAM if packed else stored
    if not 0 <= claimed <= most:
        raise FileError(
            f"cannot read {source}: its header must claim at most the {most} bytes that a file of its size can hold, "
            f"got {claimed}; it is damaged or truncated"
        )
    memory = measure_memory()
    if claimed > memory:
        raise FileError(
            f"cannot read {source}: its values must fit into the memory of this machine ({memory:.0f} bytes), got "
            f"{claimed} bytes; crop or downsample them"
        )


def check_archive(source: Path) -> None:
    """Raise `FileError` if a member of a zip archive claims more than it can hold, or is not deflated or stored."""
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FileError(f"cannot read {source}: its members must be stored or deflated; write it again")
            packed = member.compress_type == zipfile.ZIP_DEFLATED
            check_claim(member.file_size, member.compress_size, source, packed=packed)


def check_arrays(source: Path) -> None:
    """Raise `FileError` unless each array of an ``.npz`` archive has numbers only, as many as its header claims."""
    check_archive(source)
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                stream: Any = file
                version = np.lib.format.read_magic(stream)
                formats: Any = np.lib.format
                read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
                shape, _, kind = read(stream)
            if kind.hasobject:
                raise FileError(f"cannot read {source}: its arrays must hold numbers, got Python objects")
            check_claim(math.prod(map(int, shape)) * kind.itemsize, member.file_size, source, packed=False)


def measure_memory() -> float:
    """Return the bytes of memory of the machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf
