"""Voxel grids: shape and affine, without values."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number, is_finite, is_number, show, to_whole
from convexadam._typing import AxisWeights, Field, Points, Tensor, Triple
from convexadam.errors import GeometryError
from convexadam.geometry.tensors import check_allocation, parse_points, to_finest_float, to_matrix, working_dtype
from convexadam.kernels._device import send

_SAME_VOXELS = 1e-3
"""Largest distance of corresponding corners of two grids that count as equal, in voxels."""

_MIN_MM, _MAX_MM = 1e-9, 1e9
"""A picometre and a thousand kilometres, whose squares float32 holds; others are those of a damaged header."""

_FARTHEST = 1e12
"""Distance of the origin in voxels at which float64 still resolves a thousandth of a voxel."""

_MAX_VOXELS = 2**40

_LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])
_ROUNDING = 1e-8 + 1e-5 * _LAST_ROW
"""Largest difference of the last row of a matrix from what it must be."""

_MIN_RATIO = 1e-8
"""Length of the shortest to that of the longest edge of a voxel."""

_MIN_VOLUME = 1e-6
"""Volume of a voxel, as a share of that of a box with the same edges, below which its axes lie in a plane."""
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
        whole = isinstance(self.space_code, numbers.Integral) and is_number(self.space_code)
        if not whole or self.space_code not in SPACE_CODES:
            raise GeometryError(f"space_code must be a code of NIfTI from 1 to 5, got {show(self.space_code)}; pass 1")
        object.__setattr__(self, "shape", _parse_shape(self.shape))
        object.__setattr__(self, "affine", _parse_affine(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along ``(i, j, k)``, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def slice_axis(self) -> int | None:
        """The axis across a 2-D image, the only one with one voxel; ``None`` for a volume."""
        single = [axis for axis, n in enumerate(self.shape) if n == 1]
        return single[0] if len(single) == 1 else None

    @property
    def dims(self) -> int:
        """Number of dimensions: 2 for a grid of one slice, else 3."""
        return 3 if self.slice_axis is None else 2

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def index_to_world(self, points_vox: Points) -> Points:
        """Map continuous voxel indices (centres at integers) to mm RAS+; ``(n, 3)``, float64 (on MPS float32)."""
        return apply_affine(self.affine, parse_points(points_vox))

    def world_to_index(self, points_mm: Points) -> Points:
        """Map mm RAS+ to continuous voxel indices; ``(n, 3)``, float64 (on MPS float32)."""
        return apply_affine(np.linalg.inv(self.affine), parse_points(points_mm))

    @check_arguments
    def index_map_from(self, source: Grid) -> np.ndarray:
        """Return the 4x4 map from voxel indices of ``source`` to voxel indices of this grid."""
        return np.asarray(np.linalg.solve(self.affine, source.affine))

    @check_arguments
    def is_close(self, other: Grid, *, tolerance: float = _SAME_VOXELS) -> bool:
        """Whether both grids have the same shape and their corners agree to ``tolerance`` voxels."""
        check_number(tolerance, "tolerance")
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
            steps = [to_whole(s) for s in spacing]
        except TypeError as error:
            raise GeometryError(
                f"spacing must be three whole numbers of voxels, got {show(spacing)}; round them"
            ) from error
        if len(steps) != 3 or not all(1 <= s <= n for s, n in zip(steps, self.shape, strict=True)):
            raise GeometryError(
                f"spacing must be three numbers of voxels from 1 to {self.shape}, got {show(spacing)}; choose others"
            )
        scale = np.diag([*map(float, steps), 1.0])
        scale[:3, 3] = [(s - 1) / 2 for s in steps]
        i, j, k = (n // s for n, s in zip(self.shape, steps, strict=True))
        return Grid((i, j, k), self.affine @ scale, self.space_code)

    def canonical(self) -> Grid:
        """Return the grid with axes permuted and flipped to be as close as possible to R, A and S, as in nibabel."""
        return self._canonical

    @cached_property
    def _canonical(self) -> Grid:
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
        return self._canonical_axes

    @cached_property
    def _canonical_axes(self) -> tuple[Triple, tuple[bool, bool, bool]]:
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
        spacing_mm = check_spacing(spacing_mm)
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
            "spacing_mm": [float(f"{s:.7g}") for s in self.spacing_mm],
            "orientation": self.orientation,
            "affine": self.affine.tolist(),
        }

    def __eq__(self, other: object) -> bool:
        """Whether shape, affine and code are the same numbers; `is_close` allows for rounding."""
        if not isinstance(other, Grid):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        """Equal grids have one hash, so that they are one key of a dictionary."""
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.shape, self.space_code, tuple(self.affine.ravel().tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies have a read-only affine as well."""
        return Grid, (self.shape, self.affine, self.space_code)

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


def axes_with_extent(grid: Grid) -> tuple[int, ...]:
    """Return the axes along which an image has several voxels: those of the plane of one slice; else all three."""
    return tuple(axis for axis in range(3) if axis != grid.slice_axis)


def restrict_to_slice(weights: AxisWeights, grid: Grid) -> AxisWeights:
    """Return weights of motion along the axes of a grid, with 0 across the slice of a 2-D image."""
    a, b, c = (0.0 if axis == grid.slice_axis else float(weight) for axis, weight in enumerate(weights))
    return a, b, c


