"""Text headers of MetaImage and NRRD: what ITK does not read in them, or reads without a check."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from convexadam._claims import check_claim
from convexadam.errors import FileError

_MAX_HEADER = 2**20
_MAX_NAME = 255

_UNIT_MM = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("", "?", "???", "unknown", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("micrometre", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
}
"""Units of length in mm. Without one, mm is meant."""

_LINE = {"NrrdImageIO": re.compile(r"([\w ]+?)\s*:=?\s*(.*)"), "MetaImageIO": re.compile(r"(\w+)\s*[:=]\s*(.*)")}
_DATA_FILE = {"NrrdImageIO": ("data file", "datafile"), "MetaImageIO": ("elementdatafile",)}
_NO_ANATOMY = re.compile(r"scanner-xyz|3d-(right|left)-handed", re.IGNORECASE)
_BYTES = re.compile(r"(\d+)-bit")


def read_itk_header(source: Path, reader: str) -> dict[str, str]:
    """Return the fields of a text header, keys in lower case; none for other formats.

    The lines after a list of data files come under the key ``"list"``.
    """
    if reader not in _LINE:
        return {}
    with source.open("rb") as file:
        text = file.read(_MAX_HEADER).decode("utf-8", errors="replace")
    fields: dict[str, str] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if reader == "NrrdImageIO" and not line.strip():
            break
        if match := _LINE[reader].fullmatch(line.strip()):
            fields.setdefault(match[1].lower(), match[2].strip())
            if match[1].lower() in _DATA_FILE[reader]:
                fields["list"] = "\n".join(lines[number + 1 :]) if match[2].upper().startswith("LIST") else ""
                if reader == "MetaImageIO":
                    break
    return fields


def check_data_files(source: Path, reader: str, fields: dict[str, str]) -> None:
    """Raise `FileError` unless the files with the voxels of an image lie in its folder."""
    name = _data_file(reader, fields)
    listed = name.upper().startswith("LIST")
    names = [line for line in fields.get("list", "").splitlines() if line.strip()] if listed else [name]
    for entry in names:
        _check_inside(entry.strip(), source)


def check_voxels(source: Path, reader: str, fields: dict[str, str], file: Any) -> None:
    """Raise `FileError` if a header claims more voxels than its file can hold.

    ``file`` is the reader of ITK, which has read the header.
    """
    name = _data_file(reader, fields)
    claimed = math.prod(map(int, file.GetSize())) * int(file.GetNumberOfComponents()) * _value_bytes(file)
    data = source if name.upper() in ("LOCAL", "") else source.parent / name
    if data.is_file():
        check_claim(claimed, data.stat().st_size, source, packed=_is_packed(reader, fields))


def find_units(reader: str, fields: dict[str, str], source: Path) -> np.ndarray:
    """Return the units of R, A and S in mm, which ITK takes for mm; warn of an NRRD space without anatomical axes.

    Raises
    ------
    FileError
        If a unit is not one of length.
    """
    if reader == "MetaImageIO":
        words = [fields.get("distanceunits", "mm")] * 3
    elif reader == "NrrdImageIO":
        words = re.findall(r'"([^"]*)"', fields.get("space units", "") or fields.get("units", ""))[:3]
        words = words if len(words) == 3 else ["mm"] * 3
        if _NO_ANATOMY.fullmatch(fields.get("space", "")):
            warnings.warn(
                f"{source} does not say which of its axes are left, posterior and superior (space: {fields['space']}); "
                "they were taken as L, P and S, as by ITK; set its space",
                stacklevel=2,
            )
    else:
        words = ["mm"] * 3
    units = [_UNIT_MM.get(word.strip().lower()) for word in words]
    if None in units:
        raise FileError(
            f"cannot read {source}: its units must be of length, got {', '.join(words)}; correct the header"
        )
    return np.array(units, dtype=np.float64)


def _data_file(reader: str, fields: dict[str, str]) -> str:
    """Return the name of the file with the voxels; ``LOCAL`` if they follow the header."""
    return next((fields[key] for key in _DATA_FILE.get(reader, ()) if key in fields), "LOCAL")


def _check_inside(name: str, source: Path) -> None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts:
        raise FileError(
            f"cannot read {source}: the file with its voxels must be in its folder, got {name!r}; move it there and "
            "correct the header"
        )
    inner = name.upper() in ("", "LOCAL") or "%" in name  # a pattern of several files
    if not inner and not (name.isprintable() and len(name) < _MAX_NAME and (source.parent / name).is_file()):
        raise FileError(
            f"cannot read {source}: the file with its voxels must exist, got {name[:60]!r}; correct the header, which "
            "may be damaged"
        )


def _is_packed(reader: str, fields: dict[str, str]) -> bool:
    if reader == "MetaImageIO":
        return fields.get("compresseddata", "").lower() in ("true", "1", "t")
    return reader != "NrrdImageIO" or fields.get("encoding", "raw").lower() != "raw"


def _value_bytes(file: Any) -> int:
    sitk: Any = importlib.import_module("SimpleITK")
    match = _BYTES.search(sitk.GetPixelIDValueAsString(file.GetPixelID()))
    return int(match[1]) // 8 if match else 1
