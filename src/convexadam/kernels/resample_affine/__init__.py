"""Resampling of a volume and its mask by a linear map that only the device knows."""

from __future__ import annotations

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels._backend import get_implementation

__all__ = ["resample_affine"]


def resample_affine(
    volume: Float[Tensor, "c i j k"],
    maps: tuple[Float[Tensor, "4 4"], Float[Tensor, "4 4"], Float[Tensor, "4 4"]],
    shape: Triple,
    *,
    fill_value: Float[Tensor, ""],
    margin: int,
    mask: Float[Tensor, "_ _ _"] | None = None,
    mask_index: Float[Tensor, "4 4"] | None = None,
) -> tuple[Float[Tensor, "c a b d"], Float[Tensor, "a b d"]]:
    """Interpolate ``[c, i, j, k]`` linearly at ``A M G x`` for each voxel ``x`` of a volume of ``shape``.

    Parameters
    ----------
    volume
        Float32.
    maps
        ``A``, from mm to indices of the volume; ``M``, the transform; ``G``, from voxels of the result to mm. Float64,
        on the device of the volume, where they are multiplied.
    shape
        Of the result.
    fill_value
        Value outside the field of view of the volume, which ends half a voxel beyond the outer voxel centres.
    margin
        Voxels of the result by which the field of view is smaller where weights are 1.
    mask, mask_index
        Weights on a grid of their own and the map from mm to its indices; 0 outside. ``None`` for 1.

    Returns
    -------
    Values ``[c, a, b, d]``, and the weight of each voxel ``[a, b, d]``: 0 outside the field of view without its margin
    (of at most an eighth of its size), else the mask.
    """
    module = get_implementation(__name__, volume, mask)
    every = (*maps, maps[0] if mask_index is None else mask_index)
    result: tuple[Tensor, Tensor] = module.resample_affine(volume, mask, every, shape, fill_value, margin)
    return result
