"""Trimmed fits on the GPU, by one program: the points are few, and each choice of inliers depends on the fit before.

The residual up to which points are inliers is found bit by bit, since those of positive numbers are in their order.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Shaped, Tensor, Volume
from convexadam.kernels.trimmed_fit.reference import CLOSE, MAX_ITERATIONS, MAX_POINTS, RIDGE
from convexadam.kernels.trimmed_fit.triton_rotation import rotate

_BLOCK = 256
"""Points at a time, one per thread, which has at most 12 sums in registers."""

_WIDE = 4096
"""Residuals that are counted at a time, without a mask: it would take twice as many instructions as the counting."""

_ALL = tl.constexpr(0x7FFFFFFF)  # type: ignore[no-untyped-call]
"""No key is above."""

_SQUARINGS = 32
"""Of a matrix whose largest eigenvector is wanted: others vanish if they are smaller by more than 1e-8."""

_OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}


def fit_displacements(
    disp: Field,
    weights: Volume,
    affine: Float[Tensor, "4 4"],
    target_map: Float[Tensor, "4 4"],
    *,
    model: Shaped[Tensor, ""],
    inlier_fraction: float,
) -> Float[Tensor, "4 4"]:
    """See the package."""
    field, shares = disp.contiguous(), weights.contiguous()
    _, n1, n2 = weights.shape
    rows, result = affine.new_empty((7, MAX_POINTS)), torch.empty_like(target_map)
    keys = torch.empty(triton.cdiv(MAX_POINTS, _WIDE) * _WIDE, dtype=torch.int32, device=disp.device)
    numbers = weights.numel(), n1, n2, float(inlier_fraction), RIDGE, CLOSE
    with torch.cuda.device(disp.get_device()):
        _fit_displacements[(1,)](
            field,
            shares,
            affine,
            target_map,
            model,
            rows,
            keys,
            result,
            *numbers,
            MAX_POINTS,
            MAX_ITERATIONS,
            _SQUARINGS,
            _BLOCK,
            _WIDE,
            **_OPTIONS,
        )
    return result


@no_type_check
@triton.jit(do_not_specialize=["n", "n1", "n2"])
def _fit_displacements(
    disp,
    weights,
    affine,
    target_map,
    model,
    rows,
    keys,
    out,
    n,
    n1,
    n2,
    fraction,
    ridge,
    share,
    most: tl.constexpr,
    iterations: tl.constexpr,
    squarings: tl.constexpr,
    block: tl.constexpr,
    wide: tl.constexpr,
):
    cell = tl.arange(0, 16)
    tl.store(out + cell, tl.load(target_map + cell))
    count, close = _gather_points(disp, weights, affine, target_map, rows, keys, n, n1, n2, share, most, block)
    if count > 0:
        for first in range(count, tl.cdiv(count, wide) * wide, block):
            at = first + tl.arange(0, block)
            tl.store(keys + at, tl.full((block,), _ALL, tl.int32), mask=at < tl.cdiv(count, wide) * wide)
        tl.debug_barrier()
        kind, limit = tl.load(model), count * 0 + _ALL
        inliers = tl.maximum(tl.floor(fraction * count + 0.5).to(tl.int32), 1)
        step, moved = 0, close + 1
        while (step <= iterations) & (moved > close):
            if step > 0:
                limit = _find_rank(keys, count, inliers, wide)
            matrix = _fit(rows, keys, count, limit, kind, ridge, most, squarings, block)
            last = _load_matrix(out)
            tl.debug_barrier()  # others read what one thread writes
            _store_matrix(out, matrix)
            change = _store_residuals(rows, keys, matrix, last, count, most, block)
            tl.debug_barrier()
            if step > 0:
                moved = change
            step += 1


@no_type_check
@triton.jit
def _apply(matrix, x, y, z):
    """Map points by the first three rows of a matrix."""
    return (
        matrix[0] * x + matrix[1] * y + matrix[2] * z + matrix[3],
        matrix[4] * x + matrix[5] * y + matrix[6] * z + matrix[7],
        matrix[8] * x + matrix[9] * y + matrix[10] * z + matrix[11],
    )


@no_type_check
@triton.jit
def _load_matrix(matrix):
    entries = ()
    for entry in tl.static_range(12):
        entries += (tl.load(matrix + entry),)
    return entries


@no_type_check
@triton.jit
def _store_matrix(out, matrix):
    for entry in tl.static_range(12):
        tl.store(out + entry, matrix[entry])


@no_type_check
@triton.jit
def _gather_points(
    disp, weights, affine, target_map, rows, keys, n, n1, n2, share, most: tl.constexpr, block: tl.constexpr
):
    """Store points, targets and weights of at most ``most`` points of positive weight, every second, third, ...

    Return their number, and the square of ``share`` of their extent.
    """
    lane = tl.arange(0, block)
    used = tl.zeros((block,), tl.int32)
    for first in range(0, n, block):
        used += (tl.load(weights + first + lane, mask=first + lane < n, other=0.0) > 0).to(tl.int32)
    total = tl.sum(used, 0)
    stride = tl.maximum((total + most - 1) // most, 1)
    low0 = tl.full((block,), float("inf"), tl.float64)
    low1, low2, high0, high1, high2 = low0, low0, -low0, -low0, -low0
    before = total * 0
    for first in range(0, n, block):
        at = first + lane
        weight = tl.load(weights + at, mask=at < n, other=0.0)
        positive = (weight > 0).to(tl.int32)
        rank = before + tl.cumsum(positive, 0) - positive
        before += tl.sum(positive, 0)
        chosen = (weight > 0) & (rank % stride == 0)
        i, j, k = (at // (n1 * n2)).to(tl.float64), (at // n2 % n1).to(tl.float64), (at % n2).to(tl.float64)
        # matrices are loaded anew: in registers all the time they would leave too few for the rest
        p0, p1, p2 = _apply(_load_matrix(affine), i, j, k)
        i += tl.load(disp + at, mask=chosen, other=0.0).to(tl.float64)
        j += tl.load(disp + n + at, mask=chosen, other=0.0).to(tl.float64)
        k += tl.load(disp + n + n + at, mask=chosen, other=0.0).to(tl.float64)
        d0, d1, d2 = _apply(_load_matrix(affine), i, j, k)
        q0, q1, q2 = _apply(_load_matrix(target_map), d0, d1, d2)
        to = rows + rank // stride
        _store_point(to, p0, p1, p2, most, chosen)
        _store_point(to + 3 * most, q0, q1, q2, most, chosen)
        tl.store(to + 6 * most, weight.to(tl.float64), mask=chosen)
        tl.store(keys + rank // stride, rank * 0, mask=chosen)
        low0, high0 = _extend(low0, high0, p0, chosen)
        low1, high1 = _extend(low1, high1, p1, chosen)
        low2, high2 = _extend(low2, high2, p2, chosen)
    extent = _square(high0, low0) + _square(high1, low1) + _square(high2, low2)
    return (total + stride - 1) // stride, share * share * extent


@no_type_check
@triton.jit
def _store_point(to, x, y, z, most: tl.constexpr, mask):
    tl.store(to, x, mask=mask)
    tl.store(to + most, y, mask=mask)
    tl.store(to + 2 * most, z, mask=mask)


@no_type_check
@triton.jit
def _load_point(rows, most: tl.constexpr, mask):
    return (
        tl.load(rows, mask=mask, other=0.0),
        tl.load(rows + most, mask=mask, other=0.0),
        tl.load(rows + 2 * most, mask=mask, other=0.0),
    )


@no_type_check
@triton.jit
def _extend(low, high, value, mask):
    return tl.where(mask & (value < low), value, low), tl.where(mask & (value > high), value, high)


@no_type_check
@triton.jit
def _square(high, low):
    length = tl.maximum(tl.max(high, 0) - tl.min(low, 0), 0.0)
    return length * length


@no_type_check
@triton.jit
def _store_residuals(rows, keys, matrix, last, count, most: tl.constexpr, block: tl.constexpr):
    """Store squared residuals, as numbers in the same order; return the square of the largest change of a point."""
    largest = tl.zeros((block,), tl.float64)
    for first in range(0, count, block):
        at = first + tl.arange(0, block)
        valid = at < count
        x, y, z = _load_point(rows + at, most, valid)
        q0, q1, q2 = _load_point(rows + 3 * most + at, most, valid)
        a0, a1, a2 = _apply(matrix, x, y, z)
        b0, b1, b2 = _apply(last, x, y, z)
        squared = (a0 - q0) * (a0 - q0) + (a1 - q1) * (a1 - q1) + (a2 - q2) * (a2 - q2)
        tl.store(keys + at, squared.to(tl.float32).to(tl.int32, bitcast=True), mask=valid)
        squared = (a0 - b0) * (a0 - b0) + (a1 - b1) * (a1 - b1) + (a2 - b2) * (a2 - b2)
        largest = tl.where(valid & (squared > largest), squared, largest)
    return tl.max(largest, 0)


@no_type_check
@triton.jit
def _find_rank(keys, count, rank, wide: tl.constexpr):
    """Find the key of a rank, from its highest bit to its lowest; keys from ``count`` on are above all others."""
    limit = rank * 0
    for bit in range(31):
        candidate = limit | (1 << (30 - bit))
        below = tl.zeros((wide,), tl.int32)
        for first in range(0, count, wide):
            below -= (tl.load(keys + first + tl.arange(0, wide)) - candidate) >> 31  # 1 if below: keys are positive
        limit = tl.where(tl.sum(below, 0) < rank, candidate, limit)
    return limit


@no_type_check
@triton.jit
def _fit(rows, keys, count, limit, kind, ridge, most: tl.constexpr, squarings: tl.constexpr, block: tl.constexpr):
    """Fit the points whose keys are not above a limit; return the first three rows of the matrix.

    Moments are those about the first point, in double precision.
    """
    unit, m0, m1, m2, covariance = _average_points(rows, keys, count, limit, most, block)
    n0, n1, n2, cross = _average_targets(rows, keys, count, limit, unit, m0, m1, m2, most, block)
    trace = covariance[0] + covariance[3] + covariance[5]
    if kind == 2:  # noqa: SIM108 (the compiler would compute both)
        linear = _solve(covariance, cross, trace, ridge)
    else:
        linear = rotate(cross, trace, kind, squarings)
    o0, o1, o2 = tl.load(rows), tl.load(rows + most), tl.load(rows + 2 * most)
    l00, l01, l02, l10, l11, l12, l20, l21, l22 = linear
    t0 = n0 + o0 - (l00 * (m0 + o0) + l01 * (m1 + o1) + l02 * (m2 + o2))
    t1 = n1 + o1 - (l10 * (m0 + o0) + l11 * (m1 + o1) + l12 * (m2 + o2))
    t2 = n2 + o2 - (l20 * (m0 + o0) + l21 * (m1 + o1) + l22 * (m2 + o2))
    return l00, l01, l02, t0, l10, l11, l12, t1, l20, l21, l22, t2


@no_type_check
@triton.jit
def _average_points(rows, keys, count, limit, most: tl.constexpr, block: tl.constexpr):
    """Return one over the sum of weights, and the mean and the covariance of the points."""
    zero = tl.zeros((block,), tl.float64)
    w, x0, x1, x2, a00, a01, a02, a11, a12, a22 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    o0, o1, o2 = tl.load(rows), tl.load(rows + most), tl.load(rows + 2 * most)
    for first in range(0, count, block):
        at = first + tl.arange(0, block)
        p0, p1, p2 = _load_point(rows + at, most, at < count)
        share = _load_weight(rows + at, keys + at, limit, most, at < count)
        p0, p1, p2 = p0 - o0, p1 - o1, p2 - o2
        s0, s1, s2 = share * p0, share * p1, share * p2
        w, x0, x1, x2 = w + share, x0 + s0, x1 + s1, x2 + s2
        a00, a01, a02 = a00 + s0 * p0, a01 + s0 * p1, a02 + s0 * p2
        a11, a12, a22 = a11 + s1 * p1, a12 + s1 * p2, a22 + s2 * p2
    unit = 1.0 / tl.sum(w, 0)
    m0, m1, m2 = tl.sum(x0, 0) * unit, tl.sum(x1, 0) * unit, tl.sum(x2, 0) * unit
    covariance = (
        tl.sum(a00, 0) * unit - m0 * m0,
        tl.sum(a01, 0) * unit - m0 * m1,
        tl.sum(a02, 0) * unit - m0 * m2,
        tl.sum(a11, 0) * unit - m1 * m1,
        tl.sum(a12, 0) * unit - m1 * m2,
        tl.sum(a22, 0) * unit - m2 * m2,
    )
    return unit, m0, m1, m2, covariance


@no_type_check
@triton.jit
def _average_targets(rows, keys, count, limit, unit, m0, m1, m2, most: tl.constexpr, block: tl.constexpr):
    """Return the mean of the targets, and their covariance with the points.

    Separate from the points: all sums together need more registers than a thread of eight warps has.
    """
    zero = tl.zeros((block,), tl.float64)
    y0, y1, y2 = zero, zero, zero
    b00, b01, b02, b10, b11, b12, b20, b21, b22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    o0, o1, o2 = tl.load(rows), tl.load(rows + most), tl.load(rows + 2 * most)
    for first in range(0, count, block):
        at = first + tl.arange(0, block)
        p0, p1, p2 = _load_point(rows + at, most, at < count)
        q0, q1, q2 = _load_point(rows + 3 * most + at, most, at < count)
        share = _load_weight(rows + at, keys + at, limit, most, at < count)
        q0, q1, q2 = q0 - o0, q1 - o1, q2 - o2
        s0, s1, s2 = share * (p0 - o0), share * (p1 - o1), share * (p2 - o2)
        y0, y1, y2 = y0 + share * q0, y1 + share * q1, y2 + share * q2
        b00, b01, b02 = b00 + s0 * q0, b01 + s0 * q1, b02 + s0 * q2
        b10, b11, b12 = b10 + s1 * q0, b11 + s1 * q1, b12 + s1 * q2
        b20, b21, b22 = b20 + s2 * q0, b21 + s2 * q1, b22 + s2 * q2
    n0, n1, n2 = tl.sum(y0, 0) * unit, tl.sum(y1, 0) * unit, tl.sum(y2, 0) * unit
    cross = (
        tl.sum(b00, 0) * unit - m0 * n0,
        tl.sum(b01, 0) * unit - m0 * n1,
        tl.sum(b02, 0) * unit - m0 * n2,
        tl.sum(b10, 0) * unit - m1 * n0,
        tl.sum(b11, 0) * unit - m1 * n1,
        tl.sum(b12, 0) * unit - m1 * n2,
        tl.sum(b20, 0) * unit - m2 * n0,
        tl.sum(b21, 0) * unit - m2 * n1,
        tl.sum(b22, 0) * unit - m2 * n2,
    )
    return n0, n1, n2, cross


@no_type_check
@triton.jit
def _load_weight(rows, keys, limit, most: tl.constexpr, valid):
    """Load the weights of points; 0 for those whose keys are above the limit."""
    inlier = valid & (tl.load(keys, mask=valid, other=_ALL) <= limit)
    return tl.where(inlier, tl.load(rows + 6 * most, mask=valid, other=0.0), 0.0)


@no_type_check
@triton.jit
def _solve(covariance, cross, trace, ridge):
    """Return ``((C + r I)^-1 (X + r I))^T``, row by row; the identity without variance."""
    r = ridge * trace / 3
    a, b, c, d, e, f = covariance
    a, d, f = a + r, d + r, f + r
    c00, c01, c02 = d * f - e * e, c * e - b * f, b * e - c * d
    c11, c12, c22 = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * c00 + b * c01 + c * c02
    some = (r > 0) & (determinant > 0)
    unit = 1.0 / tl.where(some, determinant, 1.0)
    x00, x01, x02, x10, x11, x12, x20, x21, x22 = cross
    x00, x11, x22 = x00 + r, x11 + r, x22 + r
    return (
        tl.where(some, unit * (c00 * x00 + c01 * x10 + c02 * x20), 1.0),
        tl.where(some, unit * (c01 * x00 + c11 * x10 + c12 * x20), 0.0),
        tl.where(some, unit * (c02 * x00 + c12 * x10 + c22 * x20), 0.0),
        tl.where(some, unit * (c00 * x01 + c01 * x11 + c02 * x21), 0.0),
        tl.where(some, unit * (c01 * x01 + c11 * x11 + c12 * x21), 1.0),
        tl.where(some, unit * (c02 * x01 + c12 * x11 + c22 * x21), 0.0),
        tl.where(some, unit * (c00 * x02 + c01 * x12 + c02 * x22), 0.0),
        tl.where(some, unit * (c01 * x02 + c11 * x12 + c12 * x22), 0.0),
        tl.where(some, unit * (c02 * x02 + c12 * x12 + c22 * x22), 1.0),
    )
