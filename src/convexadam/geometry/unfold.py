"""Local repair of displacement fields that fold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Triple
from convexadam.geometry.determinants import Box, determinants_by_slab, everywhere, grown, within
from convexadam.geometry.grid import Grid
from convexadam.geometry.invert import linear_fit
from convexadam.geometry.resample import linear_part
from convexadam.geometry.tensors import computing_float
from convexadam.kernels._precision import full_precision
from convexadam.kernels.smooth import along_axes, smoothing_matrix

LEAST = 0.01
"""What the determinant of each voxel of a repaired field exceeds."""

_WIDER = 1.3
"""Growth of the smoothing from round to round."""

_BLOCK = 32
"""Side, in voxels, of the blocks that the work is cut into, so that little memory is in use at a time."""


@final
@dataclass(frozen=True, kw_only=True)
class Unfolding:
    """What `unfold` has done.

    Attributes
    ----------
    voxels
        How many have another displacement than before.
    largest_mm
        Longest change of a displacement.
    rounds
        How often the field was smoothed, ever more widely.
    left
        Voxels whose determinant is still too small.
    """

    voxels: int = 0
    largest_mm: float = 0.0
    rounds: int = 0
    left: int = 0


@torch.no_grad()
@full_precision
def unfold(disp_mm: Field, grid: Grid, *, least: float = LEAST) -> Unfolding:
    """Smooth a field in place around the voxels where ``x + u(x)`` folds, or nearly does, until none is left.

    ``u <- u + w (B(u) - u)``, where ``B`` is a mean over a few voxels, and ``w`` is 1 beside voxels with too small a
    determinant and falls to 0 around them over the width of ``B``. Each round takes what is left, or new, with a wider
    ``B``; at last with one as wide as the volume, which leaves little but the linear motion that fits best. There the
    rounds end. Voxels that ``w`` does not reach keep every bit.

    Determinants are the same in voxels and in mm: the size of a voxel has no say in where a field folds.

    Parameters
    ----------
    disp_mm
        ``u``, ``[3, i, j, k]`` in mm on ``grid``, finite.
    grid
        Where ``u`` is known.
    least
        What the determinant of each voxel, border or not, is to exceed; where the linear motion that fits best shrinks
        volumes, that share of it.

    Returns
    -------
    What has changed. Nothing does where that linear motion mirrors: no smoothing helps there.
    """
    into_voxels = np.linalg.inv(grid.affine)
    slopes = linear_fit(disp_mm)[:3, :3]
    overall = float(np.linalg.det(np.eye(3) + into_voxels[:3, :3] @ slopes))
    bound = least * min(max(overall, 0.0), 1.0)
    low = torch.zeros(grid.shape, dtype=torch.bool, device=disp_mm.device)

    def look(box: Box) -> None:
        for slab, found in determinants_by_slab(disp_mm, box, lambda part: linear_part(into_voxels, part)):
            low[slab] = found <= bound

    look(everywhere(grid.shape))
    before = _Before(disp_mm)
    rounds, width = 0, 1.0
    while overall > 0 and width < 4 * max(grid.shape) and bool(low.any()):
        for core in _places(low):
            changed = grown(core, 2 * _reach(int(width)) + 1, grid.shape)
            before.keep(changed)
            _smooth(disp_mm, low, core, int(width), slopes)
            look(grown(changed, 1, grid.shape))
        rounds, width = rounds + 1, width * _WIDER
    voxels, largest_mm = before.compared()
    return Unfolding(voxels=voxels, largest_mm=largest_mm, rounds=rounds, left=int(low.count_nonzero()))


def _smooth(disp_mm: Field, low: Shaped[Tensor, "i j k"], core: Box, half: int, slopes: np.ndarray) -> None:
    """Smooth a field in place, as `unfold` describes it, around the marked voxels of a box.

    ``B`` is two means of ``2 half + 1`` voxels in a row. At the border it would bend even a linear motion, so the one
    with these ``slopes`` (mm for each voxel) is spared.
    """
    reach = _reach(half)
    box = grown(core, 3 * reach + 1, low.shape)
    here, kind = disp_mm[:, *box], computing_float(disp_mm)
    marked = torch.zeros_like(here[0], dtype=kind)
    marked[within(core, box)] = low[core].to(kind)
    spread = _matrices(np.ones(2 * reach + 3), marked)
    mean = _matrices(np.convolve(np.ones(2 * half + 1), np.ones(2 * half + 1)), marked)
    weight = along_axes((along_axes(marked[None], spread) > 0).to(kind), mean)[0]
    ticks = [torch.arange(n, device=here.device).to(kind) for n in marked.shape]
    bent = [matrix @ t - t for matrix, t in zip(mean, ticks, strict=True)]
    for component in range(3):
        change = along_axes(here[component : component + 1].to(kind), mean)[0].sub_(here[component])
        for axis, line in enumerate(bent):
            change -= float(slopes[component, axis]) * line.reshape([-1 if a == axis else 1 for a in range(3)])
        here[component] += change.mul_(weight)


def _reach(half: int) -> int:
    """Voxels that two means of ``2 half + 1`` voxels in a row look to each side."""
    return 2 * half


def _matrices(taps: np.ndarray, like: Float[Tensor, "i j k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a filter along each axis, scaled up where taps fall outside."""
    i, j, k = (smoothing_matrix(taps.tolist(), n, like=like) for n in like.shape)
    return i, j, k


def _places(low: Shaped[Tensor, "i j k"]) -> Iterator[Box]:
    """Boxes around the marked voxels of each block, looked for when their turn has come."""
    for block in _blocks(everywhere(low.shape), low.shape):
        found = low[block].nonzero()
        if len(found):
            ends = zip(block, found.amin(0).tolist(), found.amax(0).tolist(), strict=True)
            i, j, k = (slice(s.start + first, s.start + last + 1) for s, first, last in ends)
            yield i, j, k


def _blocks(box: Box, shape: Sequence[int]) -> Iterator[Box]:
    """Go through the blocks of a volume of ``shape`` that share voxels with a box."""
    axes = [
        [slice(n * _BLOCK, min((n + 1) * _BLOCK, size)) for n in range(s.start // _BLOCK, -(-s.stop // _BLOCK))]
        for s, size in zip(box, shape, strict=True)
    ]
    yield from itertools.product(*axes)


class _Before:
    """A field as it was, in the blocks that change."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._kept: dict[Triple, tuple[Box, Field]] = {}

    def keep(self, box: Box) -> None:
        """Note what a box holds before it changes."""
        for block in _blocks(box, self._field.shape[1:]):
            i, j, k = block
            if (i.start, j.start, k.start) not in self._kept:
                self._kept[i.start, j.start, k.start] = block, self._field[:, *block].clone()

    def compared(self) -> tuple[int, float]:
        """Return how many voxels have changed, and by how much at most."""
        voxels, largest = 0, 0.0
        for block, old in self._kept.values():
            change = old.sub_(self._field[:, *block])
            voxels += int(change.any(0).sum())
            largest = max(largest, float(change.square_().sum(0).max().sqrt()))
        return voxels, largest
