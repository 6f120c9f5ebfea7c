"""Inversion of a displacement field on the GPU: every point is solved by itself, in one launch."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.invert.reference import CLOSE, FLAT, NEWTON_STEPS, PLAIN_STEPS
from convexadam.kernels.warp.triton import find_cell, sample_trilinear

_BLOCK = 128
"""Points per program, which ends with the slowest of them; neighbours need about as many steps."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """See the package."""
    field, given = displacement.contiguous(), [t.contiguous() for t in (targets, guess)]
    found = torch.empty_like(given[0]), torch.empty_like(given[0])
    shape, count = field.shape[1:], targets.shape[1]
    with torch.cuda.device_of(field):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        _invert_points[(max(1, triton.cdiv(count, _BLOCK)),)](
            field, *given, *found, count, *shape, CLOSE**2, FLAT, PLAIN_STEPS, NEWTON_STEPS, _BLOCK, **_OPTIONS
        )
    return found


@no_type_check
@triton.jit(do_not_specialize=["count", "n0", "n1", "n2"])
def _invert_points(
    u,
    targets,
    guess,
    points,
    residuals,
    count,
    n0,
    n1,
    n2,
    close,
    flat,
    plain_steps: tl.constexpr,
    newton_steps: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid, second, third = at < count, at + count, at + 2 * count.to(tl.int64)
    y0, y1, y2 = _load_point(targets, at, second, third, valid)
    g0, g1, g2 = _load_point(guess, at, second, third, valid)

    # from the target a plain step leads to target - u(target), with which the guess competes; more follow while
    # each halves the residual; one after it is small is cheap and reduces it further
    x0, x1, x2 = y0, y1, y2
    d0 = tl.zeros_like(y0)
    d1, d2, error = d0, d0, d0
    active, step = valid, 0
    while (step < plain_steps + 3) & (tl.max(active.to(tl.int32), 0) > 0):
        is_last = error <= close
        t0, t1, t2 = x0 - d0, x1 - d1, x2 - d2
        t0, t1, t2 = tl.where(step == 2, g0, t0), tl.where(step == 2, g1, t1), tl.where(step == 2, g2, t2)
        e0, e1, e2 = _residual(u, t0, t1, t2, y0, y1, y2, n0, n1, n2, active)
        trial_error = e0 * e0 + e1 * e1 + e2 * e2
        allowed = tl.where(step == 2, tl.where(is_last, 0.0, error), 0.25 * error)
        better = active & ((trial_error < allowed) | (step < 2))
        x0, x1, x2 = tl.where(better, t0, x0), tl.where(better, t1, x1), tl.where(better, t2, x2)
        d0, d1, d2 = tl.where(better, e0, d0), tl.where(better, e1, d1), tl.where(better, e2, d2)
        error = tl.where(better, trial_error, error)
        active = active & ((better & (is_last == 0)) | (step < 3))
        step += 1

    active, step, length = valid & (error > close), 0, error * 0.0 + 1.0
    while (step < newton_steps) & (tl.max(active.to(tl.int32), 0) > 0):
        s0, s1, s2 = _newton_step(u, x0, x1, x2, d0, d1, d2, n0, n1, n2, flat, active)
        t0, t1, t2 = x0 + length * s0, x1 + length * s1, x2 + length * s2
        e0, e1, e2 = _residual(u, t0, t1, t2, y0, y1, y2, n0, n1, n2, active)
        trial_error = e0 * e0 + e1 * e1 + e2 * e2
        better = active & (trial_error < error)
        x0, x1, x2 = tl.where(better, t0, x0), tl.where(better, t1, x1), tl.where(better, t2, x2)
        d0, d1, d2 = tl.where(better, e0, d0), tl.where(better, e1, d1), tl.where(better, e2, d2)
        error = tl.where(better, trial_error, error)
        length = tl.where(better, tl.minimum(2.0 * length, 1.0), 0.25 * length)
        active = active & (error > close)
        step += 1

    _store_point(points, at, second, third, x0, x1, x2, valid)
    _store_point(residuals, at, second, third, d0, d1, d2, valid)


@no_type_check
@triton.jit
def _load_point(source, first, second, third, valid):
    x0 = tl.load(source + first, mask=valid, other=0.0)
    x1 = tl.load(source + second, mask=valid, other=0.0)
    return x0, x1, tl.load(source + third, mask=valid, other=0.0)


@no_type_check
@triton.jit
def _store_point(target, first, second, third, x0, x1, x2, valid):
    tl.store(target + first, x0, mask=valid)
    tl.store(target + second, x1, mask=valid)
    tl.store(target + third, x2, mask=valid)


@no_type_check
@triton.jit
def _displacement(u, p0, p1, p2, n0, n1, n2, mask):
    """Interpolate the displacement linearly."""
    first, s0, s1, s2, f0, f1, f2 = find_cell(p0, p1, p2, n0, n1, n2)
    size = (first * 0 + n0) * n1 * n2  # 64 bits
    v0 = sample_trilinear(u, first, s0, s1, s2, f0, f1, f2, mask)
    v1 = sample_trilinear(u, first + size, s0, s1, s2, f0, f1, f2, mask)
    return v0, v1, sample_trilinear(u, first + 2 * size, s0, s1, s2, f0, f1, f2, mask)


@no_type_check
@triton.jit
def _residual(u, x0, x1, x2, y0, y1, y2, n0, n1, n2, mask):
    """Compute ``x + u(x) - y``."""
    v0, v1, v2 = _displacement(u, x0, x1, x2, n0, n1, n2, mask)
    return (x0 - y0) + v0, (x1 - y1) + v1, (x2 - y2) + v2


@no_type_check
@triton.jit
def _newton_step(u, x0, x1, x2, d0, d1, d2, n0, n1, n2, flat, mask):
    """Compute ``-J^-1 d``, with ``J`` the Jacobian of ``x + u(x)`` by differences over a voxel; ``-d / 2`` in folds."""
    a0 = tl.zeros_like(x0)
    a1, a2, b0, b1, b2, c0, c1, c2 = a0, a0, a0, a0, a0, a0, a0, a0
    for axis in range(3):  # a loop, because compiling takes time quadratic in the number of loads
        i0, i1 = tl.where(axis == 0, 1.0, 0.0), tl.where(axis == 1, 1.0, 0.0)
        i2 = 1.0 - i0 - i1
        h0, h1, h2 = 0.5 * i0, 0.5 * i1, 0.5 * i2
        p0, p1, p2 = _displacement(u, x0 + h0, x1 + h1, x2 + h2, n0, n1, n2, mask)
        q0, q1, q2 = _displacement(u, x0 - h0, x1 - h1, x2 - h2, n0, n1, n2, mask)
        a0, a1, a2 = b0, b1, b2
        b0, b1, b2 = c0, c1, c2
        c0, c1, c2 = p0 - q0 + i0, p1 - q1 + i1, p2 - q2 + i2
    m0, m1, m2 = b1 * c2 - b2 * c1, b2 * c0 - b0 * c2, b0 * c1 - b1 * c0
    volume = a0 * m0 + a1 * m1 + a2 * m2
    regular = volume > flat
    factor = -1.0 / tl.where(regular, volume, 1.0)
    s0 = factor * (m0 * d0 + m1 * d1 + m2 * d2)
    s1 = factor * ((c1 * a2 - c2 * a1) * d0 + (c2 * a0 - c0 * a2) * d1 + (c0 * a1 - c1 * a0) * d2)
    s2 = factor * ((a1 * b2 - a2 * b1) * d0 + (a2 * b0 - a0 * b2) * d1 + (a0 * b1 - a1 * b0) * d2)
    return tl.where(regular, s0, -0.5 * d0), tl.where(regular, s1, -0.5 * d1), tl.where(regular, s2, -0.5 * d2)
