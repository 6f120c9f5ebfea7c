"""The mean of neighbours on the GPU: 27 values, most of which are in the cache."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def box_mean(field: Channels) -> Channels:
    """See the package."""
    source = field.contiguous()
    channels, n0, n1, n2 = source.shape
    result = torch.empty_like(source)
    with torch.cuda.device(source.get_device()):
        _average_box[launch_grid((n0, n1, n2), _BOX)](source, result, channels, n0, n1, n2, *_BOX, **_OPTIONS)
    return result


@no_type_check
@triton.jit(do_not_specialize=["channels", "n0", "n1", "n2"])
def _average_box(source, out, channels, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    i, j, k, at, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    size = (at * 0 + n0) * n1 * n2  # 64 bits
    for _ in range(channels):
        tl.store(out + at, average_neighbours(source + at, i, j, k, n0, n1, n2, valid), mask=valid)
        at += size


@no_type_check
@triton.jit
def average_neighbours(at, i, j, k, n0, n1, n2, valid):
    """Average the values around ``at``, which is that of point ``(i, j, k)``."""
    total, count = tl.zeros(k.shape, tl.float32), tl.zeros(k.shape, tl.float32)
    for a in range(-1, 2):
        for b in range(-1, 2):
            inside = valid & (i + a >= 0) & (i + a < n0) & (j + b >= 0) & (j + b < n1)
            row = at + (a * n1 + b) * n2
            for c in tl.static_range(3):
                known = inside & (k + (c - 1) >= 0) & (k + (c - 1) < n2)
                total += tl.load(row + (c - 1), mask=known, other=0.0)
                count += tl.where(known, 1.0, 0.0)
    return total / tl.maximum(count, 1.0)
