"""Edge-preserving smoothing on the GPU: each node looks through its window."""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field
from convexadam.kernels.warp.triton import boxes, nodes_of_box

_BOX = (2, 4, 32)
"""Nodes of one program: whole warps along the innermost axis; they share most of their windows."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma_nodes: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    given, known = field.contiguous(), guide.contiguous()
    result = out if out is not None and out.is_contiguous() else torch.empty_like(given)
    n0, n1, n2 = given.shape[1:]
    # exponents of two
    factors = [-0.5 / (s**2 * math.log(2)) for s in (sigma_nodes, sigma_guide, sigma_field or 1.0)]
    constants = sigma_field is not None, len(known), radius
    with torch.cuda.device(given.get_device()):
        _filter[boxes((n0, n1, n2), _BOX)](given, known, result, n0, n1, n2, *factors, *constants, *_BOX, **_OPTIONS)
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
    by_nodes,
    by_guide,
    by_field,
    moving: tl.constexpr,
    channels: tl.constexpr,
    radius: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    volume = (node * 0 + n0) * n1 * n2  # 64 bits: channels may hold more than 2^31 values
    u0 = tl.load(u + node, mask=here, other=0.0)
    u1 = tl.load(u + node + volume, mask=here, other=0.0)
    u2 = tl.load(u + node + 2 * volume, mask=here, other=0.0)
    sum0 = tl.zeros(node.shape, tl.float32)
    sum1, sum2, weight = sum0, sum0, sum0 + 1.0  # the node itself
    width: tl.constexpr = 2 * radius + 1
    for number in range(width * width * width):
        di, dj, dk = number // (width * width) - radius, number // width % width - radius, number % width - radius
        seen = here & (i + di >= 0) & (i + di < n0) & (j + dj >= 0) & (j + dj < n1) & (k + dk >= 0) & (k + dk < n2)
        seen &= number != width * width * width // 2
        other = node + ((di * n1 + dj) * n2 + dk)
        d0 = tl.load(u + other, mask=seen, other=0.0) - u0
        d1 = tl.load(u + other + volume, mask=seen, other=0.0) - u1
        d2 = tl.load(u + other + 2 * volume, mask=seen, other=0.0) - u2
        apart = tl.zeros(node.shape, tl.float32)
        for channel in range(channels):
            there = tl.load(guide + other + channel * volume, mask=seen, other=0.0)
            difference = there - tl.load(guide + node + channel * volume, mask=here, other=0.0)
            apart += difference * difference
        exponent = by_nodes * (di * di + dj * dj + dk * dk) + by_guide * apart
        if moving:
            exponent += by_field * (d0 * d0 + d1 * d1 + d2 * d2)
        share = tl.where(seen, tl.exp2(exponent), 0.0)
        weight += share
        sum0 += share * d0
        sum1 += share * d1
        sum2 += share * d2
    tl.store(out + node, u0 + sum0 / weight, mask=here)
    tl.store(out + node + volume, u1 + sum1 / weight, mask=here)
    tl.store(out + node + 2 * volume, u2 + sum2 / weight, mask=here)
