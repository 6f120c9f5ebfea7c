"""Edge-preserving smoothing on the GPU: each thread sums over the window of one point."""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis, whose windows overlap."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    source, guides = field.contiguous(), guide.contiguous()
    result = out if out is not None and out.is_contiguous() else torch.empty_like(source)
    n0, n1, n2 = source.shape[1:]
    # the exponents are converted to base 2
    factors = [-0.5 / (s**2 * math.log(2)) for s in (sigma, sigma_guide, sigma_field or 1.0)]
    constants = sigma_field is not None, len(guides), radius
    with torch.cuda.device(source.get_device()):
        _filter[launch_grid((n0, n1, n2), _BOX)](
            source, guides, result, n0, n1, n2, *factors, *constants, *_BOX, **_OPTIONS
        )
    return result if out is None or result is out else out.copy_(result)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _filter(
    u,
    guide,
    out,
    n0,
    n1,
    n2,
    by_distance,
    by_guide,
    by_field,
    by_displacement: tl.constexpr,
    channels: tl.constexpr,
    radius: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    volume = (point * 0 + n0) * n1 * n2  # 64 bits: all channels together may have more than 2^31 values
    u0 = tl.load(u + point, mask=valid, other=0.0)
    u1 = tl.load(u + point + volume, mask=valid, other=0.0)
    u2 = tl.load(u + point + 2 * volume, mask=valid, other=0.0)
    sum0 = tl.zeros(point.shape, tl.float32)
    sum1, sum2, weight = sum0, sum0, sum0 + 1.0  # the point itself has weight 1 and difference 0
    width: tl.constexpr = 2 * radius + 1
    for number in range(width * width * width):
        di, dj, dk = number // (width * width) - radius, number // width % width - radius, number % width - radius
        inside = valid & (i + di >= 0) & (i + di < n0) & (j + dj >= 0) & (j + dj < n1) & (k + dk >= 0) & (k + dk < n2)
        inside &= number != width * width * width // 2
        neighbour = point + ((di * n1 + dj) * n2 + dk)
        d0 = tl.load(u + neighbour, mask=inside, other=0.0) - u0
        d1 = tl.load(u + neighbour + volume, mask=inside, other=0.0) - u1
        d2 = tl.load(u + neighbour + 2 * volume, mask=inside, other=0.0) - u2
        squared = tl.zeros(point.shape, tl.float32)
        for channel in range(channels):
            value = tl.load(guide + neighbour + channel * volume, mask=inside, other=0.0)
            difference = value - tl.load(guide + point + channel * volume, mask=valid, other=0.0)
            squared += difference * difference
        exponent = by_distance * (di * di + dj * dj + dk * dk) + by_guide * squared
        if by_displacement:
            exponent += by_field * (d0 * d0 + d1 * d1 + d2 * d2)
        share = tl.where(inside, tl.exp2(exponent), 0.0)
        weight += share
        sum0 += share * d0
        sum1 += share * d1
        sum2 += share * d2
    tl.store(out + point, u0 + sum0 / weight, mask=valid)
    tl.store(out + point + volume, u1 + sum1 / weight, mask=valid)
    tl.store(out + point + 2 * volume, u2 + sum2 / weight, mask=valid)
