"""MIND-SSC on the CPU, averaged over blocks during computation, in two passes over slabs of planes.

The first pass computes the average of ``v``, the second one the descriptors; computing the patch distances twice takes
less time than storing twelve channels at full resolution once. Averages have the channels last in memory, as the search
and `Ssd` read them; descriptors of single voxels have them first, as they are computed, which windows read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from torch.nn import functional

from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.kernels._cpu import compile_kernel, empty, fill_weights, make_constant, run_in_slabs, to_numpy
from convexadam.kernels.mind_ssc.reference import PAIRS

_BLOCK_BYTES = 2**20
"""Memory for the patch distances of a block of rows, which should remain in the cache."""

_PAIRS = np.array(PAIRS, dtype=np.int64)
_CHANNELS = make_constant(len(PAIRS))
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1 / math.log(2)), np.float32(0.693359375), np.float32(-2.12194440e-4)
_MIN_EXPONENT = np.float32(-87)
_TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7))


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    return _extract(volume, [(1, 1, 1)], radius, dilation, weight, pool_weight=None)[0]


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """See the package."""
    return _extract(volume, spacings, radius, dilation, weight, pool_weight=weight)


def _extract(
    volume: Volume,
    spacings: Sequence[Triple],
    radius: int,
    dilation: int,
    weight: Volume | None,
    *,
    pool_weight: Volume | None,
) -> tuple[Pooled, ...]:
    if not spacings:
        return ()
    image = functional.pad(volume[None, None], (dilation,) * 6, mode="replicate")[0, 0].numpy()
    statistic, pooling = to_numpy(*fill_weights(weight, pool_weight, like=volume))
    blocks = [(a, b, c) for a, b, c in ([n // s for n, s in zip(volume.shape, t, strict=True)] for t in spacings)]
    starts = np.cumsum([0] + [math.prod(b) * len(PAIRS) for b in blocks])
    common = [math.lcm(*(t[axis] for t in spacings)) for axis in range(2)]
    per_row = _BLOCK_BYTES // (len(PAIRS) * (2 * radius + 1) * volume.shape[2] * 4)
    rows = common[1] * max(1, per_row // common[1])
    window, n = make_constant(2 * radius + 1), volume.shape[0]
    sums = run_in_slabs(_sum_variance, n, image, statistic, window, dilation, rows, multiple=common[0])
    weighted, total, plain = (sum(column) for column in zip(*sums, strict=True))
    average = weighted / total if weighted > 0 else plain / volume.numel()
    out = empty(int(starts[-1]))
    limits = np.float32(1e-3 * average), np.float32(1e3 * average)
    sizes = np.array(spacings, dtype=np.int64)
    arrays = image, pooling, out.numpy(), sizes, starts[:-1]
    run_in_slabs(_write_descriptors, n, *arrays, *limits, window, dilation, rows, multiple=common[0])
    parts = [out[a:b] for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
    return tuple(
        part.reshape(len(PAIRS), *b) if max(t) == 1 else part.reshape(*b, len(PAIRS)).permute(3, 0, 1, 2)
        for part, b, t in zip(parts, blocks, spacings, strict=True)
    )


@no_type_check
@compile_kernel
def _sum_patches(image, i, first, last, pairs, window, dilation, differences, line, out):
    """Sum squared differences over the window along j and k, for the rows ``first ... last - 1`` of plane ``i``."""
    n1, n2 = image.shape[1] - 2 * dilation, image.shape[2] - 2 * dilation
    radius = len(window) // 2
    for c in range(len(pairs)):
        a0, a1, a2 = dilation * (pairs[c, 0, 0] + 1), dilation * (pairs[c, 0, 1] + 1), dilation * (pairs[c, 0, 2] + 1)
        b0, b1, b2 = dilation * (pairs[c, 1, 0] + 1), dilation * (pairs[c, 1, 1] + 1), dilation * (pairs[c, 1, 2] + 1)
        for j in range(first - radius, last + radius):
            at = min(max(j, 0), n1 - 1)
            a, b, row = image[i + a0, at + a1, a2:], image[i + b0, at + b1, b2:], differences[j - first + radius]
            for k in range(n2):
                difference = a[k] - b[k]
                row[k] = difference * difference
        middle = line[radius : radius + n2]
        for j in range(last - first):
            block, target = differences[j:], out[c, j]
            flat = block.reshape(-1)
            for k in range(n2):
                total = np.float32(0)
                for o in range(len(window)):
                    total += flat[np.uintp(k + o * n2)]
                middle[k] = total
            line[:radius], line[radius + n2 :] = middle[0], middle[n2 - 1]
            for k in range(n2):
                total = np.float32(0)
                for o in range(len(window)):
                    total += line[np.uintp(k + o)]
                target[k] = total


@no_type_check
@compile_kernel
def _compute_row(ring, slots, j, scale, distances, minimum, variance, channels):
    """Compute the patch distances of one row of voxels, their minimum, and the mean of their excess over it."""
    n2 = distances.shape[1]
    minimum[:], variance[:] = np.inf, 0
    for c in range(len(channels)):
        row, last = distances[c], ring[slots[-1], c, j]
        row[:] = 0
        for o in range(len(slots) - 1):
            plane = ring[slots[o], c, j]
            for k in range(n2):
                row[k] += plane[k]
        for k in range(n2):
            total = scale * (row[k] + last[k])
            row[k], minimum[k] = total, min(minimum[k], total)
            variance[k] += total
    for k in range(n2):
        variance[k] = variance[k] / np.float32(len(channels)) - minimum[k]


@no_type_check
@compile_kernel
def _sum_variance(first, last, image, weight, window, dilation, rows):
    """Return the sums of ``v`` times weight, of the weight, and of ``v``, over the planes ``first ... last - 1``."""
    n0, n1, n2 = weight.shape
    radius, channels, scale = len(window) // 2, len(_PAIRS), np.float32(1 / len(window) ** 3)
    ring = np.empty((len(window), channels, rows, n2), np.float32)
    differences, line = np.empty((rows + 2 * radius, n2), np.float32), np.empty(n2 + 2 * radius, np.float32)
    distances, minimum, variance = (
        np.empty((channels, n2), np.float32),
        np.empty(n2, np.float32),
        np.empty(n2, np.float32),
    )
    slots = np.empty(len(window), np.int64)
    weighted, weights, plain = 0.0, 0.0, 0.0
    for start in range(0, n1, rows):
        stop = min(start + rows, n1)
        last_plane = max(first - radius, 0) - 1
        for i in range(first, last):
            while last_plane < min(i + radius, n0 - 1):
                last_plane += 1
                target = ring[last_plane % len(window)]
                _sum_patches(image, last_plane, start, stop, _PAIRS, window, dilation, differences, line, target)
            for o in range(len(window)):
                slots[o] = min(max(i + o - radius, 0), n0 - 1) % len(window)
            for j in range(start, stop):
                _compute_row(ring, slots, j - start, scale, distances, minimum, variance, _CHANNELS)
                part, share, unweighted = np.float32(0), np.float32(0), np.float32(0)
                for k in range(n2):
                    part += variance[k] * weight[i, j, k]
                    share += weight[i, j, k]
                    unweighted += variance[k]
                weighted, weights, plain = weighted + part, weights + share, plain + unweighted
    return weighted, weights, plain


@no_type_check
@compile_kernel
def _write_descriptors(first, last, image, weight, out, spacings, starts, lower, upper, window, dilation, rows):
    """Compute the descriptors of the planes ``first ... last - 1``, averaged over the blocks of each spacing."""
    n0, n1, n2 = weight.shape
    radius, channels, scale = len(window) // 2, len(_PAIRS), np.float32(1 / len(window) ** 3)
    ring = np.empty((len(window), channels, rows, n2), np.float32)
    differences, line = np.empty((rows + 2 * radius, n2), np.float32), np.empty(n2 + 2 * radius, np.float32)
    distances, minimum, variance = (
        np.empty((channels, n2), np.float32),
        np.empty(n2, np.float32),
        np.empty(n2, np.float32),
    )
    slots = np.empty(len(window), np.int64)
    totals = np.zeros((len(spacings), rows, channels, n2), np.float32)
    shares = np.zeros((len(spacings), rows, n2), np.float32)
    for start in range(0, n1, rows):
        stop = min(start + rows, n1)
        last_plane = max(first - radius, 0) - 1
        totals[:], shares[:] = 0, 0
        for i in range(first, last):
            while last_plane < min(i + radius, n0 - 1):
                last_plane += 1
                target = ring[last_plane % len(window)]
                _sum_patches(image, last_plane, start, stop, _PAIRS, window, dilation, differences, line, target)
            for o in range(len(window)):
                slots[o] = min(max(i + o - radius, 0), n0 - 1) % len(window)
            for j in range(start, stop):
                _compute_row(ring, slots, j - start, scale, distances, minimum, variance, _CHANNELS)
                for k in range(n2):
                    clamped = min(max(variance[k], lower), upper)
                    variance[k] = np.float32(-1) / clamped if clamped > np.float32(0) else np.float32(-1)
                weights = weight[i, j]
                for c in range(channels):
                    _exponential(distances[c], minimum, variance)
                for s in range(len(spacings)):
                    if _is_voxel(spacings[s]):
                        _write_row(distances, weights, out[starts[s] + (i * n1 + j) * n2 :], n0 * n1 * n2)
                        continue
                    share, block_total = (
                        shares[s, (j - start) // spacings[s, 1]],
                        totals[s, (j - start) // spacings[s, 1]],
                    )
                    for k in range(n2):
                        share[k] += weights[k]
                    for c in range(channels):
                        row, total = distances[c], block_total[c]
                        for k in range(n2):
                            total[k] += weights[k] * row[k]
            for s in range(len(spacings)):
                if not _is_voxel(spacings[s]) and (i + 1) % spacings[s, 0] == 0:
                    _write_blocks(
                        i // spacings[s, 0],
                        start,
                        stop,
                        weight.shape,
                        spacings[s],
                        totals[s],
                        shares[s],
                        out[starts[s] :],
                    )
                    totals[s], shares[s] = 0, 0


@no_type_check
@compile_kernel
def _is_voxel(spacing):
    """Whether a block is a single voxel."""
    return spacing[0] * spacing[1] * spacing[2] == 1


@no_type_check
@compile_kernel
def _exponential(row, minimum, factor):
    """Compute ``exp((row - minimum) * factor)`` in place, for exponents of at most 0, to the precision of float32."""
    for k in range(len(row)):
        x = max((row[k] - minimum[k]) * factor[k], _MIN_EXPONENT)
        whole = np.int32(x * _LOG2_E - np.float32(0.5))
        x = (x - np.float32(whole) * _LN2_HIGH) - np.float32(whole) * _LN2_LOW
        total = _TAYLOR[6]
        total = total * x + _TAYLOR[5]
        total = total * x + _TAYLOR[4]
        total = total * x + _TAYLOR[3]
        total = total * x + _TAYLOR[2]
        total = total * x + _TAYLOR[1]
        power = np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
        row[k] = (total * x + _TAYLOR[0]) * power


@no_type_check
@compile_kernel
def _write_row(descriptors, weights, out, volume):
    """Store the descriptors of a row of voxels, of which each is a block, ``volume`` values apart; 0 without weight."""
    for c in range(len(_PAIRS)):
        row, target = descriptors[c], out[c * volume : c * volume + len(weights)]
        for k in range(len(weights)):
            target[k] = row[k] if weights[k] > np.float32(0) else np.float32(0)


@no_type_check
@compile_kernel
def _write_blocks(i, start, stop, shape, spacing, totals, shares, out):
    """Sum along k, divide by the weight, and store one plane of blocks."""
    m0, m1, m2 = shape[0] // spacing[0], shape[1] // spacing[1], shape[2] // spacing[2]
    channels, n2, width = totals.shape[1], totals.shape[2], spacing[2]
    if i >= m0:
        return
    for j in range(start // spacing[1], min(stop // spacing[1], m1)):
        total, share = totals[j - start // spacing[1]].reshape(-1), shares[j - start // spacing[1]]
        for k in range(m2):
            weight = np.float32(0)
            for n in range(k * width, (k + 1) * width):
                weight += share[n]
            factor = np.float32(1) / weight if weight > np.float32(0) else np.float32(0)
            target = ((i * m1 + j) * m2 + k) * channels
            for c in range(channels):
                first, value = c * n2 + k * width, np.float32(0)
                for n in range(width):
                    value += total[np.uintp(first + n)]
                out[np.uintp(target + c)] = factor * value
