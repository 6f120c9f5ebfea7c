"""Folding, volume change and length of a displacement field, in numbers that nothing waits for."""

from __future__ import annotations

from typing import NamedTuple

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import backend_for
from convexadam.kernels.field_summary import reference

__all__ = ["FieldSummary", "summarise_field"]


class FieldSummary(NamedTuple):
    """Of all points: 0-dimensional tensors on the device of the field."""

    folded_percent: Float[Tensor, ""]
    determinant_min: Float[Tensor, ""]
    determinant_max: Float[Tensor, ""]
    length_mean: Float[Tensor, ""]
    length_max: Float[Tensor, ""]


def summarise_field(displacement: Field, to_voxels: Float[Tensor, "3 3"]) -> FieldSummary:
    """Summarise determinants of the Jacobian matrix, of which those up to 0 are of folds, and lengths.

    Parameters
    ----------
    displacement
        ``[3, i, j, k]`` in any unit, which is that of the lengths.
    to_voxels
        What converts a displacement to voxels; float64, on the CPU. Differences are those of
        `convexadam.kernels.jacobian.jacobian_determinant`.
    """
    if backend_for(displacement) == "triton":
        from convexadam.kernels.field_summary import triton

        return FieldSummary(*triton.summarise_field(displacement, to_voxels))
    return FieldSummary(*reference.summarise_field(displacement, to_voxels))  # slab by slab, by compiled determinants
