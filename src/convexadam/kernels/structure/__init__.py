"""How much the features of each point differ from those of its neighbours."""

from __future__ import annotations

from convexadam._typing import Channels, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["sum_differences"]


def sum_differences(features: Channels, weight: Volume | None) -> Volume:
    """Compute ``sum_y |f(x) - f(y)|^2`` over the six neighbours ``y`` of each point ``x``, where both have weight.

    Parameters
    ----------
    features
        ``[c, i, j, k]``.
    weight
        ``[i, j, k]``; points count where it is above 0. ``None`` for all.

    Returns
    -------
    ``[i, j, k]``.
    """
    module = get_implementation(__name__, features, weight)
    total: Volume = module.sum_differences(features, weight)
    return total
