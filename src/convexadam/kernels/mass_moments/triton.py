"""Moments of a mass on the GPU, in one pass over memory, and one program that puts its parts together."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Voxels per program: whole warps along the innermost axis."""

_BLOCK = 1024
"""Parts that are added at a time."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def sum_moments(
    volume: Volume, middle: Float[Tensor, ""], limit: Float[Tensor, ""], mask: Volume | None
) -> Float[Tensor, " 4"]:
    """See the package."""
    source, weights = volume.contiguous(), None if mask is None else mask.contiguous()
    n0, n1, n2 = source.shape
    grid = launch_grid((n0, n1, n2), _BOX)
    count = grid[0] * grid[1] * grid[2]
    parts = torch.empty((4, count), dtype=torch.float64, device=source.device)
    moments = torch.empty(4, dtype=torch.float64, device=source.device)
    with torch.cuda.device(source.get_device()):
        _sum_box[grid](source, weights, middle, limit, parts, count, n0, n1, n2, *_BOX, **_OPTIONS)
        _add_rows[(4,)](parts, moments, count, _BLOCK, **_OPTIONS)
    return moments


@no_type_check
@triton.jit(do_not_specialize=["count", "n0", "n1", "n2"])
def _sum_box(
    volume, mask, middle, limit, parts, count, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr
):
    i, j, k, at, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    mass = tl.abs(tl.load(volume + at, mask=valid, other=0.0) - tl.load(middle))
    mass = tl.where(valid, tl.minimum(mass, tl.load(limit)), 0.0)
    if mask is not None:
        mass *= tl.load(mask + at, mask=valid, other=0.0)
    to = parts + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(to, tl.sum(mass.to(tl.float64), 0))
    tl.store(to + count, tl.sum(mass.to(tl.float64) * i, 0))
    tl.store(to + 2 * count, tl.sum(mass.to(tl.float64) * j, 0))
    tl.store(to + 3 * count, tl.sum(mass.to(tl.float64) * k, 0))


@no_type_check
@triton.jit(do_not_specialize=["count"])
def _add_rows(parts, moments, count, block: tl.constexpr):
    """Add the parts of one of the sums."""
    row, total = tl.program_id(0), tl.zeros((block,), tl.float64)
    for first in range(0, count, block):
        at = first + tl.arange(0, block)
        total += tl.load(parts + row * count + at, mask=at < count, other=0.0)
    tl.store(moments + row, tl.sum(total, 0))
