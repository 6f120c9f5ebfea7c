"""The best rotation on the GPU, from the quaternion that is an eigenvector: in scalars, which every thread computes."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@no_type_check
@triton.jit
def rotate(cross, trace, kind, squarings: tl.constexpr):
    """Return the rotation, times a scale if ``kind`` is 1, that maps the points closest to the targets.

    Its quaternion is the eigenvector of the largest eigenvalue of a matrix (Horn, J. Opt. Soc. Am. A 1987), found by
    squaring. Reflections have none.
    """
    x00, x01, x02, x10, x11, x12, x20, x21, x22 = cross
    # the entries on and above the diagonal, row by row
    a, b, c, d = x00 + x11 + x22, x12 - x21, x20 - x02, x01 - x10
    e, f, g, h, i, j = x00 - x11 - x22, x01 + x10, x20 + x02, x11 - x00 - x22, x12 + x21, x22 - x00 - x11
    off_diagonal = b * b + c * c + d * d + f * f + g * g + i * i
    norm = tl.sqrt(a * a + e * e + h * h + j * j + 2.0 * off_diagonal)
    p, q, r, s, t, u, v, w, x, y = a + norm, b, c, d, e + norm, f, g, h + norm, i, j + norm  # no eigenvalue is negative
    for _ in range(squarings):
        p, q, r, s, t, u, v, w, x, y = _square_symmetric(p, q, r, s, t, u, v, w, x, y)
    # each column is a multiple of the eigenvector; the longest one has the largest entry of the diagonal
    best = tl.maximum(tl.maximum(p, t), tl.maximum(w, y))
    q0 = _choose(best, p, t, w, p, q, r, s)
    q1 = _choose(best, p, t, w, q, t, u, v)
    q2 = _choose(best, p, t, w, r, u, w, x)
    q3 = _choose(best, p, t, w, s, v, x, y)
    length = tl.sqrt(q0 * q0 + q1 * q1 + q2 * q2 + q3 * q3)
    unit = tl.where(length > 0, 1.0 / tl.where(length > 0, length, 1.0), 0.0)
    q0, q1, q2, q3 = tl.where(length > 0, q0 * unit, 1.0), q1 * unit, q2 * unit, q3 * unit
    mixed = q0 * (b * q1 + c * q2 + d * q3) + q1 * (f * q2 + g * q3) + q2 * i * q3
    value = a * q0 * q0 + e * q1 * q1 + h * q2 * q2 + j * q3 * q3 + 2.0 * mixed
    scale = tl.where((kind == 1) & (trace > 0), value / tl.where(trace > 0, trace, 1.0), 1.0)
    w, x, y, z = q0, q1, q2, q3
    return (
        scale * (w * w + x * x - y * y - z * z),
        scale * 2.0 * (x * y - w * z),
        scale * 2.0 * (x * z + w * y),
        scale * 2.0 * (x * y + w * z),
        scale * (w * w - x * x + y * y - z * z),
        scale * 2.0 * (y * z - w * x),
        scale * 2.0 * (x * z - w * y),
        scale * 2.0 * (y * z + w * x),
        scale * (w * w - x * x - y * y + z * z),
    )


@no_type_check
@triton.jit
def _square_symmetric(p, q, r, s, t, u, v, w, x, y):
    """Square a symmetric matrix, given by the entries on and above the diagonal, and divide by the trace."""
    pp, qq, rr, ss = (
        p * p + q * q + r * r + s * s,
        p * q + q * t + r * u + s * v,
        p * r + q * u + r * w + s * x,
        p * s + q * v + r * x + s * y,
    )
    tt, uu, vv = q * q + t * t + u * u + v * v, q * r + t * u + u * w + v * x, q * s + t * v + u * x + v * y
    ww, xx, yy = r * r + u * u + w * w + x * x, r * s + u * v + w * x + x * y, s * s + v * v + x * x + y * y
    total = pp + tt + ww + yy
    unit = 1.0 / tl.where(total > 0, total, 1.0)
    return pp * unit, qq * unit, rr * unit, ss * unit, tt * unit, uu * unit, vv * unit, ww * unit, xx * unit, yy * unit


@no_type_check
@triton.jit
def _choose(best, first, second, third, a, b, c, d):
    return tl.where(first == best, a, tl.where(second == best, b, tl.where(third == best, c, d)))
