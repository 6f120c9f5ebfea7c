"""Affine matrices in numbers that one can picture."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np


class DescribedMatrix(TypedDict):
    """Parts of ``T(x) = A x + t`` in mm RAS+.

    ``A`` is a stretch along axes at right angles by ``scales``, largest first, and then a rotation; where the
    determinant is negative it mirrors as well.
    """

    matrix: list[list[float]]
    rotation_degrees: float
    scales: list[float]
    determinant: float
    translation_mm: list[float]


def described_matrix(matrix: np.ndarray) -> DescribedMatrix:
    """Describe a 4x4 matrix.

    Examples
    --------
    >>> found = described_matrix(np.diag([2.0, -3, -4, 1]))
    >>> round(found["rotation_degrees"]), found["scales"]
    (180, [4.0, 3.0, 2.0])
    """
    left, scales, right = np.linalg.svd(matrix[:3, :3])
    turn = left @ right
    if np.linalg.det(turn) < 0:
        turn = -turn
    cosine = (np.trace(turn) - 1) / 2
    sine = np.linalg.norm(turn - turn.T) / math.sqrt(8)  # exact where the cosine is flat
    return DescribedMatrix(
        matrix=matrix.tolist(),
        rotation_degrees=math.degrees(math.atan2(sine, cosine)),
        scales=scales.tolist(),
        determinant=float(np.linalg.det(matrix[:3, :3])),
        translation_mm=matrix[:3, 3].tolist(),
    )
