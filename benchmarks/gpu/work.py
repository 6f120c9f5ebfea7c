"""What each kernel has to do at the least: bytes between chip and memory, each array once, and operations.

An operation is an addition, a multiplication, a comparison or one call of ``exp``, ``sqrt`` or ``/``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Triple = tuple[int, int, int]

FLOAT, HALF = 4, 2


@dataclass(frozen=True)
class Work:
    """Least traffic and arithmetic of one call."""

    bytes: int
    operations: int


def copied(count: int) -> Work:
    """One array of floats, read and written."""
    return Work(2 * FLOAT * count, 0)


def described(shape: Triple, spacings: Sequence[Triple], *, radius: int = 1) -> Work:
    """MIND-SSC of a volume, averaged over blocks.

    The volume is read twice, because each descriptor is relative to a mean over the volume. A sweep takes per voxel 12
    squared differences (2), their sums over a patch (2 ``radius`` for each axis), the smallest (1) and the mean (1);
    the second also subtracts (1), scales (1), takes ``exp`` (1) and adds to each block (1).
    """
    voxels = math.prod(shape)
    blocks = sum(math.prod(n // s for n, s in zip(shape, spacing, strict=True)) for spacing in spacings)
    sweep = 12 * (2 + 3 * 2 * radius + 2)
    return Work(FLOAT * (2 * voxels + 12 * blocks), voxels * (2 * sweep + 12 * (3 + len(spacings))))


def compared_over_windows(cells: Triple, labels: int, *, channels: int = 12) -> Work:
    """Costs of all displacements: difference, square, sum (3 a channel), two 3x3x3 means (12), one division."""
    count = math.prod(cells)
    return Work(count * (2 * FLOAT * channels + HALF * labels), count * labels * (3 * channels + 13))


def cheapest(cells: Triple, labels: int) -> Work:
    """Search through the costs with a pull: two additions, a multiplication, an addition, a comparison a label."""
    count = math.prod(cells)
    return Work(count * (HALF * labels + 6 * FLOAT), 5 * count * labels)


def gradient(
    nodes: Triple, *, channels: int = 12, padded: int = 16, storage: int = HALF, weights: int = 0, blocks: int = 0
) -> Work:
    """Squared difference and gradient with roughness: both maps once, the field in and its gradient out.

    A channel takes 2 faces of 12, 4 for the residual, 2 for the value and 12 for the gradient; a node some 50 for its
    position and 36 for the roughness. A Gauss-Newton block has six entries, each of which takes 2 a channel and 1 for
    the weight.
    """
    count = math.prod(nodes)
    traffic = 2 * storage * padded + FLOAT * (6 + weights + 6 * blocks)
    return Work(count * traffic, count * (42 * channels + 86 + 6 * blocks * (2 * channels + 1)))


def smoothed(nodes: Triple, taps: int, *, fields: int = 3, weights: int = 1) -> Work:
    """Three passes of ``taps`` multiplications and additions, field in and out; the passes between are not counted."""
    count = math.prod(nodes)
    return Work(FLOAT * count * (2 * fields + weights), count * fields * (6 * taps + weights))


def moved(nodes: Triple) -> Work:
    """Adam: variable, gradient and two moments in, three of them out; 14 operations a value."""
    count = 3 * math.prod(nodes)
    return Work(FLOAT * 7 * count, 14 * count)


def composed(nodes: Triple) -> Work:
    """Composition of two fields: both in, one out; 25 for length and position, 3 components of 7 x 3 + 1."""
    count = math.prod(nodes)
    return Work(FLOAT * 9 * count, count * (25 + 3 * 22))
