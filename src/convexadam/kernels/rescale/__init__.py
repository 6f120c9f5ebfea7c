"""Linear scaling of the intensities of each channel to a common range."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Shaped, Tensor
from convexadam.kernels._backend import backend_for
from convexadam.kernels.rescale import reference

__all__ = ["rescale"]


def rescale(data: Shaped[Tensor, "c i j k"]) -> Channels:
    """Map each channel linearly to [-1, 1], its minimum to -1 and its maximum to 1; computed in double precision.

    Parameters
    ----------
    data
        ``[c, i, j, k]``, of any type, finite.

    Returns
    -------
    Float32; a constant channel gives zeros.
    """
    if data.dtype == torch.float32 and data.is_cuda and backend_for(data) == "triton":
        from convexadam.kernels.rescale import triton

        return triton.rescale(data)
    return reference.rescale(data)  # which computes in chunks that fit into the cache
