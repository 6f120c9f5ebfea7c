"""Local smoothing of displacement fields where they fold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Triple
from convexadam.geometry.determinants import Box, expand_box, full_box, iterate_determinants, relative_box
from convexadam.geometry.grid import Grid
from convexadam.geometry.invert import fit_linear_displacement
from convexadam.geometry.resample import transform_vectors
from convexadam.geometry.tensors import working_dtype
from convexadam.kernels._device import read_numbers
from convexadam.kernels._precision import full_precision
from convexadam.kernels.smooth import along_axes, smoothing_matrix

MIN_DETERMINANT = 0.01
"""Lower bound of the Jacobian determinant of a repaired field."""

_WIDTH_FACTOR = 1.3
"""Factor of the smoothing width from one iteration to the next."""

_BLOCK_VOXELS = 32
"""Side of the blocks that are smoothed one at a time, which bounds the memory."""


@final
@dataclass(frozen=True, kw_only=True)
class UnfoldResult:
    """Result of `unfold`.

    Attributes
    ----------
    changed_voxels
        Number of voxels whose displacement has changed.
    max_change_mm
        Length of the largest change of a displacement.
    iterations
        Number of smoothing iterations, each wider than the one before.
    remaining_voxels
        Number of voxels whose determinant is still too small.
    """

    changed_voxels: int = 0
    max_change_mm: float = 0.0
    iterations: int = 0
    remaining_voxels: int = 0


@torch.no_grad()
@full_precision
def unfold(disp_mm: Field, grid: Grid, *, min_determinant: float = MIN_DETERMINANT) -> UnfoldResult:
    """Smooth a field in place around voxels where ``x + u(x)`` folds or nearly folds.

    ``u <- u + w (B(u) - u)``, where ``B`` is a moving average, and the weight ``w`` is 1 next to voxels with too small
    a determinant and decreases to 0 over the width of ``B``. Each iteration smooths around all voxels with too small a
    determinant, with a wider ``B`` than before, until there is none or ``B`` is wider than the volume. Voxels with
    ``w = 0`` are unchanged.

    Determinants are the same in voxels and in mm, so that the result does not depend on the voxel size.

    Parameters
    ----------
    disp_mm
        ``u``, ``[3, i, j, k]`` in mm on ``grid``, finite.
    grid
        The grid of ``u``.
    min_determinant
        Lower bound of the determinant at each voxel, including the border. If the least-squares affine motion shrinks
        volumes, the bound is this fraction of its determinant.

    Returns
    -------
    The changes. There are none if the least-squares affine motion mirrors, since smoothing approaches that motion.
    """
    mm_to_voxels = np.linalg.inv(grid.affine)
    slopes = fit_linear_displacement(disp_mm)[:3, :3]
    overall = float(np.linalg.det(np.eye(3) + mm_to_voxels[:3, :3] @ slopes))
    bound = min_determinant * min(max(overall, 0.0), 1.0)
    low = torch.zeros(grid.shape, dtype=torch.bool, device=disp_mm.device)

    def mark_folds(box: Box) -> None:
        for slab, determinants in iterate_determinants(
            disp_mm, box, lambda part: transform_vectors(mm_to_voxels, part)
        ):
            low[slab] = determinants <= bound

    mark_folds(full_box(grid.shape))
    before = _Snapshot(disp_mm)
    iterations, width = 0, 1.0
    while overall > 0 and width < 4 * max(grid.shape) and (suspects := _find_marked_blocks(low)):
        for core in _iterate_folded_boxes(low, suspects):
            changed = expand_box(core, 2 * _kernel_radius(int(width)) + 1, grid.shape)
            before.save(changed)
            _smooth(disp_mm, low, core, int(width), slopes)
            marked_anew = expand_box(changed, 1, grid.shape)
            mark_folds(marked_anew)
            suspects.update(map(_start, _iterate_blocks(marked_anew, grid.shape)))
        iterations, width = iterations + 1, width * _WIDTH_FACTOR
    found = read_numbers({"remaining": low.count_nonzero(), **before.measure_change()})
    return UnfoldResult(
        changed_voxels=int(found.get("voxels", 0)),
        max_change_mm=found.get("change_mm", 0.0),
        iterations=iterations,
        remaining_voxels=int(found["remaining"]),
    )


def _smooth(disp_mm: Field, low: Shaped[Tensor, "i j k"], core: Box, half: int, slopes: np.ndarray) -> None:
    """Smooth a field in place around the marked voxels of a box, see `unfold`.

    ``B`` is two moving averages of ``2 half + 1`` voxels. At the border of the volume they would change even a linear
    field, so the linear part with these ``slopes`` (mm per voxel) is excluded from the smoothing.
    """
    reach = _kernel_radius(half)
    box = expand_box(core, 3 * reach + 1, low.shape)
    field, kind = disp_mm[:, *box], working_dtype(disp_mm)
    marked = torch.zeros_like(field[0], dtype=kind)
    marked[relative_box(core, box)] = low[core].to(kind)
    spread = _make_smoothing_matrices(np.ones(2 * reach + 3), marked)
    mean = _make_smoothing_matrices(np.convolve(np.ones(2 * half + 1), np.ones(2 * half + 1)), marked)
    weight = along_axes((along_axes(marked[None], spread) > 0).to(kind), mean)[0]
    ticks = [torch.arange(n, dtype=kind, device=field.device) for n in marked.shape]
    border = [matrix @ t - t for matrix, t in zip(mean, ticks, strict=True)]
    values = field.to(kind).contiguous()  # products depend on strides, by roundings
    change = along_axes(values, mean).sub_(field)
    for component, axis in itertools.product(range(3), range(3)):
        line = border[axis].reshape([-1 if a == axis else 1 for a in range(3)])
        change[component] -= float(slopes[component, axis]) * line
    field += change.mul_(weight)


def _kernel_radius(half: int) -> int:
    """Return the radius of two moving averages of ``2 half + 1`` voxels."""
    return 2 * half


def _make_smoothing_matrices(taps: np.ndarray, like: Float[Tensor, "i j k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a filter along each axis, normalised at the border by the sum of the taps inside."""
    i, j, k = (smoothing_matrix(taps.tolist(), n, like=like) for n in like.shape)
    return i, j, k


