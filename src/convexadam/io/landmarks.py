"""Landmarks in files."""

from __future__ import annotations

import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam._typing import Points
from convexadam.errors import FileError, InputError
from convexadam.geometry import Grid
from convexadam.io.landmark_table import LandmarkFile, parse_landmark_file
from convexadam.io.reading import StrPath, check_file


@check_arguments
def read_landmarks(path: StrPath) -> Points:
    """Read landmarks in the format of Learn2Reg: three comma-separated numbers per line.

    Parameters
    ----------
    path
        Text file. A first line without numbers is a header, which may name the columns; blank lines are skipped.
        Columns of names are allowed. The numbers are continuous voxel indices, counted from 0, of the image that the
        landmarks belong to: ``grid.index_to_world(points)`` converts them to mm, and `read_landmarks_mm` does both.

    Returns
    -------
    ``(n, 3)`` float64 on the CPU, the numbers of the file.

    Raises
    ------
    FileError
        If the file is missing, is not text, holds no landmark, has a line that is not three numbers, or is one of
        Slicer, whose points are in mm.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam.io import read_landmarks
    >>> np.savetxt("landmarks.csv", [[1, 2, 3], [4, 5, 6]], delimiter=",")
    >>> read_landmarks("landmarks.csv").tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    file = read_landmark_file(path)
    if file.space is not None:
        raise FileError(f"{path} must hold voxel indices, got points in mm of Slicer; read them with read_landmarks_mm")
    return file.points


@check_arguments
def read_landmarks_mm(path: StrPath, grid: Grid) -> Points:
    """Read landmarks and return them in mm RAS+.

    Parameters
    ----------
    path
        A file of `read_landmarks`, whose numbers are voxel indices; or ``.fcsv`` or ``.mrk.json`` of Slicer, whose
        points are in mm, RAS or LPS as the file says.
    grid
        The grid of the image that the landmarks belong to.

    Returns
    -------
    ``(n, 3)`` float64 on the CPU.

    Raises
    ------
    FileError
        As `read_landmarks`, or if the coordinate system of a file of Slicer is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import Grid
    >>> from convexadam.io import read_landmarks_mm
    >>> np.savetxt("landmarks.csv", [[1, 2, 3]], delimiter=",")  # voxels
    >>> read_landmarks_mm("landmarks.csv", Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))).tolist()
    [[2.0, 4.0, 6.0]]
    """
    file = read_landmark_file(path)
    if file.space is None:
        return grid.index_to_world(file.points)
    signs = (-1, -1, 1) if file.space == "lps_mm" else (1, 1, 1)
    return file.points * torch.tensor(signs, dtype=torch.float64, device="cpu")


@check_arguments
def read_landmark_file(path: StrPath) -> LandmarkFile:
    """Read landmarks with all else that the file holds, which `write_landmarks` keeps.

    Raises
    ------
    FileError
        As `read_landmarks_mm`.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam.io import read_landmark_file
    >>> np.savetxt("landmarks.csv", [[1, 2, 3]], delimiter=",", header="x,y,z", comments="")
    >>> file = read_landmark_file("landmarks.csv")
    >>> file.points.tolist()
    [[1.0, 2.0, 3.0]]
    """
    with check_file(path, "a list of landmarks") as source:
        return parse_landmark_file(source)


@check_arguments
def write_landmarks(points: Points, path: StrPath, *, like: LandmarkFile | None = None) -> None:
    """Write landmarks in the format of Learn2Reg: three comma-separated numbers per line, no header.

    Parameters
    ----------
    points
        ``(n, 3)``, continuous voxel indices of the image that they belong to: ``grid.world_to_index(points_mm)``. They
        are written with all digits.
    path
        An existing file is replaced after the new one is complete.
    like
        Write the header, names and format of this file instead, with other points in its order and coordinates.

    Raises
    ------
    InputError
        If the points are not ``(n, 3)``, hold NaN or Inf, or are not as many as those of ``like``.
    FileError
        If the folder does not exist or the file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> import torch
    >>> from convexadam.io import write_landmarks
    >>> write_landmarks(torch.tensor([[1.0, 2.0, 3.0]]), "landmarks.csv")
    >>> [float(number) for number in Path("landmarks.csv").read_text().split(",")]
    [1.0, 2.0, 3.0]
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points must have shape (n, 3), got {tuple(points.shape)}; pass one row per landmark")
    if not bool(points.isfinite().all()):
        raise InputError("points must be finite, got NaN or Inf; remove such rows")
    rows = tuple(("", "", "") for _ in points)
    text = (LandmarkFile(points=points, rows=rows) if like is None else like).format(points)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
