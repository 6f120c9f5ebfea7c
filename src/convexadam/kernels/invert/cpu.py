"""Inversion of a displacement field on the CPU, one point at a time until convergence."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy, view_channels_last
from convexadam.kernels.invert.reference import CLOSE, FLAT, NEWTON_STEPS, PLAIN_STEPS
from convexadam.kernels.warp.cpu import find_neighbours

_MULTIPLE = 1024
"""Slabs start at multiples of this number of points."""


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """See the package."""
    points, residuals = (torch.empty_like(targets, memory_format=torch.contiguous_format) for _ in range(2))
    limits = np.float32(CLOSE**2), np.float32(FLAT), PLAIN_STEPS, NEWTON_STEPS
    arrays = view_channels_last(displacement), *to_numpy(targets, guess, points, residuals)
    run_in_slabs(_invert_points, targets.shape[1], *arrays, *limits, multiple=_MULTIPLE)
    return points, residuals


@no_type_check
@compile_kernel
def _invert_points(first, last, u, targets, guess, points, residuals, close, flat, plain_steps, newton_steps):
    """Solve for the points ``first ... last - 1``."""
    for n in range(first, last):
        y = targets[0, n], targets[1, n], targets[2, n]
        r0, r1, r2 = _interpolate(u, *y)
        x = y[0] - r0, y[1] - r1, y[2] - r2
        d = _residual(u, x, y)
        error = _squared_norm(d)
        if error > close:
            trial = guess[0, n], guess[1, n], guess[2, n]
            residual = _residual(u, trial, y)
            if _squared_norm(residual) < error:
                x, d, error = trial, residual, _squared_norm(residual)
        for _ in range(plain_steps):
            is_last = error <= close  # one more step is cheap and reduces the residual further
            trial = x[0] - d[0], x[1] - d[1], x[2] - d[2]
            residual = _residual(u, trial, y)
            if not _squared_norm(residual) < np.float32(0.25) * error:
                break
            x, d, error = trial, residual, _squared_norm(residual)
            if is_last:
                break
        length = np.float32(1)
        for _ in range(newton_steps):
            if error <= close:
                break
            s0, s1, s2 = _newton_step(u, x, d, flat)
            trial = x[0] + length * s0, x[1] + length * s1, x[2] + length * s2
            residual = _residual(u, trial, y)
            if _squared_norm(residual) < error:
                x, d, error = trial, residual, _squared_norm(residual)
                length = min(np.float32(2) * length, np.float32(1))
            else:
                length *= np.float32(0.25)
        for a in range(3):
            points[a, n], residuals[a, n] = x[a], d[a]


@no_type_check
@compile_kernel
def _residual(u, x, y):
    """Compute ``x + u(x) - y``."""
    r0, r1, r2 = _interpolate(u, x[0], x[1], x[2])
    return (x[0] - y[0]) + r0, (x[1] - y[1]) + r1, (x[2] - y[2]) + r2


@no_type_check
@compile_kernel
def _squared_norm(v):
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


@no_type_check
@compile_kernel
def _newton_step(u, x, d, flat):
    """Compute ``-J^-1 d``, with ``J`` the Jacobian of ``x + u(x)`` by differences over a voxel; ``-d / 2`` in folds."""
    half, one = np.float32(0.5), np.float32(1)
    above, below = _interpolate(u, x[0] + half, x[1], x[2]), _interpolate(u, x[0] - half, x[1], x[2])
    a = above[0] - below[0] + one, above[1] - below[1], above[2] - below[2]
    above, below = _interpolate(u, x[0], x[1] + half, x[2]), _interpolate(u, x[0], x[1] - half, x[2])
    b = above[0] - below[0], above[1] - below[1] + one, above[2] - below[2]
    above, below = _interpolate(u, x[0], x[1], x[2] + half), _interpolate(u, x[0], x[1], x[2] - half)
    c = above[0] - below[0], above[1] - below[1], above[2] - below[2] + one
    normal = _cross(b, c)
    volume = _dot(a, normal)
    if not volume > flat:
        return -half * d[0], -half * d[1], -half * d[2]
    return -_dot(normal, d) / volume, -_dot(_cross(c, a), d) / volume, -_dot(_cross(a, b), d) / volume


@no_type_check
@compile_kernel
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@no_type_check
@compile_kernel
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@no_type_check
@compile_kernel
def _interpolate(u, p0, p1, p2):
    """Interpolate the displacement linearly."""
    n0, n1, n2, _ = u.shape
    one, values = np.float32(1), u.reshape(-1)
    a0, s0, f0 = find_neighbours(p0, n0)
    a1, s1, f1 = find_neighbours(p1, n1)
    a2, s2, f2 = find_neighbours(p2, n2)
    at, s0, s1 = 3 * ((a0 * n1 + a1) * n2 + a2), 3 * s0 * n1 * n2, 3 * s1 * n2
    rows = np.uintp(at), np.uintp(at + s1), np.uintp(at + s0), np.uintp(at + s0 + s1)
    shares = (one - f0) * (one - f1), (one - f0) * f1, f0 * (one - f1), f0 * f1
    after = np.uintp(3 * s2)
    return (
        _interpolate_component(values, np.uintp(0), rows, shares, after, f2),
        _interpolate_component(values, np.uintp(1), rows, shares, after, f2),
        _interpolate_component(values, np.uintp(2), rows, shares, after, f2),
    )


@no_type_check
@compile_kernel
def _interpolate_component(values, component, rows, shares, after, share):
    """Interpolate one component between two neighbours in each of four rows."""
    a, b, c, d = rows[0] + component, rows[1] + component, rows[2] + component, rows[3] + component
    total = shares[0] * (values[a] + share * (values[a + after] - values[a]))
    total += shares[1] * (values[b] + share * (values[b + after] - values[b]))
    total += shares[2] * (values[c] + share * (values[c + after] - values[c]))
    return total + shares[3] * (values[d] + share * (values[d + after] - values[d]))
