"""Differences from neighbours in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Volume


def sum_differences(features: Channels, weight: Volume | None) -> Volume:
    """See the package."""
    total = torch.zeros_like(features[0])
    valid = torch.ones_like(total) if weight is None else (weight > 0).to(total.dtype)
    for axis in range(1, 4):
        n = features.shape[axis]
        if n == 1:
            continue
        both_valid = valid.narrow(axis - 1, 1, n - 1) * valid.narrow(axis - 1, 0, n - 1)
        difference = features.diff(dim=axis).square().sum(0) * both_valid
        total.narrow(axis - 1, 1, n - 1).add_(difference)
        total.narrow(axis - 1, 0, n - 1).add_(difference)
    return total
