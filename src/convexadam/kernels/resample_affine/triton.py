"""Resampling by a linear map on the GPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels.resample_affine.reference import ROUNDING
from convexadam.kernels.warp.triton import find_cell, launch_grid, points_of_box, sample_trilinear
from convexadam.kernels.warp_ssd.triton import inside

_BOX = (2, 4, 32)
"""Voxels per program: whole warps along the innermost axis."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def resample_affine(
    volume: Float[Tensor, "c i j k"],
    mask: Float[Tensor, "_ _ _"] | None,
    maps: tuple[Float[Tensor, "4 4"], Float[Tensor, "4 4"], Float[Tensor, "4 4"], Float[Tensor, "4 4"]],
    shape: Triple,
    fill_value: Float[Tensor, ""],
    margin: int,
) -> tuple[Float[Tensor, "c a b d"], Float[Tensor, "a b d"]]:
    """See the package."""
    source, weights = volume.contiguous(), None if mask is None else mask.contiguous()
    values, weight = source.new_empty((len(source), *shape)), source.new_empty(shape)
    sizes = (*shape, *source.shape, *(source if mask is None else mask[None]).shape[1:])
    with torch.cuda.device(source.get_device()):
        _resample[launch_grid(shape, _BOX)](
            source,
            weights,
            *(m.contiguous() for m in maps),
            fill_value,
            values,
            weight,
            *sizes,
            float(margin),
            ROUNDING,
            *_BOX,
            **_OPTIONS,
        )
    return values, weight


@no_type_check
@triton.jit(do_not_specialize=["m0", "m1", "m2", "channels", "n0", "n1", "n2", "w0", "w1", "w2"])
def _resample(
    volume,
    mask,
    to_index,
    matrix,
    grid_map,
    mask_index,
    fill_value,
    values,
    weights,
    m0,
    m1,
    m2,
    channels,
    n0,
    n1,
    n2,
    w0,
    w1,
    w2,
    margin,
    rounding,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, at, valid = points_of_box(m0, m1, m2, box0, box1, box2)
    p0, r0 = _map_axis(to_index, matrix, grid_map, i, j, k)
    p1, r1 = _map_axis(to_index + 4, matrix, grid_map, i, j, k)
    p2, r2 = _map_axis(to_index + 8, matrix, grid_map, i, j, k)
    weight = _cover(p0, r0, n0, margin, rounding) & _cover(p1, r1, n1, margin, rounding)
    weight = (weight & _cover(p2, r2, n2, margin, rounding)).to(tl.float32)
    if mask is not None:
        q0, _r0 = _map_axis(mask_index, matrix, grid_map, i, j, k)
        q1, _r1 = _map_axis(mask_index + 4, matrix, grid_map, i, j, k)
        q2, _r2 = _map_axis(mask_index + 8, matrix, grid_map, i, j, k)
        first, s0, s1, s2, f0, f1, f2 = find_cell(q0, q1, q2, w0, w1, w2)
        known = valid & inside(q0, w0) & inside(q1, w1) & inside(q2, w2)
        weight *= tl.where(known, sample_trilinear(mask, first, s0, s1, s2, f0, f1, f2, known), 0.0)
    tl.store(weights + at, weight, mask=valid)
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    known = inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    filling = tl.load(fill_value)
    size, step = (at * 0 + n0) * n1 * n2, (at * 0 + m0) * m1 * m2
    for _ in range(channels):
        value = sample_trilinear(volume, first, s0, s1, s2, f0, f1, f2, valid & known)
        tl.store(values + at, tl.where(known, value, filling), mask=valid)
        first += size
        at += step


@no_type_check
@triton.jit
def _map_axis(row, matrix, grid_map, i, j, k):
    """Return positions along an axis, and how far one voxel of the result reaches there."""
    a, b, c, d = _multiply_row(tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), matrix)
    a, b, c, d = _multiply_row(a, b, c, d, grid_map)
    position = a * i.to(tl.float64) + b * j.to(tl.float64) + c * k.to(tl.float64) + d
    return position.to(tl.float32), tl.sqrt(a * a + b * b + c * c).to(tl.float32)


@no_type_check
@triton.jit
def _multiply_row(a, b, c, d, matrix):
    """Multiply a row by a 4x4 matrix, whose last row is that of an affine map."""
    e = a * tl.load(matrix) + b * tl.load(matrix + 4) + c * tl.load(matrix + 8)
    f = a * tl.load(matrix + 1) + b * tl.load(matrix + 5) + c * tl.load(matrix + 9)
    g = a * tl.load(matrix + 2) + b * tl.load(matrix + 6) + c * tl.load(matrix + 10)
    return e, f, g, a * tl.load(matrix + 3) + b * tl.load(matrix + 7) + c * tl.load(matrix + 11) + d


@no_type_check
@triton.jit
def _cover(position, reach, n, margin, rounding):
    edge = tl.minimum(margin * reach, (n // 8).to(tl.float32)) - 0.5
    return (position >= edge - rounding) & (position <= n - 1.0 - edge + rounding)
