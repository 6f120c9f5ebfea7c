"""Mutual information on the CPU: one pass that samples and fills the histogram, and one over the scores."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Float, Points, Shaped, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels.mutual_information.reference import BINS, OtherVolume, Result, compare_with_independence
from convexadam.kernels.warp.cpu import find_neighbours

_CHUNK = 4096
"""Samples whose sums are kept by themselves, and added up in order: the result does not depend on the threads."""


def mutual_information(
    points: Points,
    fixed: Volume,
    moving: OtherVolume,
    to_fixed: Float[Tensor, "3 4"],
    to_moving: Float[Tensor, "3 4"],
    used: Shaped[Tensor, " n"] | None = None,
) -> Result:
    """See the package."""
    points = points if used is None else points[used]
    count = len(points)
    chunks = -(-count // _CHUNK)
    arrays = to_numpy(points, fixed, moving)
    matrices = (matrix.numpy().astype(np.float32) for matrix in (to_fixed, to_moving))
    samples = np.empty((count, 8), np.float32)
    histograms = np.zeros((chunks, BINS, BINS), np.float32)
    run_in_slabs(_fill, chunks, *arrays, *matrices, samples, histograms)
    joint = torch.from_numpy(histograms.sum(0, dtype=np.float64))
    value, log_ratio = compare_with_independence(joint)
    sums = np.zeros((chunks, 72), np.float32)
    run_in_slabs(_add_scores, chunks, arrays[0], samples, log_ratio.numpy().astype(np.float32), sums)
    gradient, information = _unpack(sums.sum(0, dtype=np.float64) / max(count, 1))
    return value, torch.from_numpy(gradient), torch.from_numpy(information)


def _unpack(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gradient and information from 12 sums of ``q x`` and 60 of ``q q x x``, without those that repeat."""
    forces, positions = np.triu_indices(3), np.triu_indices(4)
    information = np.empty((3, 4, 3, 4))
    for a, b, row in zip(*forces, sums[12:].reshape(6, 10), strict=True):
        for p, q, number in zip(*positions, row, strict=True):
            information[a, p, b, q] = information[a, q, b, p] = number
            information[b, p, a, q] = information[b, q, a, p] = number
    return sums[:12].reshape(3, 4).copy(), information.reshape(12, 12)


@no_type_check
@compile_kernel
def _fill(first, last, points, fixed, moving, to_fixed, to_moving, samples, histograms):
    """Sample both images at the points of each chunk, and fill its histogram."""
    w = np.empty(4, np.float32)
    for chunk in range(first, last):
        joint = histograms[chunk]
        for n in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(points))):
            row = samples[n]
            _sample(fixed, to_fixed, points[n], row, 0)
            _sample(moving, to_moving, points[n], row, 4)
            a, b = int(row[0]) - 1, int(row[4]) - 1
            _spread(row[4] - np.float32(b + 1), w)
            t = row[0] - np.float32(a + 1)
            for i in range(4):
                weight = _bspline(t, i)
                for k in range(4):
                    joint[a + i, b + k] += weight * w[k]


