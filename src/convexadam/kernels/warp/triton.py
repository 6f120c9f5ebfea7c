"""Composition of displacement fields on the GPU, and trilinear interpolation for other kernels.

Programs process boxes of points that are short along all axes, so that neighbouring points are in the L1 cache.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Shaped, Tensor, Triple

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis, so that loads are coalesced."""

_BLOCK = 256
"""Points per program, where they are anywhere."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """See the package."""
    source, step = displacement.contiguous(), step.contiguous()
    result = out if out is not None and out.is_contiguous() else torch.empty_like(source)
    n0, n1, n2 = source.shape[1:]
    with torch.cuda.device(source.get_device()):
        _add_step[launch_grid((n0, n1, n2), _BOX)](
            source, step, result, n0, n1, n2, float(longest), *factors, *_BOX, **_OPTIONS
        )
    return result if out is None or result is out else out.copy_(result)


def add_opposite_steps(forward: Field, backward: Field, *, factors: tuple[float, float]) -> tuple[Field, Field]:
    """See the package."""
    u, v = forward.contiguous(), backward.contiguous()
    out = torch.empty_like(u), torch.empty_like(v)
    n0, n1, n2 = u.shape[1:]
    with torch.cuda.device(u.get_device()):
        _add_opposite_steps[launch_grid((n0, n1, n2), _BOX)](u, v, *out, n0, n1, n2, *factors, *_BOX, **_OPTIONS)
    return out


def sample_linear(
    volume: Float[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"], *, displaced: bool = False
) -> Float[Tensor, "c a b d"]:
    """See the package; if ``displaced``, positions are relative to the point of the volume."""
    source, at = volume.contiguous(), positions.contiguous()
    result = source.new_empty((len(source), *at.shape[1:]))
    points = at[0].numel()
    with torch.cuda.device(source.get_device()):
        _sample[(triton.cdiv(points, _BLOCK),)](
            source, at, result, points, *source.shape, displaced, _BLOCK, **_OPTIONS
        )
    return result


def sample_heaviest(
    labels: Shaped[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"], *, tie: float
) -> Shaped[Tensor, "c a b d"]:
    """See the package."""
    source, at = labels.contiguous(), positions.contiguous()
    result = source.new_empty((len(source), *at.shape[1:]))
    points = at[0].numel()
    with torch.cuda.device(source.get_device()):
        _sample_heaviest[(triton.cdiv(points, _BLOCK),)](
            source, at, result, points, *source.shape, float(tie), _BLOCK, **_OPTIONS
        )
    return result


def launch_grid(shape: Triple, box: Triple) -> Triple:
    """Return the launch grid of a volume, innermost axis first, so that neighbouring boxes run at the same time."""
    i, j, k = (-(-n // b) for n, b in zip(shape, box, strict=True))
    return k, j, i


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add_step(
    u,
    step,
    out,
    n0,
    n1,
    n2,
    longest,
    step_factor,
    displacement_factor,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    _compose(u, step, out, i, j, k, point, valid, n0, n1, n2, longest, step_factor, displacement_factor)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add_opposite_steps(
    u,
    v,
    out_u,
    out_v,
    n0,
    n1,
    n2,
    step_factor,
    displacement_factor,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    _compose(v, u, out_u, i, j, k, point, valid, n0, n1, n2, None, step_factor, displacement_factor)
    _compose(u, v, out_v, i, j, k, point, valid, n0, n1, n2, None, step_factor, displacement_factor)


@no_type_check
@triton.jit(do_not_specialize=["points", "channels", "n0", "n1", "n2"])
def _sample(volume, positions, out, points, channels, n0, n1, n2, displaced: tl.constexpr, block: tl.constexpr):
    """Interpolate all channels at ``points`` positions."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid, step = at < points, at * 0 + points  # 64 bits
    p0 = tl.load(positions + at, mask=valid, other=0.0)
    p1 = tl.load(positions + at + step, mask=valid, other=0.0)
    p2 = tl.load(positions + at + 2 * step, mask=valid, other=0.0)
    if displaced:
        row = at // n2
        p0, p1, p2 = p0 + (row // n1).to(tl.float32), p1 + (row % n1).to(tl.float32), p2 + (at % n2).to(tl.float32)
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    size = (at * 0 + n0) * n1 * n2
    for _ in range(channels):
        tl.store(out + at, sample_trilinear(volume, first, s0, s1, s2, f0, f1, f2, valid), mask=valid)
        first += size
        at += step


@no_type_check
@triton.jit
def _compose(u, step, out, i, j, k, point, valid, n0, n1, n2, longest, step_factor, displacement_factor):
    """Store ``step_factor v(x) + displacement_factor u(x + v(x))``, ``v`` being the step clipped to ``longest``."""
    second = point + (point * 0 + n0) * n1 * n2  # 64 bits: three components may have more than 2^31 values
    third = second + (second - point)
    v0 = tl.load(step + point, mask=valid, other=0.0)
    v1 = tl.load(step + second, mask=valid, other=0.0)
    v2 = tl.load(step + third, mask=valid, other=0.0)
    if longest is not None:
        scale = 1 / tl.maximum(tl.sqrt(v0 * v0 + v1 * v1 + v2 * v2) / longest, 1.0)
        v0, v1, v2 = v0 * scale, v1 * scale, v2 * scale
    first, s0, s1, s2, f0, f1, f2 = find_cell(
        i.to(tl.float32) + v0, j.to(tl.float32) + v1, k.to(tl.float32) + v2, n0, n1, n2
    )
    w0 = sample_trilinear(u, first, s0, s1, s2, f0, f1, f2, valid)
    w1 = sample_trilinear(u, first + (second - point), s0, s1, s2, f0, f1, f2, valid)
    w2 = sample_trilinear(u, first + (third - point), s0, s1, s2, f0, f1, f2, valid)
    tl.store(out + point, step_factor * v0 + displacement_factor * w0, mask=valid)
    tl.store(out + second, step_factor * v1 + displacement_factor * w1, mask=valid)
    tl.store(out + third, step_factor * v2 + displacement_factor * w2, mask=valid)


@no_type_check
@triton.jit
def points_of_box(n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    """Return the indices of this program's points along the axes and in memory (64 bits), and which are in the grid."""
    lane = tl.arange(0, box0 * box1 * box2)
    i = tl.program_id(2) * box0 + lane // (box1 * box2)
    j = tl.program_id(1) * box1 + lane // box2 % box1
    k = tl.program_id(0) * box2 + lane % box2
    return i, j, k, (i.to(tl.int64) * n1 + j) * n2 + k, (i < n0) & (j < n1) & (k < n2)


@no_type_check
@triton.jit
def find_cell(p0, p1, p2, n0, n1, n2):
    """Find the cell of a position: the first of its eight points, the steps to the others, and their weights."""
    a0, s0, f0 = _find_neighbours(p0, n0)
    a1, s1, f1 = _find_neighbours(p1, n1)
    a2, s2, f2 = _find_neighbours(p2, n2)
    first = (a0 * n1 + a1) * n2 + a2
    return first, s0 * n1 * n2, s1 * n2, s2, f0, f1, f2


@no_type_check
@triton.jit
def _find_neighbours(position, n):
    clamped = tl.minimum(tl.maximum(position, 0.0), n - 1.0)
    low = tl.minimum(clamped.to(tl.int32), tl.maximum(n - 2, 0))
    high = tl.minimum(low + 1, n - 1)  # along an axis of one point, it is its own neighbour
    return low.to(tl.int64), (high - low).to(tl.int64), clamped - low.to(tl.float32)


@no_type_check
@triton.jit
def load_corners(values, first, s0, s1, s2, mask):
    """Load the values at the eight corners of a cell, the innermost axis fastest."""
    low, high = values + first, values + first + s0
    return (
        tl.load(low, mask=mask, other=0.0),
        tl.load(low + s2, mask=mask, other=0.0),
        tl.load(low + s1, mask=mask, other=0.0),
        tl.load(low + s1 + s2, mask=mask, other=0.0),
        tl.load(high, mask=mask, other=0.0),
        tl.load(high + s2, mask=mask, other=0.0),
        tl.load(high + s1, mask=mask, other=0.0),
        tl.load(high + s1 + s2, mask=mask, other=0.0),
    )


@no_type_check
@triton.jit
def interpolate_corners(v000, v001, v010, v011, v100, v101, v110, v111, f0, f1, f2):
    """Interpolate eight values trilinearly."""
    v00, v01 = v000 + f2 * (v001 - v000), v010 + f2 * (v011 - v010)
    v10, v11 = v100 + f2 * (v101 - v100), v110 + f2 * (v111 - v110)
    v0, v1 = v00 + f1 * (v01 - v00), v10 + f1 * (v11 - v10)
    return v0 + f0 * (v1 - v0)


@no_type_check
@triton.jit
def sample_trilinear(values, first, s0, s1, s2, f0, f1, f2, mask):
    """Load the corners of a cell, and interpolate."""
    v000, v001, v010, v011, v100, v101, v110, v111 = load_corners(values, first, s0, s1, s2, mask)
    return interpolate_corners(v000, v001, v010, v011, v100, v101, v110, v111, f0, f1, f2)


@no_type_check
@triton.jit(do_not_specialize=["points", "channels", "n0", "n1", "n2", "tie"])
def _sample_heaviest(labels, positions, out, points, channels, n0, n1, n2, tie, block: tl.constexpr):
    """Select the value with the largest sum of trilinear weights, that of the nearest voxel if it is hardly less."""
    point = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid = point < points
    p0 = tl.load(positions + point, mask=valid, other=0.0)
    p1 = tl.load(positions + points + point, mask=valid, other=0.0)
    p2 = tl.load(positions + 2 * points.to(tl.int64) + point, mask=valid, other=0.0)
    nearest = (_round(p0, n0).to(tl.int64) * n1 + _round(p1, n1)) * n2 + _round(p2, n2)
    start, to, size = point * 0, point, (point * 0 + n0) * n1 * n2
    for _ in range(channels):
        best = tl.load(labels + start + nearest, mask=valid, other=0)
        most = _weigh(labels + start, best, p0, p1, p2, n0, n1, n2, valid) + tie
        for corner in tl.static_range(8):
            at, _weight = _find_corner(p0, p1, p2, n0, n1, n2, corner)
            value = tl.load(labels + start + at, mask=valid, other=0)
            weight = _weigh(labels + start, value, p0, p1, p2, n0, n1, n2, valid)
            best, most = tl.where(weight > most, value, best), tl.maximum(weight, most)
        tl.store(out + to, best, mask=valid)
        start += size
        to += points


@no_type_check
@triton.jit
def _round(position, n):
    """Return the index of the nearest voxel, the higher one of two."""
    return tl.minimum(tl.maximum(tl.floor(position + 0.5), 0.0), n - 1.0).to(tl.int32)


@no_type_check
@triton.jit
def _weigh(labels, value, p0, p1, p2, n0, n1, n2, valid):
    """Add the weights of the corners that have a value."""
    total = tl.zeros(p0.shape, tl.float32)
    for corner in tl.static_range(8):
        at, weight = _find_corner(p0, p1, p2, n0, n1, n2, corner)
        total += tl.where(tl.load(labels + at, mask=valid, other=0) == value, weight, 0.0)
    return total


@no_type_check
@triton.jit
def _find_corner(p0, p1, p2, n0, n1, n2, corner: tl.constexpr):
    """Return where a corner of the cell around a position is in memory, and its trilinear weight."""
    a0, w0 = _find_end(p0, n0, corner // 4)
    a1, w1 = _find_end(p1, n1, corner // 2 % 2)
    a2, w2 = _find_end(p2, n2, corner % 2)
    return (a0.to(tl.int64) * n1 + a1) * n2 + a2, w0 * w1 * w2


@no_type_check
@triton.jit
def _find_end(position, n, upper: tl.constexpr):
    """Return one of the two voxels around a position, and its weight."""
    low = tl.minimum(tl.maximum(tl.floor(position), 0.0), tl.maximum(n - 2, 0).to(tl.float32))
    share = tl.minimum(tl.maximum(tl.minimum(tl.maximum(position, 0.0), n - 1.0) - low, 0.0), 1.0)
    if upper:
        return tl.minimum(low + 1.0, n - 1.0).to(tl.int32), share
    return low.to(tl.int32), 1.0 - share
