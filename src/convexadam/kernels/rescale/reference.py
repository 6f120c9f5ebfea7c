"""Linear scaling of intensities in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Shaped, Tensor
from convexadam.kernels._device import chunk_size

_CHUNK_VOXELS = {"cpu": 2**17, "gpu": 2**23}
"""Voxels whose float64 copy is in memory at a time: on the CPU it fits into the cache."""


def rescale(data: Shaped[Tensor, "c i j k"]) -> Channels:
    """See the package."""
    finest = torch.float32 if data.device.type == "mps" else torch.float64
    scaled = torch.empty(data.shape, dtype=torch.float32, device=data.device)
    for channel, target in zip(data, scaled, strict=True):
        low, high = (end.to(finest) / 2 for end in torch.aminmax(channel))  # halves, whose difference is finite
        half, middle = (high - low).clamp_min(torch.finfo(finest).tiny), low + high
        rows = max(1, chunk_size(channel, **_CHUNK_VOXELS) // channel[0].numel())
        for part, out in zip(channel.split(rows), target.split(rows), strict=True):
            out.copy_((part.to(finest) - middle).div_(half))
    return scaled
