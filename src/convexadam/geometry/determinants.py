"""Jacobian determinants of large fields, computed slab by slab to bound memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from convexadam._typing import Field, Tensor, Volume
from convexadam.kernels import compiled_for_float32
from convexadam.kernels._device import chunk_size
from convexadam.kernels.jacobian import jacobian_determinant

Box: TypeAlias = tuple[slice, slice, slice]
"""The voxels from ``start`` to before ``stop`` along each axis."""

_CHUNK_VOXELS = {"cpu": 2**18, "gpu": 2**23}
"""Voxels per slab, whose displacements in voxels are in memory."""


def iterate_determinants(field: Field, box: Box, to_voxels: Callable[[Tensor], Tensor]) -> Iterator[tuple[Box, Volume]]:
    """Yield the slabs of a box with the Jacobian determinants of their voxels.

    Differences are central, one-sided only at the border of the whole field; see `jacobian_determinant`.

    Parameters
    ----------
    field
        Displacements ``[3, i, j, k]`` in any unit.
    box
        The voxels to evaluate.
    to_voxels
        Converts a part of the field, ``[3, a, b, d]``, to displacements in voxels.
    """
    shape, (along_i, along_j, along_k) = field.shape[1:], box
    plane = (along_j.stop - along_j.start) * (along_k.stop - along_k.start)
    rows = max(1, chunk_size(field, **_CHUNK_VOXELS) // plane)
    for first in range(along_i.start, along_i.stop, rows):
        slab = slice(first, min(first + rows, along_i.stop)), along_j, along_k
        around = expand_box(slab, 1, shape)  # central differences need one neighbour on each side
        part = to_voxels(field[:, *around])
        with compiled_for_float32(part):
            found = jacobian_determinant(part)
        yield slab, found[relative_box(slab, around)]


def full_box(shape: Sequence[int]) -> Box:
    """Return the box of a whole volume."""
    i, j, k = (slice(0, n) for n in shape)
    return i, j, k


def expand_box(box: Box, margin: int, shape: Sequence[int]) -> Box:
    """Return a box with a margin on each side, clipped to a volume of ``shape``."""
    i, j, k = (slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, shape, strict=True))
    return i, j, k


def relative_box(box: Box, outer: Box) -> Box:
    """Return a box relative to the start of an outer box that contains it."""
    i, j, k = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, outer, strict=True))
    return i, j, k
