"""Where voxels are: shape and affine, apart from what the voxels hold."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from convexadam._typing import Field, Points, Tensor, Triple
from convexadam.errors import GeometryError
from convexadam.geometry.tensors import as_finest, as_matrix, computing_float

_SAME_VOXELS = 1e-3
"""Two grids are the same when no corner is further apart than this, in voxels."""


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in patient space.

    Attributes
    ----------
    shape
        Number of voxels along ``(i, j, k)``, each at least 1.
    affine
        4x4 float64 array that maps the index ``(i, j, k)`` of a voxel *centre* to millimetres RAS+.
        The array is read-only. Default: the identity (1 mm voxels, axes along R, A, S).

    Raises
    ------
    GeometryError
        If the shape is not three positive whole numbers, or the affine is not finite, singular or no
        affine at all (last row other than 0 0 0 1).

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> grid.spacing_mm
    (2.0, 2.0, 3.0)
    >>> grid.to_mm(torch.tensor([[1.0, 1.0, 1.0]])).tolist()
    [[2.0, 2.0, 3.0]]
    """

    shape: Triple
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along ``(i, j, k)``, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def to_mm(self, points_vox: Points) -> Points:
        """Voxel indices (continuous, centres at integers) to mm RAS+; float64 (on MPS float32), shape ``(n, 3)``."""
        return apply_affine(self.affine, points_vox)

    def to_voxels(self, points_mm: Points) -> Points:
        """Millimetres RAS+ to continuous voxel indices; float64 (on MPS float32), shape ``(n, 3)``."""
        return apply_affine(np.linalg.inv(self.affine), points_mm)

    def voxels_from(self, other: Grid) -> np.ndarray:
        """Return the 4x4 map from the voxel indices of ``other`` to the voxel indices of this grid."""
        return np.asarray(np.linalg.solve(self.affine, other.affine))

    def same_as(self, other: Grid) -> bool:
        """Whether both grids have the same voxels, to a thousandth of a voxel."""
        if self.shape != other.shape:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
        corners[:, :3] *= self.shape
        apart = (corners @ (self.voxels_from(other) - np.eye(4)).T)[:, :3]
        return bool(np.abs(apart).max() < _SAME_VOXELS)

    def pooled(self, spacing: Triple) -> Grid:
        """Return the grid of the nodes that average pooling by ``spacing`` voxels makes.

        Node ``n`` lies at voxel ``spacing * n + (spacing - 1) / 2``; what does not fill a whole node at
        the far end is left out. ``spacing`` is at least 1 and may not exceed the shape.

        Raises
        ------
        GeometryError
            If the spacing is not three whole numbers within that range.
        """
        try:
            steps = [operator.index(s) for s in spacing]
        except TypeError as error:
            raise GeometryError(
                f"nodes are a whole number of voxels apart along each axis, but {spacing!r} came"
            ) from error
        if len(steps) != 3 or not all(1 <= s <= n for s, n in zip(steps, self.shape, strict=True)):
            raise GeometryError(f"nodes are 1 voxel apart or more, and at most {self.shape}, but {spacing} came")
        scale = np.diag([*map(float, steps), 1.0])
        scale[:3, 3] = [(s - 1) / 2 for s in steps]
        i, j, k = (n // s for n, s in zip(self.shape, steps, strict=True))
        return Grid((i, j, k), self.affine @ scale)

    def canonical(self) -> Grid:
        """Return the same voxels with axes reordered and flipped to run as closely as possible along R, A, S."""
        axes, flips = self.canonical_axes()
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            matrix[old, new] = -1 if flip else 1
            matrix[old, 3] = self.shape[old] - 1 if flip else 0
        i, j, k = (self.shape[a] for a in axes)
        return Grid((i, j, k), self.affine @ matrix)

    def canonical_axes(self) -> tuple[Triple, tuple[bool, bool, bool]]:
        """For R, A and S: the tensor axis that runs along it, and whether that axis has to be flipped."""
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
        """Return a grid over the same box with the same directions and other voxels, centred on this one.

        The number of voxels is rounded, so that the box may be up to half a new voxel larger or smaller.

        Raises
        ------
        GeometryError
            If the spacing is not three positive numbers of mm.
        """
        if len(spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
            raise GeometryError(f"voxels have positive sizes in mm, but {spacing_mm} came")
        counts = [
            max(1, round(n * old / new)) for n, old, new in zip(self.shape, self.spacing_mm, spacing_mm, strict=True)
        ]
        scale = np.eye(4)
        for a, (old_n, new_n, old, new) in enumerate(zip(self.shape, counts, self.spacing_mm, spacing_mm, strict=True)):
            scale[a, a] = new / old
            scale[a, 3] = (old_n - 1) / 2 - scale[a, a] * (new_n - 1) / 2
        return Grid((counts[0], counts[1], counts[2]), self.affine @ scale)

    def described(self) -> dict[str, Any]:
        """Shape, spacing, orientation and affine as plain values that JSON can hold."""
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
        """Three letters: where each tensor axis points to, for example ``"RAS"`` or ``"LIA"``."""
        axes, flips = self.canonical_axes()
        letters = [""] * 3
        for world, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            letters[axis] = ("LPI" if flip else "RAS")[world]
        return "".join(letters)


def apply_affine(matrix: np.ndarray, points: Tensor) -> Tensor:
    """Map ``(n, 3)`` points with a 4x4 matrix; computed and returned in `finest_float` on the points' device."""
    full = as_finest(torch.from_numpy(np.array(matrix, dtype=np.float64)), points.device)
    return as_finest(points, points.device) @ full[:3, :3].T + full[:3, 3]


def linear_field(matrix: np.ndarray, shape: Triple, like: Tensor) -> Field:
    """Values of a 4x4 map of voxel indices at each voxel, ``[3, i, j, k]``, of ``like``'s type (at least float32)."""
    kind = computing_float(like)
    result = torch.empty((3, *shape), dtype=kind, device=like.device)
    for component in range(3):
        i, j, k = (
            torch.arange(n, dtype=torch.float64, device="cpu") * matrix[component, a] for a, n in enumerate(shape)
        )
        i, j, k = (ticks.to(kind).to(like.device) for ticks in (i + matrix[component, 3], j, k))
        result[component] = (i[:, None] + j)[:, :, None]
        result[component] += k
    return result


def _checked_shape(shape: Any) -> Triple:
    try:
        numbers = tuple(operator.index(n) for n in shape)
    except TypeError as error:
        raise GeometryError(f"the shape of a grid is three whole numbers, but {shape!r} came") from error
    if len(numbers) != 3 or min(numbers) < 1:
        raise GeometryError(
            f"a grid needs three sizes of at least 1, but the shape is {tuple(shape)}; only 3-D volumes are registered"
        )
    return numbers[0], numbers[1], numbers[2]


def _checked_affine(affine: Any) -> np.ndarray:
    try:
        matrix = as_matrix(affine)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"an affine is a 4x4 matrix of numbers, but {affine!r} came") from error
    if matrix.shape != (4, 4):
        raise GeometryError(f"an affine is a 4x4 matrix from voxel indices to mm RAS+, but its shape is {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise GeometryError("the affine holds NaN or Inf; correct the header, or pass an affine")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise GeometryError(f"the last row of an affine is 0 0 0 1, but here it is {matrix[3].tolist()}")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise GeometryError(
            f"the affine is singular (voxel sizes {lengths.tolist()} mm): voxels would have no volume; "
            "correct the header, or pass an affine"
        )
    matrix.setflags(write=False)
    return matrix
