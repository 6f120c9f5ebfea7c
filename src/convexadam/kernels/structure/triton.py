"""Differences from neighbours on the GPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Volume
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def sum_differences(features: Channels, weight: Volume | None) -> Volume:
    """See the package."""
    source, shares = features.contiguous(), None if weight is None else weight.contiguous()
    channels, n0, n1, n2 = source.shape
    total = source.new_empty((n0, n1, n2))
    with torch.cuda.device(source.get_device()):
        _sum_differences[launch_grid((n0, n1, n2), _BOX)](
            source, shares, total, channels, n0, n1, n2, *_BOX, **_OPTIONS
        )
    return total


@no_type_check
@triton.jit(do_not_specialize=["channels", "n0", "n1", "n2"])
def _sum_differences(
    features, weight, total, channels, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    step0, step1, step2 = (point * 0 + n1) * n2, point * 0 + n2, point * 0 + 1
    before0, after0 = valid & (i > 0), valid & (i < n0 - 1)
    before1, after1 = valid & (j > 0), valid & (j < n1 - 1)
    before2, after2 = valid & (k > 0), valid & (k < n2 - 1)
    if weight is not None:
        known = valid & (tl.load(weight + point, mask=valid, other=0.0) > 0)
        before0, after0 = (
            _both_known(weight, point - step0, before0 & known),
            _both_known(weight, point + step0, after0 & known),
        )
        before1, after1 = (
            _both_known(weight, point - step1, before1 & known),
            _both_known(weight, point + step1, after1 & known),
        )
        before2, after2 = (
            _both_known(weight, point - step2, before2 & known),
            _both_known(weight, point + step2, after2 & known),
        )
    found = tl.zeros(point.shape, tl.float32)
    at, size = point, step0 * n0
    for _ in range(channels):
        value = tl.load(features + at, mask=valid, other=0.0)
        found += _square_difference(features + at - step0, value, before0)
        found += _square_difference(features + at + step0, value, after0)
        found += _square_difference(features + at - step1, value, before1)
        found += _square_difference(features + at + step1, value, after1)
        found += _square_difference(features + at - step2, value, before2)
        found += _square_difference(features + at + step2, value, after2)
        at += size
    tl.store(total + point, found, mask=valid)


@no_type_check
@triton.jit
def _both_known(weight, neighbour, known):
    return known & (tl.load(weight + neighbour, mask=known, other=0.0) > 0)


@no_type_check
@triton.jit
def _square_difference(neighbour, value, known):
    difference = tl.where(known, tl.load(neighbour, mask=known, other=0.0) - value, 0.0)
    return difference * difference
