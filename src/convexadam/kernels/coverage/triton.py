"""Coverage on the GPU, in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 128)

_OPTIONS = {"num_warps": 4, "num_stages": 1}


def cover(
    rows: Sequence[Sequence[float]], limits: Sequence[tuple[float, float]], shape: Triple, *, like: Tensor
) -> Float[Tensor, "i j k"]:
    """See the package."""
    result = torch.empty(shape, dtype=like.dtype, device=like.device)
    numbers = [float(n) for row, ends in zip(rows, limits, strict=True) for n in (*row, *ends)]
    with torch.cuda.device(like.get_device()):
        _cover[launch_grid(shape, _BOX)](result, *shape, *numbers, *_BOX, **_OPTIONS)
    return result


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _cover(
    out,
    n0,
    n1,
    n2,
    a0,
    b0,
    c0,
    t0,
    low0,
    high0,
    a1,
    b1,
    c1,
    t1,
    low1,
    high1,
    a2,
    b2,
    c2,
    t2,
    low2,
    high2,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, at, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    x, y, z = i.to(tl.float32), j.to(tl.float32), k.to(tl.float32)
    p0, p1, p2 = a0 * x + b0 * y + c0 * z + t0, a1 * x + b1 * y + c1 * z + t1, a2 * x + b2 * y + c2 * z + t2
    inside = (p0 >= low0) & (p0 <= high0) & (p1 >= low1) & (p1 <= high1) & (p2 >= low2) & (p2 <= high2)
    tl.store(out + at, inside.to(tl.float32), mask=valid)
