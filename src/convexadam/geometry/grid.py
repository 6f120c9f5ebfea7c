"""Voxel grids: shape and affine, without values."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from convexadam._typing import Field, Points, Tensor, Triple
from convexadam.errors import GeometryError
from convexadam.geometry.tensors import to_finest_float, to_matrix, working_dtype
from convexadam.kernels._device import send

_SAME_VOXELS = 1e-3
"""Largest distance of corresponding corners of two grids that count as equal, in voxels."""

SPACE_CODES = range(1, 6)

HEADER_ROUNDING = 0.02
"""Distance of corresponding corners that rounding in the headers of two files may cause, in voxels."""


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels in patient space.

    Attributes
    ----------
    shape
        Number of voxels along ``(i, j, k)``, each at least 1.
    affine
        4x4 float64 array that maps the index ``(i, j, k)`` of a voxel *centre* to millimetres RAS+.
        The array is read-only. Default: the identity (1 mm voxels, axes along R, A, S).
    space_code
        What the millimetres refer to, by the code of NIfTI: 1 the scanner, 2 another image, 3 the atlas of Talairach,
        4 MNI 152, 5 another template. It is kept in files, and no computation depends on it.

    Raises
    ------
    GeometryError
        If the shape is not three positive integers, the affine is not a finite, invertible 4x4 matrix with last row
        0 0 0 1, or the code is not a whole number from 1 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> grid.spacing_mm
    (2.0, 2.0, 3.0)
    >>> grid.index_to_world(torch.tensor([[1.0, 1.0, 1.0]])).tolist()
    [[2.0, 2.0, 3.0]]
    """

    shape: Triple
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    space_code: int = 1

    def __post_init__(self) -> None:
        if self.space_code not in SPACE_CODES:
            raise GeometryError(f"space_code must be a code of NIfTI from 1 to 5, got {self.space_code!r}; pass 1")
        object.__setattr__(self, "shape", _parse_shape(self.shape))
        object.__setattr__(self, "affine", _parse_affine(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along ``(i, j, k)``, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def index_to_world(self, points_vox: Points) -> Points:
        """Map continuous voxel indices (centres at integers) to mm RAS+; ``(n, 3)``, float64 (on MPS float32)."""
        return apply_affine(self.affine, points_vox)

    def world_to_index(self, points_mm: Points) -> Points:
        """Map mm RAS+ to continuous voxel indices; ``(n, 3)``, float64 (on MPS float32)."""
        return apply_affine(np.linalg.inv(self.affine), points_mm)

    def index_map_from(self, source: Grid) -> np.ndarray:
        """Return the 4x4 map from voxel indices of ``source`` to voxel indices of this grid."""
        return np.asarray(np.linalg.solve(self.affine, source.affine))

    def is_close(self, other: Grid, *, tolerance: float = _SAME_VOXELS) -> bool:
        """Whether both grids have the same shape and their corners agree to ``tolerance`` voxels."""
        if self.shape != other.shape:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
        corners[:, :3] *= self.shape
        distance = (corners @ (self.index_map_from(other) - np.eye(4)).T)[:, :3]
        return bool(np.abs(distance).max() < tolerance)

    def pool(self, spacing: Triple) -> Grid:
        """Return the grid of a volume after average pooling by ``spacing`` voxels.

        The centre of block ``n`` is at voxel ``spacing * n + (spacing - 1) / 2``; voxels beyond the last whole block
        are omitted. ``spacing`` is at least 1 and at most the shape.

        Raises
        ------
        GeometryError
            If the spacing is not three integers within that range.
        """
        try:
            steps = [operator.index(s) for s in spacing]
        except TypeError as error:
            raise GeometryError(
                f"spacing must be three whole numbers of voxels, got {spacing!r}; round them"
            ) from error
        if len(steps) != 3 or not all(1 <= s <= n for s, n in zip(steps, self.shape, strict=True)):
            raise GeometryError(
                f"spacing must be three numbers of voxels from 1 to {self.shape}, got {spacing}; choose others"
            )
        scale = np.diag([*map(float, steps), 1.0])
        scale[:3, 3] = [(s - 1) / 2 for s in steps]
        i, j, k = (n // s for n, s in zip(self.shape, steps, strict=True))
        return Grid((i, j, k), self.affine @ scale, self.space_code)

    def canonical(self) -> Grid:
        """Return the grid with axes permuted and flipped to be as close as possible to R, A and S, as in nibabel."""
        axes, flips = self.canonical_axes()
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            matrix[old, new] = -1 if flip else 1
            matrix[old, 3] = self.shape[old] - 1 if flip else 0
        i, j, k = (self.shape[a] for a in axes)
        return Grid((i, j, k), self.affine @ matrix, self.space_code)

    def canonical_axes(self) -> tuple[Triple, tuple[bool, bool, bool]]:
        """Return for R, A and S the tensor axis closest to it, and whether that axis must be flipped."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        free_world, free_axes = [0, 1, 2], [0, 1, 2]
        chosen: dict[int, int] = {}
        while free_world:
            strength = np.abs(directions[np.ix_(free_world, free_axes)]).round(6)
            world, axis = np.unravel_index(int(strength.argmax()), strength.shape)
            chosen[free_world.pop(int(world))] = free_axes.pop(int(axis))
        flips = [bool(directions[world, chosen[world]] < 0) for world in range(3)]
        return (chosen[0], chosen[1], chosen[2]), (flips[0], flips[1], flips[2])

    def with_spacing(self, spacing_mm: tuple[float, float, float]) -> Grid:
        """Return a grid with another voxel size over the same field of view, with the same centre and directions.

        The number of voxels is rounded, so that the field of view may change by up to half a voxel.

        Raises
        ------
        GeometryError
            If the spacing is not three positive numbers of mm.
        """
        if len(spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
            raise GeometryError(
                f"spacing_mm must be three positive numbers, got {spacing_mm}; pass mm along i, j and k"
            )
        counts = [
            max(1, round(n * old / new)) for n, old, new in zip(self.shape, self.spacing_mm, spacing_mm, strict=True)
        ]
        scale = np.eye(4)
        for a, (old_n, new_n, old, new) in enumerate(zip(self.shape, counts, self.spacing_mm, spacing_mm, strict=True)):
            scale[a, a] = new / old
            scale[a, 3] = (old_n - 1) / 2 - scale[a, a] * (new_n - 1) / 2
        return Grid((counts[0], counts[1], counts[2]), self.affine @ scale, self.space_code)

    def summary(self) -> dict[str, Any]:
        """Return shape, spacing, orientation and affine as JSON-serialisable values."""
        return {
            "shape": list(self.shape),
            "spacing_mm": [round(s, 6) for s in self.spacing_mm],
            "orientation": self.orientation,
            "affine": self.affine.tolist(),
        }

    def __repr__(self) -> str:
        """Shape, spacing and orientation, on one line."""
        spacing = ", ".join(f"{s:.3g}" for s in self.spacing_mm)
        return f"Grid(shape={self.shape}, spacing_mm=({spacing}), orientation={self.orientation!r})"

    @property
    def orientation(self) -> str:
        """Three letters: the direction of each tensor axis, for example ``"RAS"`` or ``"LIA"``."""
        axes, flips = self.canonical_axes()
        letters = [""] * 3
        for world, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            letters[axis] = ("LPI" if flip else "RAS")[world]
        return "".join(letters)


def apply_affine(matrix: np.ndarray, points: Tensor) -> Tensor:
    """Map ``(n, 3)`` points with a 4x4 matrix; computed and returned in `finest_float` on the points' device."""
    full = to_finest_float(torch.from_numpy(np.array(matrix, dtype=np.float64)), points.device)
    return to_finest_float(points, points.device) @ full[:3, :3].T + full[:3, 3]


def evaluate_affine(matrix: np.ndarray, shape: Triple, like: Tensor) -> Field:
    """Evaluate a 4x4 map of voxel indices at each voxel: ``[3, i, j, k]`` of the type of ``like``, at least float32."""
    kind = working_dtype(like)
    result = torch.empty((3, *shape), dtype=kind, device=like.device)
    for component in range(3):
        i, j, k = (
            torch.arange(n, dtype=torch.float64, device="cpu") * matrix[component, a] for a, n in enumerate(shape)
        )
        i, j, k = (send(ticks, result) for ticks in (i + matrix[component, 3], j, k))
        result[component] = (i[:, None] + j)[:, :, None]
        result[component] += k
    return result


def _parse_shape(shape: Any) -> Triple:
    try:
        numbers = tuple(operator.index(n) for n in shape)
    except TypeError as error:
        raise GeometryError(f"shape must be three whole numbers, got {shape!r}; pass a tuple of integers") from error
    if len(numbers) != 3 or min(numbers) < 1:
        raise GeometryError(
            f"shape must be three sizes of at least 1, got {tuple(shape)}; only 3-D volumes are supported"
        )
    return numbers[0], numbers[1], numbers[2]


def _parse_affine(affine: Any) -> np.ndarray:
    try:
        matrix = to_matrix(affine)
    except (TypeError, ValueError) as error:
        raise GeometryError(
            f"affine must be a 4x4 array of numbers, got {affine!r}; pass an array or nested lists"
        ) from error
    if matrix.shape != (4, 4):
        raise GeometryError(
            f"affine must have shape (4, 4), got {matrix.shape}; pass the map from voxel indices to mm RAS+"
        )
    if not np.isfinite(matrix).all():
        raise GeometryError("affine must be finite, got NaN or Inf; correct the header, or pass an affine")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise GeometryError(f"affine must have last row 0 0 0 1, got {matrix[3].tolist()}; correct the header")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise GeometryError(
            f"affine must be invertible, got a singular one (voxel sizes {lengths.tolist()} mm); correct the header, "
            "or pass an affine"
        )
    matrix.setflags(write=False)
    return matrix
