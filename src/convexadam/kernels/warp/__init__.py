"""Interpolation of volumes at arbitrary positions, and composition of displacement fields."""

from __future__ import annotations

import math

import torch

from convexadam._typing import Channels, Field, Float, Shaped, Tensor
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.warp import reference
from convexadam.kernels.warp.reference import identity_positions, inside, sample_nearest

__all__ = [
    "add_opposite_steps",
    "add_step",
    "identity_positions",
    "inside",
    "sample_displaced",
    "sample_heaviest",
    "sample_linear",
    "sample_nearest",
]


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float = math.inf,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """Compose a displacement with a step: ``a v(x) + b u(x + v(x))``, ``v`` being the step clipped to ``longest``.

    Parameters
    ----------
    displacement, step
        ``u`` and the step, ``[3, i, j, k]`` in grid units; ``u`` is interpolated linearly, with edge values outside.
    longest
        Longer steps are shortened to this length.
    factors
        ``a`` and ``b``.
    out
        Tensor to which the result is written, which may be ``step``, not ``displacement``; ``None`` for a new one.

    Returns
    -------
    ``[3, i, j, k]``; ``out`` if given.
    """
    result: Field = get_implementation(__name__, displacement, step, out).add_step(
        displacement, step, longest=longest, factors=factors, out=out
    )
    return result


def add_opposite_steps(forward: Field, backward: Field, *, factors: tuple[float, float]) -> tuple[Field, Field]:
    """Compute ``a u(x) + b v(x + u(x))`` and ``a v(x) + b u(x + v(x))``, each as `add_step` does.

    Parameters
    ----------
    forward, backward
        ``u`` and ``v``, ``[3, i, j, k]`` in grid units.
    factors
        ``a`` and ``b``.
    """
    module = get_implementation(__name__, forward, backward)
    result: tuple[Field, Field] = module.add_opposite_steps(forward, backward, factors=factors)
    return result


def sample_linear(
    volume: Float[Tensor, "*n c i j k"], positions: Float[Tensor, "*n 3 a b d"]
) -> Float[Tensor, "*n c a b d"]:
    """Interpolate ``[c, i, j, k]`` trilinearly at ``positions``, with edge values outside; differentiable.

    Several volumes ``[n, c, i, j, k]`` are interpolated each at its positions.
    """
    given = volume, positions
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    if differentiable or volume.ndim > 4 or not all(t.is_cuda and t.dtype == torch.float32 for t in given):
        return reference.sample_linear(volume, positions)
    sampled: Float[Tensor, "c a b d"] = get_implementation(__name__, *given).sample_linear(volume, positions)
    return sampled


def sample_displaced(volume: Channels, displacement: Field) -> Channels:
    """Compute ``volume(x + displacement(x))`` as `sample_linear` does, for a displacement on the grid of the volume."""
    given = volume, displacement
    if get_implementation(__name__, *given).__name__ != f"{__name__}.triton":
        return reference.compose(volume, displacement)
    from convexadam.kernels.warp import triton

    return triton.sample_linear(volume, displacement, displaced=True)


def sample_heaviest(
    labels: Shaped[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"], *, tie: float
) -> Shaped[Tensor, "c a b d"]:
    """Select, of the eight voxels around a position, the value with the largest sum of trilinear weights; on a GPU.

    Parameters
    ----------
    labels
        ``[c, i, j, k]``, numbers of any type.
    positions
        Indices ``[3, a, b, d]``, with the nearest edge value outside; float32.
    tie
        Weight by which another value has to exceed that of the nearest voxel.
    """
    from convexadam.kernels.warp import triton

    return triton.sample_heaviest(labels, positions, tie=tie)
