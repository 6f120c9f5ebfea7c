"""MIND-SSC descriptors: self-similarity of a volume around each voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.mind_ssc.reference import PAIRS

_HALF = (torch.float16, torch.bfloat16)

__all__ = ["PAIRS", "mind_ssc", "pooled_mind_ssc"]


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """Describe each voxel by how alike its neighbours are: ``exp(-S_pq / v)``, 12 channels in (0, 1].

    ``S_pq`` is the mean squared difference of the patches around the neighbours ``p`` and ``q``, less the
    smallest of the twelve; ``v`` is the mean of the twelve ``S_pq``, clamped to [1e-3, 1e3] times its
    average over the volume. The image is edge-replicated by ``dilation``, the differences by ``radius``.

    Parameters
    ----------
    volume
        ``[i, j, k]``, finite; any linear scaling of it gives the same descriptors, as long as squares of the values
        neither overflow nor vanish (`convexadam.MindSSC` scales first). Half precision is computed in float32.
    radius
        Patch radius in voxels, at least 0.
    dilation
        Distance of the neighbours in voxels, at least 1.
    weight
        ``[i, j, k]``, not negative; where given, the average of ``v`` is weighted with it.

    Returns
    -------
    ``[12, i, j, k]`` in the order of `PAIRS`. A volume without any contrast gives ones.

    Notes
    -----
    Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using
    self-similarities", MICCAI 2013.
    """
    if volume.dtype in _HALF:
        volume = volume.to(torch.float32)
    module = implementation(__name__, volume, weight)
    described: Channels = module.mind_ssc(volume, radius=radius, dilation=dilation, weight=weight)
    return described


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """Describe a volume as `mind_ssc` does, averaged over blocks of voxels.

    The same as `mind_ssc`, then `convexadam.kernels.resize.pool` for each of ``spacings``, but compiled kernels never
    hold the twelve channels of the whole volume.

    Parameters
    ----------
    volume, radius, dilation
        See `mind_ssc`.
    spacings
        Size of the blocks along each axis in voxels; what fills no whole block is left out.
    weight
        Weighs the average of ``v`` and the averages over blocks; a block without any weight becomes 0.

    Returns
    -------
    ``[12, i // si, j // sj, k // sk]`` for each spacing.
    """
    if volume.dtype in _HALF:
        volume = volume.to(torch.float32)
    module = implementation(__name__, volume, weight)
    described: tuple[Pooled, ...] = module.pooled_mind_ssc(
        volume, spacings, radius=radius, dilation=dilation, weight=weight
    )
    return described
