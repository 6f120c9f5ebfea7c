"""Linear interpolation on the GPU, with a table of the neighbours along each axis."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._device import send_constant
from convexadam.kernels.interpolate.reference import find_neighbours
from convexadam.kernels.warp.triton import interpolate_corners, launch_grid, load_corners, points_of_box

_BOX = (2, 4, 32)
"""Values per program: whole warps along the innermost axis."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def interpolate(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """See the package."""
    source = field.contiguous()
    m0, m1, m2 = (len(p) for p in positions)
    result = source.new_empty((len(source), m0, m1, m2))
    # one copy to the device; indices are exact in single precision
    tables = [torch.stack(find_neighbours(p, n)) for p, n in zip(positions, source.shape[1:], strict=True)]
    neighbours = send_constant(torch.cat(tables, 1), source)
    planes = len(source) * m0
    with torch.cuda.device(source.get_device()):
        _interpolate[launch_grid((planes, m1, m2), _BOX)](
            source, neighbours, result, planes, *source.shape[1:], m0, m1, m2, *_BOX, **_OPTIONS
        )
    return result


@no_type_check
@triton.jit(do_not_specialize=["planes", "n0", "n1", "n2", "m0", "m1", "m2"])
def _interpolate(
    field,
    neighbours,
    out,
    planes,
    n0,
    n1,
    n2,
    m0,
    m1,
    m2,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Interpolate; ``neighbours`` has the lower indices along all three axes, then the weights of the upper ones."""
    plane, j, k, at, valid = points_of_box(planes, m1, m2, box0, box1, box2)
    i, total = plane % m0, m0 + m1 + m2
    low0, f0 = _load_neighbour(neighbours, i, total, valid)
    low1, f1 = _load_neighbour(neighbours, m0 + j, total, valid)
    low2, f2 = _load_neighbour(neighbours, m0 + m1 + k, total, valid)
    first = (((plane // m0).to(tl.int64) * n0 + low0) * n1 + low1) * n2 + low2
    area = (first * 0 + n1) * n2  # 64 bits
    s0, s1, s2 = tl.where(low0 < n0 - 1, area, 0), tl.where(low1 < n1 - 1, n2, 0), tl.where(low2 < n2 - 1, 1, 0)
    v000, v001, v010, v011, v100, v101, v110, v111 = load_corners(field, first, s0, s1, s2, valid)
    value = interpolate_corners(v000, v001, v010, v011, v100, v101, v110, v111, f0, f1, f2)
    tl.store(out + at, value, mask=valid)


@no_type_check
@triton.jit
def _load_neighbour(neighbours, at, total, valid):
    return (
        tl.load(neighbours + at, mask=valid, other=0.0).to(tl.int32),
        tl.load(neighbours + total + at, mask=valid, other=0.0),
    )
