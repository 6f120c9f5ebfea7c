"""Intensities mapped by their quantiles, where the host does not know how many voxels count."""

from __future__ import annotations

from convexadam._typing import Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.intensity_range.reference import ROBUST_SHARES

__all__ = ["ROBUST_SHARES", "map_quantiles"]


def map_quantiles(
    channel: Volume,
    weight: Volume | None,
    *,
    shares: tuple[float, float],
    scale: float,
    step: int,
    padding_share: float,
) -> Volume:
    """Compute ``scale clip((x - q_low) / (q_high - q_low), 0, 1)``, with two quantiles; 0 if they are equal.

    Nothing waits for the device. The smallest value is no sample if few samples have it and it lies at least half the
    range of the others (between their quantiles 0.005 and 0.995) below them, as padding does.

    Parameters
    ----------
    channel
        ``[i, j, k]``, finite.
    weight
        ``[i, j, k]``: samples are voxels where it is above 0; all, if there are none. ``None`` for all.
    shares
        Of the quantiles.
    scale
        Value of the upper one.
    step
        One voxel out of so many is a sample.
    padding_share
        Largest share of the samples that padding has.
    """
    mapped: Volume = get_implementation(__name__, channel, weight).map_quantiles(
        channel, weight, shares=shares, scale=scale, step=step, padding_share=padding_share
    )
    return mapped
