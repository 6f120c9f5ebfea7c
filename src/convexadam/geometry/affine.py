"""Affine transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from convexadam._arguments import check_arguments
from convexadam._typing import Field, Points, Tensor
from convexadam.errors import GeometryError
from convexadam.geometry.grid import Grid, apply_affine, evaluate_affine, is_singular, parse_affine_matrix
from convexadam.geometry.image import Image
from convexadam.geometry.resample import resample, transform_vectors
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import parse_points
from convexadam.geometry.transform import Transform, check_on_grid


@final
@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """The transform ``T(x) = A x + t`` from fixed to moving space.

    Attributes
    ----------
    matrix
        4x4 float64, mm RAS+ of fixed space to mm RAS+ of moving space; read-only. Default: the identity.

    Raises
    ------
    GeometryError
        If it is not a 4x4 matrix of finite numbers with last row 0 0 0 1, or is singular.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = 10, 0, -5
    >>> Affine(shift).warp_points(np.zeros((1, 3)), space="mm").tolist()
    [[10.0, 0.0, -5.0]]
    """

    matrix: np.ndarray

    def __init__(self, matrix: Any = None) -> None:
        object.__setattr__(self, "matrix", _parse_matrix(np.eye(4) if matrix is None else matrix))

    def __call__(self, points_mm: Points) -> Points:
        """See `Transform`."""
        return apply_affine(self.matrix, parse_points(points_mm))

    @property
    def is_identity(self) -> bool:
        """Whether the matrix equals the identity exactly."""
        return bool((self.matrix == np.eye(4)).all())

    def inverse(self) -> Affine:
        """Return the exact transform from moving to fixed space."""
        return Affine(np.linalg.inv(self.matrix))

    @check_arguments
    def displacement_on(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        check_on_grid(disp_mm, grid)
        if disp_mm is not None and self.is_identity:
            return disp_mm
        displacement = evaluate_affine((self.matrix - np.eye(4)) @ grid.affine, grid.shape, like)
        return displacement if disp_mm is None else displacement.add_(transform_vectors(self.matrix, disp_mm))

    def _warp_image(self, image: Image, grid: Grid, mode: Mode | None, fill_value: float | None) -> Image:
        """Resample at the voxels of the transformed grid, without a displacement field."""
        transformed = Grid(grid.shape, self.matrix @ grid.affine)
        return Image(resample(image, transformed, mode=mode, fill_value=fill_value).data, grid)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the matrix for ``np.asarray(affine)``; without a copy it cannot be written to."""
        return np.array(self.matrix, dtype=dtype) if copy else self.matrix.astype(dtype or np.float64, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies have a read-only matrix as well."""
        return Affine, (self.matrix,)

    def __repr__(self) -> str:
        """Print the matrix on one line."""
        rows = "; ".join(" ".join(f"{v:.4g}" for v in row) for row in self.matrix[:3])
        return f"Affine([{rows}])"


def _parse_matrix(matrix: Any) -> np.ndarray:
    parsed = parse_affine_matrix(matrix, "matrix", "mm RAS+, fixed to moving, with last row 0 0 0 1")
    if is_singular(parsed[:3, :3]):
        raise GeometryError(f"matrix must be invertible, got {parsed.tolist()}, which is singular; correct it")
    return parsed
