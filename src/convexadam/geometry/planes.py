"""Planes of slices, and slices as pictures in radiological convention."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Plane: TypeAlias = Literal["axial", "coronal", "sagittal"]

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
"""In the order in which they are drawn."""

NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Axis of R, A, S along which the slices of a plane follow each other."""

IN_PLANE = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Axes of R, A, S across and up a picture; both decrease, to the right and to the bottom."""


def take_slice(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """Return a slice of the last three axes R, A, S as a picture: rows from the top, columns from the left.

    It is in radiological convention, the patient's right on the left, anterior or superior at the top.
    """
    if plane == "axial":
        picture = volume[..., ::-1, ::-1, index]
    elif plane == "coronal":
        picture = volume[..., ::-1, index, ::-1]
    else:
        picture = volume[..., index, ::-1, ::-1]
    return np.swapaxes(picture, -1, -2)
