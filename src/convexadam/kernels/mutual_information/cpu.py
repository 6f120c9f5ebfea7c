"""Mutual information on the CPU: one pass that samples and fills the histogram, and one over the scores.

Both work on blocks of samples, in loops over arrays of one quantity each, which the compiler vectorises.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Float, Points, Shaped, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels.mutual_information.reference import BINS, OtherVolume, Result, compare_with_independence
from convexadam.kernels.warp.cpu import find_neighbours

_CHUNK, _BLOCK = 4096, 256
"""Samples whose sums are kept by themselves, and added up in order: the result does not depend on the threads; and
samples that each loop takes at a time."""


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
    samples = np.empty((8, count), np.float32)  # value and gradient in each image
    histograms = np.zeros((chunks, BINS, BINS), np.float32)
    run_in_slabs(_fill, chunks, *arrays, *matrices, samples, histograms)
    joint = torch.from_numpy(histograms.sum(0, dtype=np.float64))
    value, log_ratio = compare_with_independence(joint)
    sums = np.zeros((chunks, 72), np.float32)  # 12 of q x, and 60 of q q x x, without those that repeat
    run_in_slabs(_add_scores, chunks, arrays[0], samples, log_ratio.numpy().astype(np.float32), sums)
    means = sums.sum(0, dtype=np.float64) / max(count, 1)
    return value, torch.from_numpy(means[:12].reshape(3, 4)), torch.from_numpy(means[_PLACES])


def _number_symmetric(size: int) -> np.ndarray:
    """Return a symmetric matrix whose upper triangle counts from 0, row by row."""
    upper, result = np.triu_indices(size), np.zeros((size, size), np.int64)
    result[upper] = result.T[upper] = np.arange(len(upper[0]))
    return result


_PLACES = 12 + 10 * np.kron(_number_symmetric(3), np.ones((4, 4), np.int64)) + np.tile(_number_symmetric(4), (3, 3))
"""Which of the sums each entry of the information is."""


@no_type_check
@compile_kernel
def _fill(first, last, points, fixed, moving, to_fixed, to_moving, samples, histograms):
    """Sample both images at the points of each chunk, and fill its histogram."""
    count = len(points)
    flat, values = points.reshape(-1), samples.reshape(-1)
    weights, cells = np.empty(8 * _BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    for chunk in range(first, last):
        joint = histograms[chunk].reshape(-1)
        end = min((chunk + 1) * _CHUNK, count)
        for start in range(chunk * _CHUNK, end, _BLOCK):
            size = min(_BLOCK, end - start)
            f, m = np.uintp(start), np.uintp(4 * count + start)
            _sample(fixed, to_fixed, flat, start, size, values, f, np.uintp(count))
            _sample(moving, to_moving, flat, start, size, values, m, np.uintp(count))
            _spread(values, f, m, size, weights, cells)
            for n in range(size):
                at = np.uintp(n)
                w0, w1 = weights[at + np.uintp(4 * _BLOCK)], weights[at + np.uintp(5 * _BLOCK)]
                w2, w3 = weights[at + np.uintp(6 * _BLOCK)], weights[at + np.uintp(7 * _BLOCK)]
                for i in range(4):
                    to, w = np.uintp(cells[at]) + np.uintp(i * BINS), weights[at + np.uintp(i * _BLOCK)]
                    joint[to] += w * w0
                    joint[to + np.uintp(1)] += w * w1
                    joint[to + np.uintp(2)] += w * w2
                    joint[to + np.uintp(3)] += w * w3


@no_type_check
@compile_kernel
def _sample(volume, matrix, points, start, size, out, to, stride):
    """Write the values at points from ``to`` on, and their gradients ``stride``, twice and three times that later."""
    n0, n1, n2 = volume.shape
    m00, m01, m02, m03 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    m10, m11, m12, m13 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    m20, m21, m22, m23 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    values, zero = volume.reshape(-1), np.float32(0)
    for n in range(size):
        point, target = np.uintp(3 * (start + n)), to + np.uintp(n)
        x, y, z = points[point], points[point + np.uintp(1)], points[point + np.uintp(2)]
        p0 = m00 * x + m01 * y + m02 * z + m03
        p1 = m10 * x + m11 * y + m12 * z + m13
        p2 = m20 * x + m21 * y + m22 * z + m23
        a0, s0, f0 = find_neighbours(p0, n0)
        a1, s1, f1 = find_neighbours(p1, n1)
        a2, s2, f2 = find_neighbours(p2, n2)
        at = np.uintp((a0 * n1 + a1) * n2 + a2)
        s0, s1, s2 = np.uintp(s0 * n1 * n2), np.uintp(s1 * n2), np.uintp(s2)
        v00, v01, v10, v11 = values[at], values[at + s1], values[at + s0], values[at + s0 + s1]
        d00, d01 = values[at + s2] - v00, values[at + s1 + s2] - v01
        d10, d11 = values[at + s0 + s2] - v10, values[at + s0 + s1 + s2] - v11
        c00, c01, c10, c11 = v00 + f2 * d00, v01 + f2 * d01, v10 + f2 * d10, v11 + f2 * d11
        e0, e1 = c01 - c00, c11 - c10
        b0, b1 = c00 + f1 * e0, c10 + f1 * e1
        k0, k1 = d00 + f1 * (d01 - d00), d10 + f1 * (d11 - d10)
        g0 = b1 - b0 if 0 <= p0 <= n0 - 1 else zero
        g1 = e0 + f0 * (e1 - e0) if 0 <= p1 <= n1 - 1 else zero
        g2 = k0 + f0 * (k1 - k0) if 0 <= p2 <= n2 - 1 else zero
        out[target] = b0 + f0 * (b1 - b0)
        out[target + stride] = g0 * m00 + g1 * m10 + g2 * m20
        out[target + stride + stride] = g0 * m01 + g1 * m11 + g2 * m21
        out[target + stride + stride + stride] = g0 * m02 + g1 * m12 + g2 * m22


@no_type_check
@compile_kernel
def _spread(values, f, m, size, weights, cells):
    """Write the weights of four bins of the fixed image and of the moving image, and the first cell of the histogram.

    ``f`` and ``m`` are where the values of the images begin. The weights are cubic B-splines.
    """
    one, half, sixth, most = np.float32(1), np.float32(0.5), np.float32(1 / 6), np.float32(2 / 3)
    for n in range(size):
        at = np.uintp(n)
        a, b = np.int32(values[f + at]), np.int32(values[m + at])
        cells[at] = (a - np.int32(1)) * np.int32(BINS) + b - np.int32(1)
        t = values[f + at] - np.float32(a)
        u = one - t
        weights[at] = u * u * u * sixth
        weights[at + np.uintp(_BLOCK)] = most - t * t * (one - half * t)
        weights[at + np.uintp(2 * _BLOCK)] = most - u * u * (one - half * u)
        weights[at + np.uintp(3 * _BLOCK)] = t * t * t * sixth
        t = values[m + at] - np.float32(b)
        u = one - t
        weights[at + np.uintp(4 * _BLOCK)] = u * u * u * sixth
        weights[at + np.uintp(5 * _BLOCK)] = most - t * t * (one - half * t)
        weights[at + np.uintp(6 * _BLOCK)] = most - u * u * (one - half * u)
        weights[at + np.uintp(7 * _BLOCK)] = t * t * t * sixth


@no_type_check
@compile_kernel
def _add_scores(first, last, points, samples, log_ratio, sums):
    """Add up the forces of each chunk times position, and their squares."""
    count = len(points)
    flat, values = points.reshape(-1), samples.reshape(-1)
    weights, slopes, cells = (
        np.empty(8 * _BLOCK, np.float32),
        np.empty(8 * _BLOCK, np.float32),
        np.empty(_BLOCK, np.int32),
    )
    scores, squares = np.empty(2 * _BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    forces, positions = np.empty((3, _BLOCK), np.float32), np.ones((4, _BLOCK), np.float32)
    half = np.float32(0.5)
    for chunk in range(first, last):
        total = sums[chunk]
        end = min((chunk + 1) * _CHUNK, count)
        for start in range(chunk * _CHUNK, end, _BLOCK):
            size = min(_BLOCK, end - start)
            f, m = np.uintp(start), np.uintp(4 * count + start)
            _spread(values, f, m, size, weights, cells)
            _spread_slopes(values, f, m, size, slopes)
            _score(weights, slopes, cells, size, log_ratio.reshape(-1), scores)
            for axis in range(3):
                f += np.uintp(count)
                m += np.uintp(count)
                force, position = forces[axis], positions[axis]
                for n in range(size):
                    at = np.uintp(n)
                    moving_force = scores[at + np.uintp(_BLOCK)] * values[m + at]
                    force[at] = half * (moving_force - scores[at] * values[f + at])
                    position[at] = flat[np.uintp(3 * (start + n) + axis)]
            for i in range(3):
                for k in range(4):
                    total[4 * i + k] += _sum_products(forces[i], positions[k], positions[3], size)
            place = 12
            for i in range(3):
                for k in range(i, 3):
                    one, other = forces[i], forces[k]
                    for n in range(size):
                        squares[np.uintp(n)] = one[np.uintp(n)] * other[np.uintp(n)]
                    for a in range(4):
                        for b in range(a, 4):
                            total[place] += _sum_products(squares, positions[a], positions[b], size)
                            place += 1


@no_type_check
@compile_kernel
def _spread_slopes(values, f, m, size, slopes):
    """Write the derivatives of the weights of `_spread` by the values."""
    one, half, two, more = np.float32(1), np.float32(0.5), np.float32(2), np.float32(1.5)
    for n in range(size):
        at = np.uintp(n)
        t = values[f + at] - np.float32(np.int32(values[f + at]))
        u = one - t
        slopes[at] = -half * u * u
        slopes[at + np.uintp(_BLOCK)] = t * (more * t - two)
        slopes[at + np.uintp(2 * _BLOCK)] = u * (two - more * u)
        slopes[at + np.uintp(3 * _BLOCK)] = half * t * t
        t = values[m + at] - np.float32(np.int32(values[m + at]))
        u = one - t
        slopes[at + np.uintp(4 * _BLOCK)] = -half * u * u
        slopes[at + np.uintp(5 * _BLOCK)] = t * (more * t - two)
        slopes[at + np.uintp(6 * _BLOCK)] = u * (two - more * u)
        slopes[at + np.uintp(7 * _BLOCK)] = half * t * t


@no_type_check
@compile_kernel
def _score(weights, slopes, cells, size, table, scores):
    """Write the derivatives of the log-likelihood of each sample by its value in the fixed and in the moving image."""
    for n in range(size):
        at = np.uintp(n)
        w0, w1 = weights[at + np.uintp(4 * _BLOCK)], weights[at + np.uintp(5 * _BLOCK)]
        w2, w3 = weights[at + np.uintp(6 * _BLOCK)], weights[at + np.uintp(7 * _BLOCK)]
        s0, s1 = slopes[at + np.uintp(4 * _BLOCK)], slopes[at + np.uintp(5 * _BLOCK)]
        s2, s3 = slopes[at + np.uintp(6 * _BLOCK)], slopes[at + np.uintp(7 * _BLOCK)]
        fixed, moving = np.float32(0), np.float32(0)
        for i in range(4):
            cell = np.uintp(cells[at]) + np.uintp(i * BINS)
            r0, r1 = table[cell], table[cell + np.uintp(1)]
            r2, r3 = table[cell + np.uintp(2)], table[cell + np.uintp(3)]
            fixed += slopes[at + np.uintp(i * _BLOCK)] * (w0 * r0 + w1 * r1 + w2 * r2 + w3 * r3)
            moving += weights[at + np.uintp(i * _BLOCK)] * (s0 * r0 + s1 * r1 + s2 * r2 + s3 * r3)
        scores[at], scores[at + np.uintp(_BLOCK)] = fixed, moving


@no_type_check
@compile_kernel
def _sum_products(a, b, c, size):
    total = np.float32(0)
    for n in range(size):
        total += a[np.uintp(n)] * b[np.uintp(n)] * c[np.uintp(n)]
    return total