@no_type_check
@compile_kernel
def _sample(volume, matrix, point, row, first):
    """Write value and gradient at a point to ``row[first : first + 4]``."""
    n0, n1, n2 = volume.shape
    x, y, z = point[0], point[1], point[2]
    p0 = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
    p1 = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
    p2 = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    a0, s0, f0 = find_neighbours(p0, n0)
    a1, s1, f1 = find_neighbours(p1, n1)
    a2, s2, f2 = find_neighbours(p2, n2)
    values = volume.reshape(-1)
    at = np.uintp((a0 * n1 + a1) * n2 + a2)
    s0, s1, s2 = np.uintp(s0 * n1 * n2), np.uintp(s1 * n2), np.uintp(s2)
    v00, v01, v10, v11 = values[at], values[at + s1], values[at + s0], values[at + s0 + s1]
    d00, d01 = values[at + s2] - v00, values[at + s1 + s2] - v01
    d10, d11 = values[at + s0 + s2] - v10, values[at + s0 + s1 + s2] - v11
    c00, c01, c10, c11 = v00 + f2 * d00, v01 + f2 * d01, v10 + f2 * d10, v11 + f2 * d11
    e0, e1 = c01 - c00, c11 - c10
    b0, b1 = c00 + f1 * e0, c10 + f1 * e1
    k0, k1 = d00 + f1 * (d01 - d00), d10 + f1 * (d11 - d10)
    zero = np.float32(0)
    g0 = b1 - b0 if 0 <= p0 <= n0 - 1 else zero
    g1 = e0 + f0 * (e1 - e0) if 0 <= p1 <= n1 - 1 else zero
    g2 = k0 + f0 * (k1 - k0) if 0 <= p2 <= n2 - 1 else zero
    row[first] = b0 + f0 * (b1 - b0)
    for axis in range(3):
        row[first + 1 + axis] = g0 * matrix[0, axis] + g1 * matrix[1, axis] + g2 * matrix[2, axis]


@no_type_check
@compile_kernel
def _bspline(t, i):
    """Return the weight of the bin ``i - 1`` from the lower neighbour of a value, ``t`` above that."""
    one, half, sixth = np.float32(1), np.float32(0.5), np.float32(1 / 6)
    u = one - t
    if i == 0:
        return u * u * u * sixth
    if i == 1:
        return np.float32(2 / 3) - t * t * (one - half * t)
    if i == 2:
        return np.float32(2 / 3) - u * u * (one - half * u)
    return t * t * t * sixth


@no_type_check
@compile_kernel
def _bspline_slope(t, i):
    """Return the derivative of `_bspline` by ``t``."""
    half, u = np.float32(0.5), np.float32(1) - t
    if i == 0:
        return -half * u * u
    if i == 1:
        return t * (np.float32(1.5) * t - np.float32(2))
    if i == 2:
        return u * (np.float32(2) - np.float32(1.5) * u)
    return half * t * t


@no_type_check
@compile_kernel
def _spread(t, weights):
    for i in range(4):
        weights[i] = _bspline(t, i)


@no_type_check
@compile_kernel
def _add_scores(first, last, points, samples, log_ratio, sums):
    """Add up the forces of each chunk times position, and their squares."""
    w, slopes = np.empty(4, np.float32), np.empty(4, np.float32)
    force, square = np.empty(3, np.float32), np.empty(6, np.float32)
    position, moment = np.ones(4, np.float32), np.empty(10, np.float32)
    half = np.float32(0.5)
    for chunk in range(first, last):
        total = np.zeros(72, np.float32)
        for n in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(points))):
            row = samples[n]
            a, b = int(row[0]) - 1, int(row[4]) - 1
            t, v = row[0] - np.float32(a + 1), row[4] - np.float32(b + 1)
            for k in range(4):
                w[k], slopes[k] = _bspline(v, k), _bspline_slope(v, k)
            fixed_score, moving_score = np.float32(0), np.float32(0)
            for i in range(4):
                mean, slope = np.float32(0), np.float32(0)
                for k in range(4):
                    mean += w[k] * log_ratio[a + i, b + k]
                    slope += slopes[k] * log_ratio[a + i, b + k]
                fixed_score += _bspline_slope(t, i) * mean
                moving_score += _bspline(t, i) * slope
            for axis in range(3):
                force[axis] = half * (moving_score * row[5 + axis] - fixed_score * row[1 + axis])
                position[axis] = points[n, axis]
            at = 0
            for i in range(3):
                for k in range(i, 3):
                    square[at] = force[i] * force[k]
                    at += 1
            at = 0
            for i in range(4):
                for k in range(i, 4):
                    moment[at] = position[i] * position[k]
                    at += 1
            for i in range(3):
                for k in range(4):
                    total[4 * i + k] += force[i] * position[k]
            for i in range(6):
                for k in range(10):
                    total[12 + 10 * i + k] += square[i] * moment[k]
        sums[chunk] = total