def _find_marked_blocks(low: Shaped[Tensor, "i j k"]) -> set[Triple]:
    """Return the first voxels of the blocks with marks; a GPU is waited for once, not for each block."""
    starts = torch.unique(low.nonzero() // _BLOCK_VOXELS * _BLOCK_VOXELS, dim=0)
    return {(i, j, k) for i, j, k in starts.tolist()}


def _iterate_folded_boxes(low: Shaped[Tensor, "i j k"], suspects: set[Triple]) -> Iterator[Box]:
    """Yield the bounding boxes of the marked voxels of each block; marks may change between two of them.

    Blocks that do not start at one of the ``suspects``, which may change as well, have no marks.
    """
    for block in _iterate_blocks(full_box(low.shape), low.shape):
        if _start(block) not in suspects:
            continue
        marked = low[block]
        flags = torch.cat([marked.any(others) for others in ((1, 2), (0, 2), (0, 1))]).tolist()
        if any(flags):
            per_axis = (flags[: marked.shape[0]], flags[marked.shape[0] : -marked.shape[2]], flags[-marked.shape[2] :])
            i, j, k = (
                slice(s.start + axis.index(True), s.stop - axis[::-1].index(True))
                for s, axis in zip(block, per_axis, strict=True)
            )
            yield i, j, k


def _start(box: Box) -> Triple:
    """Return the first voxel of a box."""
    i, j, k = box
    return i.start, j.start, k.start


def _iterate_blocks(box: Box, shape: Sequence[int]) -> Iterator[Box]:
    """Yield the blocks of a volume of ``shape`` that intersect a box."""
    axes = [
        [
            slice(n * _BLOCK_VOXELS, min((n + 1) * _BLOCK_VOXELS, size))
            for n in range(s.start // _BLOCK_VOXELS, -(-s.stop // _BLOCK_VOXELS))
        ]
        for s, size in zip(box, shape, strict=True)
    ]
    yield from itertools.product(*axes)


class _Snapshot:
    """Copies of the blocks of a field before they change."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._saved: dict[Triple, tuple[Box, Field]] = {}

    def save(self, box: Box) -> None:
        """Copy the blocks of a box that were not copied before."""
        for block in _iterate_blocks(box, self._field.shape[1:]):
            if _start(block) not in self._saved:
                self._saved[_start(block)] = block, self._field[:, *block].clone()

    def measure_change(self) -> dict[str, Float[Tensor, ""]]:
        """Return the number of changed voxels and the length of the largest change, if something was saved."""
        voxels, squares = [], []
        for block, old in self._saved.values():
            change = old.sub_(self._field[:, *block])
            voxels.append(change.any(0).sum())
            squares.append(change.square_().sum(0).max())
        if not voxels:
            return {}
        return {"voxels": torch.stack(voxels).sum(), "change_mm": torch.stack(squares).max().sqrt()}
