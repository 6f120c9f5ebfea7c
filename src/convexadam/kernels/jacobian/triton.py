"""Jacobian determinants on the GPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Volume
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program: neighbours along j and k are in the cache."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def jacobian_determinant(disp_vox: Field) -> Volume:
    """See the package."""
    field = disp_vox.contiguous()
    result = torch.empty_like(field[0])
    n0, n1, n2 = result.shape
    with torch.cuda.device_of(field):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        _compute_determinant[launch_grid((n0, n1, n2), _BOX)](field, result, n0, n1, n2, *_BOX, **_OPTIONS)
    return result


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _compute_determinant(u, out, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    size = (point * 0 + n0) * n1 * n2  # 64 bits
    step0, step1 = (point * 0 + n1) * n2, point * 0 + n2
    a, b, c = differentiate(u, point, i, j, k, n0, n1, n2, step0, step1, valid)
    d, e, f = differentiate(u + size, point, i, j, k, n0, n1, n2, step0, step1, valid)
    g, h, x = differentiate(u + 2 * size, point, i, j, k, n0, n1, n2, step0, step1, valid)
    a, e, x = a + 1.0, e + 1.0, x + 1.0
    tl.store(out + point, a * (e * x - f * h) - b * (d * x - f * g) + c * (d * h - e * g), mask=valid)


@no_type_check
@triton.jit
def differentiate(u, point, i, j, k, n0, n1, n2, step0, step1, valid):
    """Compute the derivatives of one component along each axis."""
    along_i = _derivative(u, point, i, n0, step0, valid)
    along_j = _derivative(u, point, j, n1, step1, valid)
    along_k = _derivative(u, point, k, n2, 1, valid)
    return along_i, along_j, along_k


@no_type_check
@triton.jit
def _derivative(u, point, index, n, step, valid):
    """Compute a central difference, a one-sided one at both ends of the axis; 0 if it has one point."""
    has_low, has_high = index > 0, index < n - 1
    low = tl.load(u + point - tl.where(has_low, step, 0), mask=valid, other=0.0)
    high = tl.load(u + point + tl.where(has_high, step, 0), mask=valid, other=0.0)
    return (high - low) * tl.where(has_low & has_high, 0.5, 1.0)
