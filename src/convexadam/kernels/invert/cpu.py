"""Inverse of a displacement on the CPU: one point after the other, until it is found."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import channels_last, compiled, in_slabs, views
from convexadam.kernels.invert.reference import CLOSE, FLAT, NEWTON_STEPS, PLAIN_STEPS
from convexadam.kernels.warp.cpu import along

_POINTS = 1024
"""Points of one slab are a multiple of this."""


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """See the package."""
    points, off = (torch.empty_like(targets, memory_format=torch.contiguous_format) for _ in range(2))
    limits = np.float32(CLOSE**2), np.float32(FLAT), PLAIN_STEPS, NEWTON_STEPS
    arrays = channels_last(displacement), *views(targets, guess, points, off)
    in_slabs(_points, targets.shape[1], *arrays, *limits, multiple=_POINTS)
    return points, off


@no_type_check
@compiled
def _points(first, last, u, targets, guess, points, off, close, flat, plain_steps, newton_steps):
    """Find the points ``first ... last - 1``."""
    for n in range(first, last):
        y = targets[0, n], targets[1, n], targets[2, n]
        r0, r1, r2 = _read(u, *y)
        x = y[0] - r0, y[1] - r1, y[2] - r2
        d = _missed(u, x, y)
        left = _squared(d)
        if left > close:
            trial = guess[0, n], guess[1, n], guess[2, n]
            found = _missed(u, trial, y)
            if _squared(found) < left:
                x, d, left = trial, found, _squared(found)
        for _ in range(plain_steps):
            done = left <= close  # one step more costs little, and leaves less
            trial = x[0] - d[0], x[1] - d[1], x[2] - d[2]
            found = _missed(u, trial, y)
            if not _squared(found) < np.float32(0.25) * left:
                break
            x, d, left = trial, found, _squared(found)
            if done:
                break
        length = np.float32(1)
        for _ in range(newton_steps):
            if left <= close:
                break
            s0, s1, s2 = _newton_step(u, x, d, flat)
            trial = x[0] + length * s0, x[1] + length * s1, x[2] + length * s2
            found = _missed(u, trial, y)
            if _squared(found) < left:
                x, d, left = trial, found, _squared(found)
                length = min(np.float32(2) * length, np.float32(1))
            else:
                length *= np.float32(0.25)
        for a in range(3):
            points[a, n], off[a, n] = x[a], d[a]


@no_type_check
@compiled
def _missed(u, x, y):
    """By how much a point misses its target."""
    r0, r1, r2 = _read(u, x[0], x[1], x[2])
    return (x[0] - y[0]) + r0, (x[1] - y[1]) + r1, (x[2] - y[2]) + r2


@no_type_check
@compiled
def _squared(v):
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


@no_type_check
@compiled
def _newton_step(u, x, d, flat):
    """Step ``-J^-1 d``, with the Jacobian of ``x + u(x)`` by differences over a voxel; half a plain one in folds."""
    half, one = np.float32(0.5), np.float32(1)
    above, below = _read(u, x[0] + half, x[1], x[2]), _read(u, x[0] - half, x[1], x[2])
    a = above[0] - below[0] + one, above[1] - below[1], above[2] - below[2]
    above, below = _read(u, x[0], x[1] + half, x[2]), _read(u, x[0], x[1] - half, x[2])
    b = above[0] - below[0], above[1] - below[1] + one, above[2] - below[2]
    above, below = _read(u, x[0], x[1], x[2] + half), _read(u, x[0], x[1], x[2] - half)
    c = above[0] - below[0], above[1] - below[1], above[2] - below[2] + one
    normal = _cross(b, c)
    volume = _dot(a, normal)
    if not volume > flat:
        return -half * d[0], -half * d[1], -half * d[2]
    return -_dot(normal, d) / volume, -_dot(_cross(c, a), d) / volume, -_dot(_cross(a, b), d) / volume


@no_type_check
@compiled
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@no_type_check
@compiled
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@no_type_check
@compiled
def _read(u, p0, p1, p2):
    """Return the displacement between eight voxels."""
    n0, n1, n2, _ = u.shape
    one, values = np.float32(1), u.reshape(-1)
    a0, s0, f0 = along(p0, n0)
    a1, s1, f1 = along(p1, n1)
    a2, s2, f2 = along(p2, n2)
    at, s0, s1 = 3 * ((a0 * n1 + a1) * n2 + a2), 3 * s0 * n1 * n2, 3 * s1 * n2
    rows = np.uintp(at), np.uintp(at + s1), np.uintp(at + s0), np.uintp(at + s0 + s1)
    shares = (one - f0) * (one - f1), (one - f0) * f1, f0 * (one - f1), f0 * f1
    after = np.uintp(3 * s2)
    return (
        _mean(values, np.uintp(0), rows, shares, after, f2),
        _mean(values, np.uintp(1), rows, shares, after, f2),
        _mean(values, np.uintp(2), rows, shares, after, f2),
    )


@no_type_check
@compiled
def _mean(values, component, rows, shares, after, share):
    """Weighted sum of what is read in four rows, each between two neighbours."""
    a, b, c, d = rows[0] + component, rows[1] + component, rows[2] + component, rows[3] + component
    total = shares[0] * (values[a] + share * (values[a + after] - values[a]))
    total += shares[1] * (values[b] + share * (values[b + after] - values[b]))
    total += shares[2] * (values[c] + share * (values[c + after] - values[c]))
    return total + shares[3] * (values[d] + share * (values[d + after] - values[d]))
