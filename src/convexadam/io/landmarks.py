"""Landmarks in text files."""

from __future__ import annotations

import math

import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Points
from convexadam.errors import FileError, InputError
from convexadam.io.nifti import StrPath
from convexadam.io.reading import reading


def read_landmarks(path: StrPath) -> Points:
    """Read points as Learn2Reg stores them: three numbers in each line, with commas between.

    Parameters
    ----------
    path
        Text file; a first line without numbers is a header, blank lines are skipped. The numbers are continuous
        voxel indices counted from 0: ``grid.to_mm(points)`` takes them to mm, with the grid of their own image.

    Returns
    -------
    ``(n, 3)`` float64 on the CPU, with the numbers of the file.

    Raises
    ------
    FileError
        If the file is missing, is no text, holds no point, or a line (which the message names) holds no three numbers.
    """
    with reading(path, "a list of landmarks") as source:
        rows = []
        lines = source.read_text(encoding="utf-8-sig").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or (number == 1 and _is_header(line)):
                continue
            rows.append(_numbers(line, f"{source}, line {number}"))
        if not rows:
            raise FileError(f"{source} holds no landmarks; each line is three numbers, with commas between")
        return torch.tensor(rows, dtype=torch.float64, device="cpu")


def write_landmarks(points: Points, path: StrPath) -> None:
    """Write points as Learn2Reg stores them: no header, three numbers in each line, with commas between.

    Parameters
    ----------
    points
        ``(n, 3)`` in continuous voxel indices of their own image: ``grid.to_voxels(points_mm)``. Every digit is kept.
    path
        An old file of that name is replaced, whole or not at all.

    Raises
    ------
    InputError
        If the points are not ``(n, 3)``, or hold NaN or Inf.
    FileError
        If the folder is missing or the file cannot be written.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points are an array (n, 3), but the shape {tuple(points.shape)} came")
    if not bool(points.isfinite().all()):
        raise InputError("the points hold NaN or Inf; leave such rows out")
    lines = [",".join(repr(float(v)) for v in row) for row in points.tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _is_header(line: str) -> bool:
    """Whether no cell of a line is a number: then it is names, and no point with a slip in it."""
    return all(_number(cell) is None for cell in line.split(","))


def _numbers(line: str, where: str) -> list[float]:
    values = [_number(cell) for cell in line.split(",")]
    found = [v for v in values if v is not None and math.isfinite(v)]
    if len(values) != 3 or len(found) != 3:
        raise FileError(f"{where}: three numbers with commas between are needed, but it reads {line.strip()[:60]!r}")
    return found


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
