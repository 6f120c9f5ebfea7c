"""Affine transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from convexadam._typing import Field, Points, Tensor
from convexadam.errors import GeometryError
from convexadam.geometry.grid import Grid, apply_affine, linear_field
from convexadam.geometry.image import Image
from convexadam.geometry.resample import linear_part, resample
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import as_matrix
from convexadam.geometry.transform import Transform


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
        If it is no 4x4 matrix of finite numbers with the last row 0 0 0 1, or has no inverse.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[:3, 3] = 10, 0, -5
    >>> Affine(shift).warp_points(np.zeros((1, 3)), space="mm").tolist()
    [[10.0, 0.0, -5.0]]
    """

    matrix: np.ndarray

    def __init__(self, matrix: Any = None) -> None:
        object.__setattr__(self, "matrix", _checked_matrix(np.eye(4) if matrix is None else matrix))

    def __call__(self, points_mm: Points) -> Points:
        """See `Transform`."""
        return apply_affine(self.matrix, points_mm)

    @property
    def is_identity(self) -> bool:
        """Whether it moves nothing, exactly."""
        return bool((self.matrix == np.eye(4)).all())

    def inverse(self) -> Affine:
        """Return the transform from moving to fixed space, exactly."""
        return Affine(np.linalg.inv(self.matrix))

    def after(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        if disp_mm is not None and self.is_identity:
            return disp_mm
        moved = linear_field((self.matrix - np.eye(4)) @ grid.affine, grid.shape, like)
        return moved if disp_mm is None else moved.add_(linear_part(self.matrix, disp_mm))

    def _warped(self, image: Image, grid: Grid, mode: Mode | None, background: float | None) -> Image:
        """Read at the voxels of the moved grid: no displacement is held for each voxel."""
        moved = Grid(grid.shape, self.matrix @ grid.affine)
        return Image(resample(image, moved, mode=mode, background=background).data, grid)

    def __repr__(self) -> str:
        """Print the matrix on one line."""
        rows = "; ".join(" ".join(f"{v:.4g}" for v in row) for row in self.matrix[:3])
        return f"Affine([{rows}])"


def _checked_matrix(matrix: Any) -> np.ndarray:
    try:
        found = as_matrix(matrix)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"an affine transform is a 4x4 matrix of numbers, but {matrix!r} came") from error
    if found.shape != (4, 4):
        raise GeometryError(f"an affine transform is a 4x4 matrix, but one of shape {found.shape} came")
    if not np.isfinite(found).all() or not np.allclose(found[3], (0, 0, 0, 1)):
        raise GeometryError(
            f"an affine transform is a matrix of finite numbers with the last row 0 0 0 1, but {found.tolist()} came"
        )
    lengths = np.linalg.norm(found[:3, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(found[:3, :3] / lengths)) < 1e-6:
        raise GeometryError(f"the affine transform {found.tolist()} is singular: it has no inverse")
    found.setflags(write=False)
    return found
