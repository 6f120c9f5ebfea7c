"""Mutual information on the GPU: one pass that samples, a histogram by matrix products, and one pass over the scores.

A joint histogram is ``W_f^T W_m``, with the weights of each sample in all bins. That takes 4,096 multiply-adds a sample
instead of sixteen, but no atomic operation: results are repeated bit by bit.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Points, Shaped, Tensor, Volume
from convexadam.kernels.mutual_information.reference import BINS, OtherVolume, Result
from convexadam.kernels.warp.triton import find_cell, load_corners

_BLOCK = 128
"""Points per program that samples."""

_PARTS = 128
"""Largest number of programs that loop over samples: one for each multiprocessor, and few to add up."""

_AT_ONCE = 16
"""Samples whose weights are in shared memory together, and in registers while scores are added up."""

_ABSENT = tl.constexpr(-8.0)  # type: ignore[no-untyped-call]
"""Intensity of a sample that is left out, far from all bins."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}

_WIDE = {**_OPTIONS, "num_warps": 16}


def mutual_information(
    points: Points,
    fixed: Volume,
    moving: OtherVolume,
    to_fixed: Float[Tensor, "3 4"],
    to_moving: Float[Tensor, "3 4"],
    used: Shaped[Tensor, " n"] | None = None,
) -> Result:
    """See the package."""
    places, volumes = points.contiguous(), (fixed.contiguous(), moving.contiguous())
    matrices = to_fixed.contiguous(), to_moving.contiguous()
    count = len(places)
    steps = triton.cdiv(triton.cdiv(count, _AT_ONCE), _PARTS)
    parts = triton.cdiv(count, steps * _AT_ONCE)
    samples, joints = places.new_empty((8, count)), places.new_empty((parts, BINS, BINS))
    table, products = places.new_empty((BINS, BINS)), places.new_empty((parts, 16, 16))
    numbers, gradient, information = (places.new_empty(n, dtype=torch.float64) for n in (2, 12, 144))
    with torch.cuda.device(places.get_device()):
        _sample_both[(triton.cdiv(count, _BLOCK),)](
            places, used, *volumes, *matrices, samples, count, *fixed.shape, *moving.shape, _BLOCK, **_OPTIONS
        )
        _add_joint[(parts,)](samples, joints, count, steps, BINS, _AT_ONCE, **_OPTIONS)
        _compare[(1,)](joints, table, numbers, parts, BINS, **_WIDE)
        _add_scores[(parts,)](places, samples, table, products, count, steps, BINS, _AT_ONCE, **_OPTIONS)
        _collect[(1,)](products, numbers, gradient, information, parts, **_OPTIONS)
    return numbers[0], gradient.reshape(3, 4), information.reshape(12, 12)


