"""The summary of a field on the GPU: one pass over memory, and one program that puts its parts together."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.jacobian.triton import differentiate
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: neighbours along j and k are in the cache."""

_BLOCK = 1024
"""Parts that are put together at a time."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def summarise_field(displacement: Field, to_voxels: Float[Tensor, "3 3"]) -> list[Float[Tensor, ""]]:
    """See the package."""
    field = displacement.contiguous()
    n0, n1, n2 = field.shape[1:]
    grid = launch_grid((n0, n1, n2), _BOX)
    count = grid[0] * grid[1] * grid[2]
    parts = torch.empty((5, count), dtype=torch.float32, device=field.device)
    result = torch.empty(5, dtype=torch.float64, device=field.device)
    matrix = (float(entry) for entry in to_voxels.flatten())
    with torch.cuda.device(field.get_device()):
        _summarise_box[grid](field, parts, count, n0, n1, n2, *matrix, *_BOX, **_OPTIONS)
        _add_parts[(1,)](parts, result, count, n0 * n1 * n2, _BLOCK, **_OPTIONS)
    return list(result.unbind())


@no_type_check
@triton.jit(do_not_specialize=["count", "n0", "n1", "n2", "a", "b", "c", "d", "e", "f", "g", "h", "x"])
def _summarise_box(
    u,
    parts,
    count,
    n0,
    n1,
    n2,
    a,
    b,
    c,
    d,
    e,
    f,
    g,
    h,
    x,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Count folds, find the ends of determinants, add lengths, and find the longest, with ``[a b c; d e f; g h x]``."""
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    size = (point * 0 + n0) * n1 * n2  # 64 bits
    step0, step1 = (point * 0 + n1) * n2, point * 0 + n2
    u0, u1, u2 = differentiate(u, point, i, j, k, n0, n1, n2, step0, step1, valid)
    v0, v1, v2 = differentiate(u + size, point, i, j, k, n0, n1, n2, step0, step1, valid)
    w0, w1, w2 = differentiate(u + 2 * size, point, i, j, k, n0, n1, n2, step0, step1, valid)
    p, q, r = a * u0 + b * v0 + c * w0 + 1.0, a * u1 + b * v1 + c * w1, a * u2 + b * v2 + c * w2
    s, t, o = d * u0 + e * v0 + f * w0, d * u1 + e * v1 + f * w1 + 1.0, d * u2 + e * v2 + f * w2
    y, m, n = g * u0 + h * v0 + x * w0, g * u1 + h * v1 + x * w1, g * u2 + h * v2 + x * w2 + 1.0
    determinant = p * (t * n - o * m) - q * (s * n - o * y) + r * (s * m - t * y)
    along0 = tl.load(u + point, mask=valid, other=0.0)
    along1 = tl.load(u + size + point, mask=valid, other=0.0)
    along2 = tl.load(u + 2 * size + point, mask=valid, other=0.0)
    length = tl.sqrt_rn(along0 * along0 + along1 * along1 + along2 * along2)
    to = parts + (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(to, tl.sum(tl.where(valid & (determinant <= 0), 1.0, 0.0), 0))
    tl.store(to + count, tl.min(tl.where(valid, determinant, float("inf")), 0))
    tl.store(to + 2 * count, tl.max(tl.where(valid, determinant, -float("inf")), 0))
    tl.store(to + 3 * count, tl.sum(length, 0))
    tl.store(to + 4 * count, tl.max(length, 0))


@no_type_check
@triton.jit(do_not_specialize=["count", "points"])
def _add_parts(parts, out, count, points, block: tl.constexpr):
    zero = tl.zeros((block,), tl.float64)
    folded, length, longest = zero, zero, tl.zeros((block,), tl.float32)
    low = tl.full((block,), float("inf"), tl.float32)
    high = -low
    for first in range(0, count, block):
        at = parts + first + tl.arange(0, block)
        valid = first + tl.arange(0, block) < count
        folded += tl.load(at, mask=valid, other=0.0).to(tl.float64)
        low = tl.minimum(low, tl.load(at + count, mask=valid, other=float("inf")))
        high = tl.maximum(high, tl.load(at + 2 * count, mask=valid, other=-float("inf")))
        length += tl.load(at + 3 * count, mask=valid, other=0.0).to(tl.float64)
        longest = tl.maximum(longest, tl.load(at + 4 * count, mask=valid, other=0.0))
    one = tl.arange(0, 1)
    total = (one * 0 + points).to(tl.float64)
    tl.store(out + one, 100 * tl.sum(folded, 0) / total)
    tl.store(out + 1 + one, (one * 0 + tl.min(low, 0)).to(tl.float64))
    tl.store(out + 2 + one, (one * 0 + tl.max(high, 0)).to(tl.float64))
    tl.store(out + 3 + one, tl.sum(length, 0) / total)
    tl.store(out + 4 + one, (one * 0 + tl.max(longest, 0)).to(tl.float64))
