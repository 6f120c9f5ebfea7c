"""Names for the tensors that travel through the library.

Every volume is in NIfTI index order ``(i, j, k)``. Shapes are checked at run time in the tests only.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Float, Shaped
from torch import Tensor

Volume: TypeAlias = Float[Tensor, "i j k"]
"""One scalar per voxel."""

Channels: TypeAlias = Float[Tensor, "c i j k"]
"""Several scalars per voxel: an image with channels, or a feature map."""

Guide: TypeAlias = Float[Tensor, "g i j k"]
"""Several scalars per voxel that a field is smoothed by."""

Pooled: TypeAlias = Float[Tensor, "_ _ _ _"]
"""Several scalars per node of a coarser grid: channels first."""

Field: TypeAlias = Float[Tensor, "3 i j k"]
"""One vector per voxel; component ``a`` points along tensor axis ``a`` (voxels) or along R, A, S (mm)."""

Points: TypeAlias = Float[Tensor, "n 3"]
"""A list of positions."""

Triple: TypeAlias = tuple[int, int, int]
"""One whole number for each axis."""

PerAxis: TypeAlias = int | float | tuple[int, int, int] | tuple[float, float, float]
"""One value for all three axes, or one for each."""

AxisWeights: TypeAlias = tuple[float, float, float]
"""How freely a displacement may vary along each axis: 0 forbids it, 1 is free, numbers between stiffen."""

__all__ = [
    "AxisWeights",
    "Channels",
    "Field",
    "Float",
    "Guide",
    "PerAxis",
    "Points",
    "Pooled",
    "Shaped",
    "Tensor",
    "Triple",
    "Volume",
]
