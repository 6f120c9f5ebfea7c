"""Jacobian determinants of large fields in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from convexadam._typing import Field, Tensor, Volume
from convexadam.kernels import compiled_for_float32
from convexadam.kernels.jacobian import jacobian_determinant

Box: TypeAlias = tuple[slice, slice, slice]
"""The voxels from ``start`` to before ``stop`` along each axis."""

_CHUNK_VOXELS = 2**20
"""Voxels in flight at a time: nine derivatives of a whole volume would need much memory."""


def determinants_by_slab(field: Field, box: Box, in_voxels: Callable[[Tensor], Tensor]) -> Iterator[tuple[Box, Volume]]:
    """Jacobian determinants of the voxels in a box, slab by slab: which voxels, and theirs.

    Differences are central, one-sided only at the border of the whole field; see `jacobian_determinant`.

    Parameters
    ----------
    field
        Displacements ``[3, i, j, k]`` in any unit.
    box
        Which voxels.
    in_voxels
        Turns a part of the field, ``[3, a, b, d]``, into displacements in voxels.
    """
    shape, (along_i, along_j, along_k) = field.shape[1:], box
    rows = max(1, _CHUNK_VOXELS // ((along_j.stop - along_j.start) * (along_k.stop - along_k.start)))
    for first in range(along_i.start, along_i.stop, rows):
        slab = slice(first, min(first + rows, along_i.stop)), along_j, along_k
        around = grown(slab, 1, shape)  # one neighbour each way
        part = in_voxels(field[:, *around])
        with compiled_for_float32(part):
            found = jacobian_determinant(part)
        yield slab, found[within(slab, around)]


def everywhere(shape: Sequence[int]) -> Box:
    """Box of a whole volume."""
    i, j, k = (slice(0, n) for n in shape)
    return i, j, k


def grown(box: Box, margin: int, shape: Sequence[int]) -> Box:
    """Box with a margin on each side, as far as a volume of ``shape`` goes."""
    i, j, k = (slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, shape, strict=True))
    return i, j, k


def within(box: Box, outer: Box) -> Box:
    """Where a box lies in another one around it."""
    i, j, k = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, outer, strict=True))
    return i, j, k