@no_type_check
@triton.jit(do_not_specialize=["count", "f0", "f1", "f2", "m0", "m1", "m2"])
def _sample_both(
    points,
    used,
    fixed,
    moving,
    to_fixed,
    to_moving,
    samples,
    count,
    f0,
    f1,
    f2,
    m0,
    m1,
    m2,
    block: tl.constexpr,
):
    """Store value and gradient of both images at each point, in eight rows."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    valid = at < count
    x = tl.load(points + 3 * at, mask=valid, other=0.0)
    y = tl.load(points + 3 * at + 1, mask=valid, other=0.0)
    z = tl.load(points + 3 * at + 2, mask=valid, other=0.0)
    present = valid
    if used is not None:
        present = valid & (tl.load(used + at, mask=valid, other=0) != 0)
    _sample_one(fixed, to_fixed, x, y, z, f0, f1, f2, samples + at, count, present, valid)
    _sample_one(moving, to_moving, x, y, z, m0, m1, m2, samples + at + 4 * count, count, present, valid)


@no_type_check
@triton.jit
def _sample_one(volume, matrix, x, y, z, n0, n1, n2, out, count, present, valid):
    a00, a01, a02, a03 = _load_row(matrix)
    a10, a11, a12, a13 = _load_row(matrix + 4)
    a20, a21, a22, a23 = _load_row(matrix + 8)
    p0 = a00 * x + a01 * y + a02 * z + a03
    p1 = a10 * x + a11 * y + a12 * z + a13
    p2 = a20 * x + a21 * y + a22 * z + a23
    first, s0, s1, s2, t0, t1, t2 = find_cell(p0, p1, p2, n0, n1, n2)
    v000, v001, v010, v011, v100, v101, v110, v111 = load_corners(volume, first, s0, s1, s2, present)
    d00, d01, d10, d11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
    c00, c01, c10, c11 = v000 + t2 * d00, v010 + t2 * d01, v100 + t2 * d10, v110 + t2 * d11
    e0, e1 = c01 - c00, c11 - c10
    b0, b1 = c00 + t1 * e0, c10 + t1 * e1
    k0, k1 = d00 + t1 * (d01 - d00), d10 + t1 * (d11 - d10)
    g0 = tl.where((p0 >= 0) & (p0 <= n0 - 1.0), b1 - b0, 0.0)
    g1 = tl.where((p1 >= 0) & (p1 <= n1 - 1.0), e0 + t0 * (e1 - e0), 0.0)
    g2 = tl.where((p2 >= 0) & (p2 <= n2 - 1.0), k0 + t0 * (k1 - k0), 0.0)
    tl.store(out, tl.where(present, b0 + t0 * (b1 - b0), _ABSENT), mask=valid)
    tl.store(out + count, g0 * a00 + g1 * a10 + g2 * a20, mask=valid)
    tl.store(out + 2 * count, g0 * a01 + g1 * a11 + g2 * a21, mask=valid)
    tl.store(out + 3 * count, g0 * a02 + g1 * a12 + g2 * a22, mask=valid)


@no_type_check
@triton.jit
def _load_row(matrix):
    """Load a row of a matrix, in single precision."""
    return (
        tl.load(matrix).to(tl.float32),
        tl.load(matrix + 1).to(tl.float32),
        tl.load(matrix + 2).to(tl.float32),
        tl.load(matrix + 3).to(tl.float32),
    )


@no_type_check
@triton.jit
def _bspline(t):
    """Evaluate the cubic B-spline."""
    a = tl.abs(t)
    u = tl.maximum(2.0 - a, 0.0)
    return tl.where(a < 1.0, 2.0 / 3.0 - a * a * (1.0 - 0.5 * a), u * u * u * (1.0 / 6.0))


@no_type_check
@triton.jit
def _bspline_slope(t):
    """Evaluate the derivative of the cubic B-spline."""
    a = tl.abs(t)
    u = tl.maximum(2.0 - a, 0.0)
    slope = tl.where(a < 1.0, (1.5 * a - 2.0) * a, -0.5 * u * u)
    return tl.where(t < 0, -slope, slope)


@no_type_check
@triton.jit(do_not_specialize=["count", "steps"])
def _add_joint(samples, joints, count, steps, bins: tl.constexpr, at_once: tl.constexpr):
    """Add up the joint histogram of ``steps`` times ``at_once`` samples."""
    centre = tl.arange(0, bins).to(tl.float32)
    at = tl.program_id(0) * steps * at_once + tl.arange(0, at_once)
    total = tl.zeros((bins, bins), tl.float32)
    for _ in range(steps):
        f = tl.load(samples + at, mask=at < count, other=_ABSENT)
        m = tl.load(samples + 4 * count + at, mask=at < count, other=_ABSENT)
        rows, columns = _bspline(f[None, :] - centre[:, None]), _bspline(m[:, None] - centre[None, :])
        total = tl.dot(rows, columns, total, input_precision="ieee")
        at += at_once
    cell = tl.arange(0, bins)[:, None] * bins + tl.arange(0, bins)[None, :]
    tl.store(joints + tl.program_id(0) * bins * bins + cell, total)


@no_type_check
@triton.jit(do_not_specialize=["parts"])
def _compare(joints, table, numbers, parts, bins: tl.constexpr):
    """Compare the histogram with that of independent images; one program."""
    cell = tl.arange(0, bins)[:, None] * bins + tl.arange(0, bins)[None, :]
    joint = tl.zeros((bins, bins), tl.float64)
    for part in range(parts):
        joint += tl.load(joints + part * bins * bins + cell).to(tl.float64)
    total = tl.sum(tl.sum(joint, 1), 0)
    shares = joint / tl.where(total > 0, total, 1.0)
    independent = tl.sum(shares, 1)[:, None] * tl.sum(shares, 0)[None, :]
    full = shares > 0
    log_ratio = tl.where(full, tl.log(tl.where(full, shares / tl.where(full, independent, 1.0), 1.0)), 0.0)
    tl.store(table + cell, log_ratio.to(tl.float32))
    tl.store(numbers, tl.sum(tl.sum(shares * log_ratio, 1), 0))
    tl.store(numbers + 1, tl.floor(total + 0.5))  # the weights of each sample add up to 1


@no_type_check
@triton.jit(do_not_specialize=["count", "steps"])
def _add_scores(points, samples, table, products, count, steps, bins: tl.constexpr, at_once: tl.constexpr):
    """Add up the products of force and position of all pairs of parameters; the 13th is 1, for the forces alone."""
    at = tl.program_id(0) * steps * at_once + tl.arange(0, at_once)
    column = tl.arange(0, 16)[None, :]
    total = tl.zeros((16, 16), tl.float32)
    for _ in range(steps):
        valid = at < count
        f = tl.load(samples + at, mask=valid, other=_ABSENT)
        m = tl.load(samples + 4 * count + at, mask=valid, other=_ABSENT)
        present = f >= 0
        fixed_score, moving_score = _score(table, f, m, present, bins)
        force0 = _force(samples + count + at, fixed_score, moving_score, count, present)
        force1 = _force(samples + 2 * count + at, fixed_score, moving_score, count, present)
        force2 = _force(samples + 3 * count + at, fixed_score, moving_score, count, present)
        x = tl.load(points + 3 * at, mask=valid, other=0.0)
        y = tl.load(points + 3 * at + 1, mask=valid, other=0.0)
        z = tl.load(points + 3 * at + 2, mask=valid, other=0.0)
        force = _choose(column // 4, force0[:, None], force1[:, None], force2[:, None], 0.0)
        row = force * _choose(column % 4, x[:, None], y[:, None], z[:, None], 1.0)
        row = tl.where(column == 12, tl.where(present, 1.0, 0.0)[:, None], row)
        total = tl.dot(tl.trans(row), row, total, input_precision="ieee")
        at += at_once
    cell = tl.arange(0, 16)[:, None] * 16 + column
    tl.store(products + tl.program_id(0) * 256 + cell, total)


@no_type_check
@triton.jit
def _score(table, f, m, present, bins: tl.constexpr):
    """Sum the log ratios around each sample, with weights that are slopes of the fixed or of the moving image."""
    a, b = f.to(tl.int32), m.to(tl.int32)
    t, v = f - a.to(tl.float32), m - b.to(tl.float32)
    fixed_score = tl.zeros(f.shape, tl.float32)
    moving_score = fixed_score
    for i in range(-1, 3):
        mean = tl.zeros(f.shape, tl.float32)
        slope = mean
        for k in tl.static_range(-1, 3):
            log_ratio = tl.load(table + (a + i) * bins + b + k, mask=present, other=0.0)
            mean += _bspline(v - k) * log_ratio
            slope += _bspline_slope(v - k) * log_ratio
        fixed_score += _bspline_slope(t - i) * mean
        moving_score += _bspline(t - i) * slope
    return fixed_score, moving_score


@no_type_check
@triton.jit
def _force(slopes, fixed_score, moving_score, count, present):
    fixed_slope = tl.load(slopes, mask=present, other=0.0)
    moving_slope = tl.load(slopes + 4 * count, mask=present, other=0.0)
    return 0.5 * (moving_score * moving_slope - fixed_score * fixed_slope)


@no_type_check
@triton.jit
def _choose(number, zeroth, first, second, third):
    return tl.where(number == 0, zeroth, tl.where(number == 1, first, tl.where(number == 2, second, third)))


@no_type_check
@triton.jit(do_not_specialize=["parts"])
def _collect(products, numbers, gradient, information, parts):
    """Add up the parts, and divide by the number of samples; one program."""
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    total = tl.zeros((16, 16), tl.float64)
    for part in range(parts):
        total += tl.load(products + part * 256 + row * 16 + column).to(tl.float64)
    total /= tl.maximum(tl.load(numbers + 1), 1.0)
    tl.store(information + row * 12 + column, total, mask=(row < 12) & (column < 12))
    tl.store(gradient + row * 0 + column, total, mask=(row == 12) & (column < 12))
