"""Rotation, scales and translation of affine matrices."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np


class MatrixDecomposition(TypedDict):
    """Parts of ``T(x) = A x + t`` in mm RAS+.

    ``A = R S`` with a symmetric ``S``, whose eigenvalues are ``scales`` (largest first), and a rotation ``R``, combined
    with a reflection if the determinant is negative (polar decomposition).
    """

    matrix: list[list[float]]
    rotation_degrees: float
    scales: list[float]
    determinant: float
    translation_mm: list[float]


def decompose_matrix(matrix: np.ndarray) -> MatrixDecomposition:
    """Decompose a 4x4 matrix into rotation, scales and translation.

    Examples
    --------
    >>> found = decompose_matrix(np.diag([2.0, -3, -4, 1]))
    >>> round(found["rotation_degrees"]), found["scales"]
    (180, [4.0, 3.0, 2.0])
    """
    left, scales, right = np.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    if np.linalg.det(rotation) < 0:
        rotation = -rotation
    cosine = (np.trace(rotation) - 1) / 2
    sine = np.linalg.norm(rotation - rotation.T) / math.sqrt(8)  # accurate near 0 and 180 degrees, unlike acos
    return MatrixDecomposition(
        matrix=matrix.tolist(),
        rotation_degrees=math.degrees(math.atan2(sine, cosine)),
        scales=scales.tolist(),
        determinant=float(np.linalg.det(matrix[:3, :3])),
        translation_mm=matrix[:3, 3].tolist(),
    )
