"""MIND-SSC descriptors: self-similarity context of each voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Channels, Float, Pooled, Tensor, Triple, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels._batch import over_batch
from convexadam.kernels.mind_ssc.reference import PAIRS

_HALF = (torch.float16, torch.bfloat16)

__all__ = ["PAIRS", "mind_ssc", "pooled_mind_ssc"]


@over_batch(3)
def mind_ssc(
    volume: Float[Tensor, "*b i j k"],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Float[Tensor, "*b i j k"] | None = None,
) -> Float[Tensor, "*b c i j k"]:
    """Compute ``exp(-S_pq / v)`` for twelve pairs of neighbours of each voxel: 12 channels in (0, 1].

    ``S_pq`` is the mean squared difference of the patches around the neighbours ``p`` and ``q``, minus the smallest of
    the twelve; ``v`` is the mean of the twelve ``S_pq``, clamped to [1e-3, 1e3] times its average over the volume. The
    image is edge-replicated by ``dilation``, the squared differences by ``radius``.

    Parameters
    ----------
    volume
        ``[i, j, k]``, or several of them ``[b, i, j, k]``, finite. The descriptors are invariant to linear scaling
        unless squares of the values overflow or underflow (`convexadam.MindSSC` rescales first). Half precision is
        computed in float32.
    radius
        Patch radius in voxels, at least 0.
    dilation
        Distance of the neighbours in voxels, at least 1.
    weight
        ``[i, j, k]``, not negative: weight of each voxel in the average of ``v``; ``None`` for 1.

    Returns
    -------
    ``[12, i, j, k]`` in the order of `PAIRS`; ones for a constant volume.

    Notes
    -----
    Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using
    self-similarities", MICCAI 2013.
    """
    if volume.dtype in _HALF:
        volume = volume.to(torch.float32)
    module = get_implementation(__name__, volume, weight)
    features: Channels = module.mind_ssc(volume, radius=radius, dilation=dilation, weight=weight)
    return features


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """Compute `mind_ssc`, averaged over blocks of voxels.

    Equal to `mind_ssc` followed by `convexadam.kernels.resize.pool` for each of ``spacings``, but compiled kernels do
    not store the twelve channels at full resolution.

    Parameters
    ----------
    volume, radius, dilation
        See `mind_ssc`.
    spacings
        Block sizes along (i, j, k), in voxels; incomplete blocks are omitted.
    weight
        ``[i, j, k]``, not negative: weight of each voxel in the average of ``v`` and in those over blocks, which are 0
        if a block has zero weight; ``None`` for 1.

    Returns
    -------
    ``[12, i // si, j // sj, k // sk]`` for each spacing.
    """
    if volume.dtype in _HALF:
        volume = volume.to(torch.float32)
    module = get_implementation(__name__, volume, weight)
    features: tuple[Pooled, ...] = module.pooled_mind_ssc(
        volume, spacings, radius=radius, dilation=dilation, weight=weight
    )
    return features