def sides_mm(grid: Grid) -> tuple[float, ...]:
    """Return the voxel size along `axes_with_extent`: how thick a single slice is does not count."""
    return tuple(grid.spacing_mm[axis] for axis in axes_with_extent(grid))


def mean_side_mm(grid: Grid) -> float:
    """Return the side of a cube (a square, for one slice) as large as the field of view, in mm."""
    axes = axes_with_extent(grid)
    return math.prod(grid.shape[axis] * grid.spacing_mm[axis] for axis in axes) ** (1 / len(axes))


def with_cubes(grid: Grid, edge_mm: float) -> Grid:
    """Return a grid of cubic voxels over the same field of view; of squares, in a single slice, whose thickness stays.

    The number of voxels is rounded, see `Grid.with_spacing`.
    """
    i, j, k = (s if axis == grid.slice_axis else edge_mm for axis, s in enumerate(grid.spacing_mm))
    return grid.with_spacing((i, j, k))


def apply_affine(matrix: np.ndarray, points: Tensor) -> Tensor:
    """Map ``(n, 3)`` points with a 4x4 matrix; computed and returned in `finest_float` on the points' device."""
    full = to_finest_float(torch.from_numpy(np.array(matrix, dtype=np.float64)), points.device)
    return to_finest_float(points, points.device) @ full[:3, :3].T + full[:3, 3]


def evaluate_affine(matrix: np.ndarray, shape: Triple, like: Tensor) -> Field:
    """Evaluate a 4x4 map of voxel indices at each voxel: ``[3, i, j, k]`` of the type of ``like``, at least float32."""
    check_allocation((3, *shape), "the displacement field")
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
        numbers = tuple(to_whole(n) for n in shape)
    except TypeError as error:
        raise GeometryError(
            f"shape must be three whole numbers, got {show(shape)}; pass a tuple of integers"
        ) from error
    if len(numbers) != 3 or min(numbers) < 1:
        raise GeometryError(
            f"shape must be three sizes of at least 1, got {show(numbers)}; only 3-D volumes are supported"
        )
    if math.prod(numbers) > _MAX_VOXELS:
        raise GeometryError(f"shape must have at most 2^40 voxels, got {show(numbers)}; correct the header")
    return numbers[0], numbers[1], numbers[2]


def check_spacing(spacing_mm: Any) -> tuple[float, float, float]:
    """Return a voxel size as three floats.

    Raises
    ------
    GeometryError
        If it is not three positive numbers of mm that float32 can compute with.
    """
    is_list = isinstance(spacing_mm, (tuple, list)) or getattr(spacing_mm, "ndim", 0) == 1
    values = tuple(spacing_mm) if is_list and len(spacing_mm) == 3 else ()
    values = tuple(v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for v in values)
    if len(values) != 3 or not all(is_finite(s) and _MIN_MM <= s <= _MAX_MM for s in values):
        raise GeometryError(
            f"spacing_mm must be three positive numbers from {_MIN_MM:g} to {_MAX_MM:g}, got {show(spacing_mm)}; "
            "pass mm along i, j and k"
        )
    return float(values[0]), float(values[1]), float(values[2])


def is_singular(linear: np.ndarray) -> bool:
    """Whether the columns of a 3x3 matrix lie in a plane, whatever their lengths."""
    lengths = np.linalg.norm(linear, axis=0)
    return bool(lengths.min() <= _MIN_RATIO * lengths.max() or not abs(np.linalg.det(linear / lengths)) >= _MIN_VOLUME)


def parse_affine_matrix(matrix: Any, name: str, meaning: str) -> np.ndarray:
    """Return a 4x4 matrix, read-only; raise `GeometryError` unless it is finite with last row 0 0 0 1."""
    try:
        parsed = to_matrix(matrix)
    except (TypeError, ValueError, OverflowError) as error:
        raise GeometryError(
            f"{name} must be a 4x4 array of numbers, got {show(matrix)}; pass an array or nested lists"
        ) from error
    if parsed.shape != (4, 4):
        raise GeometryError(f"{name} must have shape (4, 4), got {parsed.shape}; pass {meaning}")
    if not np.isfinite(parsed).all():
        raise GeometryError(f"{name} must be finite, got NaN or Inf; pass {meaning}")
    if not (np.abs(parsed[3] - _LAST_ROW) <= _ROUNDING).all():
        raise GeometryError(f"{name} must have last row 0 0 0 1, got {parsed[3].tolist()}; pass {meaning}")
    parsed.setflags(write=False)
    return parsed


def _parse_affine(affine: Any) -> np.ndarray:
    matrix = parse_affine_matrix(affine, "affine", "the map from voxel indices to mm RAS+, or correct the header")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() > 0 and (lengths.min() < _MIN_MM or lengths.max() > _MAX_MM):
        raise GeometryError(
            f"affine must have voxel sizes from {_MIN_MM:g} to {_MAX_MM:g} mm, got {lengths.tolist()}; correct the "
            "header, or pass an affine"
        )
    if is_singular(matrix[:3, :3]):
        raise GeometryError(
            f"affine must be invertible, got a singular one (voxel sizes {lengths.tolist()} mm); correct the header, "
            "or pass an affine"
        )
    if np.abs(matrix[:3, 3]).max() > _FARTHEST * lengths.max():
        raise GeometryError(f"affine must have an origin in reach, got {matrix[:3, 3].tolist()} mm; correct the header")
    return matrix
