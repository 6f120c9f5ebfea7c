"""Penalties on rough fields, with their gradients."""

from __future__ import annotations

import torch

from convexadam._typing import Field


def diffusion_gradient(displacement: Field) -> Field:
    """Gradient of ``1/3 sum_a mean_x |u(x + e_a) - u(x)|^2`` with respect to ``u`` (nodes).

    Forward differences; the outermost ones are left out, so that a constant shift costs nothing.
    """
    gradient = torch.zeros_like(displacement)
    voxels = displacement[0].numel()
    for axis in range(1, 4):
        n = displacement.shape[axis]
        if n == 1:
            continue
        step = displacement.diff(dim=axis).mul_(2 / (3 * voxels))
        gradient.narrow(axis, 1, n - 1).add_(step)
        gradient.narrow(axis, 0, n - 1).sub_(step)
    return gradient
