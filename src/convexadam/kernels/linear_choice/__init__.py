"""Linear transforms that are kept or rejected where they are computed: the host does not wait for the decision."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch

from convexadam._typing import Float, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.linear_choice.reference import is_plausible

__all__ = ["Candidate", "apply_update", "is_plausible", "keep_better"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A linear transform, and how unlike the images are with it.

    Attributes
    ----------
    values
        Squared feature difference at each control point, ``[i, j, k]``, as a share of that expected for unrelated
        images.
    weight
        Weight of each control point: 0 where the moving image has no data; the sum is 1 where it has data everywhere.
    matrix
        4x4, float64.
    model
        Number of its model in `convexadam.kernels.trimmed_fit.MODELS`, int32; -1 if it is not the result of a fit.
    """

    values: Volume
    weight: Volume
    matrix: Float[Tensor, "4 4"]
    model: Shaped[Tensor, ""]

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Weighted mean, float64; points without data of the moving image count as unrelated, with the value 1."""
        module = get_implementation(__name__, self.values, self.weight)
        mean: Float[Tensor, ""] = module.compute_mean(self.values, self.weight)
        return mean

    def clone(self) -> Candidate:
        """Return a copy in other memory."""
        return Candidate(**{field.name: getattr(self, field.name).clone() for field in fields(self)})


def apply_update(
    matrix: Float[Tensor, "4 4"],
    active: Shaped[Tensor, ""],
    update: Float[Tensor, "4 4"],
    corners: Float[Tensor, "8 4"],
    *,
    close: float,
) -> None:
    """Replace ``matrix`` by ``matrix update``, in place, if that is plausible and fits are still active.

    Parameters
    ----------
    matrix
        Float64.
    active
        Truth value; overwritten by whether the update was applied and moves any corner by at least ``close``.
    update
        Float64.
    corners
        Corners of the grid, each with a 1, float64.
    close
        Displacement at which the fits have converged, in the unit of the corners.
    """
    module = get_implementation(__name__, matrix.new_empty(0, dtype=torch.float32))
    module.apply_update(matrix, active, update, corners, close=close)


def keep_better(
    best: Candidate, other: Candidate, *, min_improvement: tuple[float, float], by_mean: bool = False
) -> None:
    """Replace ``best`` by ``other``, in place, if its dissimilarity is lower by more than a share of that of ``best``.

    Compared where both have data of the moving image, or, if this overlap is less than half of one of them, by
    `Candidate.mean`, so that a transform cannot win by moving most of the image out of the field of view.

    Parameters
    ----------
    best
        Is overwritten.
    other
        Is not kept if it is not the result of a fit, or not plausible.
    min_improvement
        Share if ``best`` is not the result of a fit, and if it is.
    by_mean
        Compare by `Candidate.mean` in any case.
    """
    module = get_implementation(__name__, best.values, best.weight, other.values, other.weight)
    module.keep_better(best, other, min_improvement=min_improvement, by_mean=by_mean)
