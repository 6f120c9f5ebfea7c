"""Squared difference of two feature maps, in units of that expected for unrelated images."""

from __future__ import annotations

from convexadam._typing import Channels, Tensor, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["measure_dissimilarity"]


def measure_dissimilarity(
    fixed: Channels, moving: Channels, structure: Volume, weight: Volume | None
) -> tuple[Volume, Volume]:
    """Compute ``sum_c (f - m)^2 / U`` for each point, with ``U = var(f) + var(m) + (mean(f) - mean(m))^2`` over all.

    ``U``, summed over channels, is the expected squared difference of features drawn independently from both images;
    means and variances are weighted by the structure, and those of the moving image by its weight as well.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]``.
    structure
        ``[i, j, k]``, not negative.
    weight
        Weight of the moving image, ``[i, j, k]``; ``None`` for 1.

    Returns
    -------
    The dissimilarity of each point, and its weight: the structure, as a share of its sum, times the weight.
    """
    module = get_implementation(__name__, fixed, moving, structure, weight)
    result: tuple[Tensor, Tensor] = module.measure_dissimilarity(fixed, moving, structure, weight)
    return result
