"""Lengths of DICOM elements, compared with the size of the file before GDCM takes memory for them."""

from __future__ import annotations

import struct
from pathlib import Path

from convexadam.errors import FileError

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"} | {
    b"SS", b"ST", b"TM", b"UI", b"UL", b"US"
}  # fmt: skip
"""Value representations whose length takes four bytes, after two that are reserved, and two bytes."""

_PREFIX, _META, _ITEMS = 128, 0x0002, 0xFFFE
_UNKNOWN = 0xFFFFFFFF
"""Length of sequences that end with a delimiter: their items follow."""

_SYNTAX = 0x0010
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"


def check_element_lengths(source: Path) -> None:
    """Raise unless the elements of a DICOM file end before the file does (PS3.5, section 7.1).

    The walk ends without an error where the file is no DICOM, or is coded in a way that it does not know.

    Raises
    ------
    FileError
        If an element claims more bytes than follow it.
    """
    with source.open("rb") as file:
        if file.read(_PREFIX + 4)[_PREFIX:] != b"DICM":
            return
        end, at, explicit, order = source.stat().st_size, _PREFIX + 4, True, "<"
        syntax = b""
        while at + 8 <= end:
            file.seek(at)
            head = file.read(12)
            group, element = struct.unpack_from("<HH", head)
            if group != _META and syntax:
                if syntax == _DEFLATED:
                    return
                explicit, order = syntax != _IMPLICIT, ">" if syntax == _BIG_ENDIAN else "<"
            group, element = struct.unpack_from(f"{order}HH", head)
            found = _read_length(head, order, explicit=explicit and group != _ITEMS)
            if found is None:
                return
            size, length = found
            at += size
            if length == _UNKNOWN:
                continue
            if at + length > end:
                raise FileError(
                    f"cannot read {source}: its elements must end before the file does, at {end} bytes, got one that "
                    f"claims {length} bytes from {at} on; it is damaged or truncated"
                )
            if (group, element) == (_META, _SYNTAX):
                file.seek(at)
                syntax = file.read(length).rstrip(b"\0 ")
            at += length


def _read_length(head: bytes, order: str, *, explicit: bool) -> tuple[int, int] | None:
    """Return the sizes of the head of an element and of its value; ``None`` if its coding is not known."""
    if not explicit:
        return 8, int(struct.unpack_from(f"{order}I", head, 4)[0])
    kind = head[4:6]
    if kind in _SHORT:
        return 8, int(struct.unpack_from(f"{order}H", head, 6)[0])
    if kind in _LONG and len(head) == 12:
        return 12, int(struct.unpack_from(f"{order}I", head, 8)[0])
    return None
