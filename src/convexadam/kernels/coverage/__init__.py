"""Which voxels of a volume lie within the field of view of another one."""

from __future__ import annotations

from collections.abc import Sequence

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels._backend import get_implementation

__all__ = ["cover"]


def cover(
    rows: Sequence[Sequence[float]], limits: Sequence[tuple[float, float]], shape: Triple, *, like: Tensor
) -> Float[Tensor, "i j k"]:
    """Compute whether ``low_a <= rows_a (x, 1) <= high_a`` along all three axes ``a``: 1 where it holds, else 0.

    Parameters
    ----------
    rows
        Of the map from indices of the volume to positions, three of four numbers.
    limits
        ``low`` and ``high`` of each axis.
    shape
        Of the volume.
    like
        Tensor with the type and device of the result.
    """
    module = get_implementation(__name__, like)
    inside: Tensor = module.cover(rows, limits, shape, like=like)
    return inside
