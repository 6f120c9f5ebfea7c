"""Landmarks in text files."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Points
from convexadam.errors import FileError, InputError
from convexadam.io.nifti import StrPath
from convexadam.io.reading import check_file


def read_landmarks(path: StrPath) -> Points:
    """Read landmarks in the format of Learn2Reg: three comma-separated numbers per line.

    Parameters
    ----------
    path
        Text file. A first line without numbers is a header; blank lines are skipped. The numbers are continuous voxel
        indices, counted from 0, of the image that the landmarks belong to: ``grid.index_to_world(points)`` converts
        them to mm.

    Returns
    -------
    ``(n, 3)`` float64 on the CPU, the numbers of the file.

    Raises
    ------
    FileError
        If the file is missing, is not text, holds no landmark, or has a line that is not three numbers.
    """
    with check_file(path, "a list of landmarks") as source:
        rows = []
        lines = source.read_text(encoding="utf-8-sig").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or (number == 1 and _is_header(line)):
                continue
            rows.append(_parse_point(line, source, number))
        if not rows:
            raise FileError(
                f"{source} must hold at least one landmark, got none; write three numbers per line, as 1,2,3"
            )
        return torch.tensor(rows, dtype=torch.float64, device="cpu")


def write_landmarks(points: Points, path: StrPath) -> None:
    """Write landmarks in the format of Learn2Reg: three comma-separated numbers per line, no header.

    Parameters
    ----------
    points
        ``(n, 3)``, continuous voxel indices of the image that they belong to: ``grid.world_to_index(points_mm)``. They
        are written with all digits.
    path
        An existing file is replaced after the new one is complete.

    Raises
    ------
    InputError
        If the points are not ``(n, 3)``, or hold NaN or Inf.
    FileError
        If the folder does not exist or the file cannot be written.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points must have shape (n, 3), got {tuple(points.shape)}; pass one row per landmark")
    if not bool(points.isfinite().all()):
        raise InputError("points must be finite, got NaN or Inf; remove such rows")
    lines = [",".join(repr(float(v)) for v in row) for row in points.tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _is_header(line: str) -> bool:
    """Whether no cell of a line is a number. A line with some numbers is a landmark with an error, not a header."""
    return all(_parse_number(cell) is None for cell in line.split(","))


def _parse_point(line: str, source: Path, number: int) -> list[float]:
    values = [_parse_number(cell) for cell in line.split(",")]
    found = [v for v in values if v is not None and math.isfinite(v)]
    if len(values) != 3 or len(found) != 3:
        raise FileError(
            f"cannot read landmarks from {source}: line {number} must be three numbers with commas between them, got "
            f"{line.strip()[:60]!r}; correct or remove it"
        )
    return found


def _parse_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
