"""Mutual information of two linearly transformed images at sample points, with its derivatives."""

from __future__ import annotations

from typing import NamedTuple

from convexadam._typing import Float, Points, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.mutual_information import reference
from convexadam.kernels.mutual_information.reference import OtherVolume

__all__ = ["BINS", "MARGIN", "MutualInformation", "mutual_information"]

BINS, MARGIN = reference.BINS, reference.MARGIN
"""Number of bins of each image, and of those at each end that only the tails of B-splines reach."""


class MutualInformation(NamedTuple):
    """Mutual information in nats, and its derivatives by a linear motion of the moving against the fixed image.

    ``gradient[i, j]`` is the derivative by the entry ``E[i, j]`` of a motion ``x -> x + E (x, 1)`` of the points, half
    of which moves the moving image and half, backwards, the fixed one. ``information`` is the Fisher information of the
    12 entries, the mean outer product of the scores of the samples: near the maximum it approximates the negative
    Hessian. All are float64 on the device of the images.
    """

    value: Float[Tensor, ""]
    gradient: Float[Tensor, "3 4"]
    information: Float[Tensor, "12 12"]


def mutual_information(
    points: Points,
    fixed: Volume,
    moving: OtherVolume,
    to_fixed: Float[Tensor, "3 4"],
    to_moving: Float[Tensor, "3 4"],
    used: Shaped[Tensor, " n"] | None = None,
) -> MutualInformation:
    """Compute ``sum p(f, m) log(p(f, m) / (p(f) p(m)))`` of ``f_n = fixed(to_fixed (x_n, 1))`` and ``m_n`` alike.

    Images are interpolated linearly, and each sample is spread over four bins of each image by cubic B-splines
    (Thevenaz and Unser, IEEE TIP 2000). Outside an image its edge values are repeated: the set of samples is constant,
    so that no transform is preferred because it moves some of them out.

    Parameters
    ----------
    points
        ``x_n``, in any unit, at least one.
    fixed, moving
        Intensities in units of bins, in [`MARGIN`, `BINS` - 1 - `MARGIN`], so that the B-splines stay inside the
        histogram.
    to_fixed, to_moving
        From points to voxel indices, float64.
    used
        Truth value of each point, ``(n,)``: whether it is a sample; ``None`` for all. Without any, all results are 0.
    """
    module = get_implementation(__name__, points, fixed, moving)
    return MutualInformation(*module.mutual_information(points, fixed, moving, to_fixed, to_moving, used))
