"""Mean of each point and its neighbours."""

from __future__ import annotations

from convexadam._typing import Channels
from convexadam.kernels._backend import backend_for
from convexadam.kernels.box_mean import reference

__all__ = ["box_mean"]


def box_mean(field: Channels) -> Channels:
    """Average ``[c, i, j, k]`` over the 3x3x3 points around each point that are within the volume."""
    if backend_for(field) == "triton":
        from convexadam.kernels.box_mean import triton

        return triton.box_mean(field)
    return reference.box_mean(field)  # by a compiled filter
