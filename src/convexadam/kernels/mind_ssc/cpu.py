"""MIND-SSC on the CPU, pooled as it arises: slabs of planes, in two sweeps.

The first sweep finds the average variance, the second describes; computing the patch distances twice costs less than
writing twelve channels of the whole volume to memory once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from torch.nn import functional

from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.kernels._cpu import compiled, constant, empty, in_slabs, views, weights_or_ones
from convexadam.kernels.mind_ssc.reference import PAIRS

_CACHE_BYTES = 2**20
"""What the patch distances of a block of rows may take."""

_PAIRS = np.array(PAIRS, dtype=np.int64)
_CHANNELS = constant(len(PAIRS))
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1 / math.log(2)), np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87)
_TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7))


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    return _described(volume, [(1, 1, 1)], radius, dilation, weight, pool_weight=None)[0]


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """See the package."""
    return _described(volume, spacings, radius, dilation, weight, pool_weight=weight)


def _described(
    volume: Volume,
    spacings: Sequence[Triple],
    radius: int,
    dilation: int,
    weight: Volume | None,
    *,
    pool_weight: Volume | None,
) -> tuple[Pooled, ...]:
    image = functional.pad(volume[None, None], (dilation,) * 6, mode="replicate")[0, 0].numpy()
    statistic, pooling = views(*weights_or_ones(weight, pool_weight, like=volume))
    blocks = [(a, b, c) for a, b, c in ([n // s for n, s in zip(volume.shape, t, strict=True)] for t in spacings)]
    starts = np.cumsum([0] + [math.prod(b) * len(PAIRS) for b in blocks])
    common = [math.lcm(*(t[axis] for t in spacings)) for axis in range(2)]
    per_row = _CACHE_BYTES // (len(PAIRS) * (2 * radius + 1) * volume.shape[2] * 4)
    rows = common[1] * max(1, per_row // common[1])
    window, n = constant(2 * radius + 1), volume.shape[0]
    sums = in_slabs(_average, n, image, statistic, window, dilation, rows, multiple=common[0])
    weighted, total, plain = (sum(column) for column in zip(*sums, strict=True))
    average = weighted / total if weighted > 0 else plain / volume.numel()
    out = empty(int(starts[-1]))
    limits = np.float32(1e-3 * average), np.float32(1e3 * average)
    sizes = np.array(spacings, dtype=np.int64)
    arrays = image, pooling, out.numpy(), sizes, starts[:-1]
    in_slabs(_describe, n, *arrays, *limits, window, dilation, rows, multiple=common[0])
    parts = [out[a:b] for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
    return tuple(part.reshape(*b, len(PAIRS)).permute(3, 0, 1, 2) for part, b in zip(parts, blocks, strict=True))


@no_type_check
@compiled
def _patches(image, i, first, last, pairs, window, dilation, differences, line, out):
    """Squared differences of plane ``i``, summed over the window along j and k, for the rows ``first ... last - 1``."""
    n1, n2 = image.shape[1] - 2 * dilation, image.shape[2] - 2 * dilation
    radius = len(window) // 2
    for c in range(len(pairs)):
        a0, a1, a2 = dilation * (pairs[c, 0, 0] + 1), dilation * (pairs[c, 0, 1] + 1), dilation * (pairs[c, 0, 2] + 1)
        b0, b1, b2 = dilation * (pairs[c, 1, 0] + 1), dilation * (pairs[c, 1, 1] + 1), dilation * (pairs[c, 1, 2] + 1)
        for j in range(first - radius, last + radius):
            at = min(max(j, 0), n1 - 1)
            a, b, row = image[i + a0, at + a1, a2:], image[i + b0, at + b1, b2:], differences[j - first + radius]
            for k in range(n2):
                apart = a[k] - b[k]
                row[k] = apart * apart
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
@compiled
def _row(ring, slots, j, scale, distances, lowest, variance, channels):
    """Distances of one row of voxels, their minimum, and the mean of what they exceed it by."""
    n2 = distances.shape[1]
    lowest[:], variance[:] = np.inf, 0
    for c in range(len(channels)):
        row, last = distances[c], ring[slots[-1], c, j]
        row[:] = 0
        for o in range(len(slots) - 1):
            plane = ring[slots[o], c, j]
            for k in range(n2):
                row[k] += plane[k]
        for k in range(n2):
            total = scale * (row[k] + last[k])
            row[k], lowest[k] = total, min(lowest[k], total)
            variance[k] += total
    for k in range(n2):
        variance[k] = variance[k] / np.float32(len(channels)) - lowest[k]


@no_type_check
@compiled
def _average(first, last, image, weight, window, dilation, rows):
    """Return sums of variance times weight, of the weight, and of the variance."""
    n0, n1, n2 = weight.shape
    radius, channels, scale = len(window) // 2, len(_PAIRS), np.float32(1 / len(window) ** 3)
    ring = np.empty((len(window), channels, rows, n2), np.float32)
    differences, line = np.empty((rows + 2 * radius, n2), np.float32), np.empty(n2 + 2 * radius, np.float32)
    distances, lowest, variance = (
        np.empty((channels, n2), np.float32),
        np.empty(n2, np.float32),
        np.empty(n2, np.float32),
    )
    slots = np.empty(len(window), np.int64)
    weighted, weights, plain = 0.0, 0.0, 0.0
    for start in range(0, n1, rows):
        stop = min(start + rows, n1)
        ready = max(first - radius, 0) - 1
        for i in range(first, last):
            while ready < min(i + radius, n0 - 1):
                ready += 1
                target = ring[ready % len(window)]
                _patches(image, ready, start, stop, _PAIRS, window, dilation, differences, line, target)
            for o in range(len(window)):
                slots[o] = min(max(i + o - radius, 0), n0 - 1) % len(window)
            for j in range(start, stop):
                _row(ring, slots, j - start, scale, distances, lowest, variance, _CHANNELS)
                part, share, all_of_it = np.float32(0), np.float32(0), np.float32(0)
                for k in range(n2):
                    part += variance[k] * weight[i, j, k]
                    share += weight[i, j, k]
                    all_of_it += variance[k]
                weighted, weights, plain = weighted + part, weights + share, plain + all_of_it
    return weighted, weights, plain


@no_type_check
@compiled
def _describe(first, last, image, weight, out, spacings, starts, least, most, window, dilation, rows):
    """Descriptors of the planes ``first ... last - 1``, averaged over the blocks of each spacing."""
    n0, n1, n2 = weight.shape
    radius, channels, scale = len(window) // 2, len(_PAIRS), np.float32(1 / len(window) ** 3)
    ring = np.empty((len(window), channels, rows, n2), np.float32)
    differences, line = np.empty((rows + 2 * radius, n2), np.float32), np.empty(n2 + 2 * radius, np.float32)
    distances, lowest, variance = (
        np.empty((channels, n2), np.float32),
        np.empty(n2, np.float32),
        np.empty(n2, np.float32),
    )
    slots = np.empty(len(window), np.int64)
    totals = np.zeros((len(spacings), rows, channels, n2), np.float32)
    shares = np.zeros((len(spacings), rows, n2), np.float32)
    for start in range(0, n1, rows):
        stop = min(start + rows, n1)
        ready = max(first - radius, 0) - 1
        totals[:], shares[:] = 0, 0
        for i in range(first, last):
            while ready < min(i + radius, n0 - 1):
                ready += 1
                target = ring[ready % len(window)]
                _patches(image, ready, start, stop, _PAIRS, window, dilation, differences, line, target)
            for o in range(len(window)):
                slots[o] = min(max(i + o - radius, 0), n0 - 1) % len(window)
            for j in range(start, stop):
                _row(ring, slots, j - start, scale, distances, lowest, variance, _CHANNELS)
                for k in range(n2):
                    spread = min(max(variance[k], least), most)
                    variance[k] = np.float32(-1) / spread if spread > np.float32(0) else np.float32(-1)
                here = weight[i, j]
                for c in range(channels):
                    _exponential(distances[c], lowest, variance)
                for s in range(len(spacings)):
                    share, cell = shares[s, (j - start) // spacings[s, 1]], totals[s, (j - start) // spacings[s, 1]]
                    for k in range(n2):
                        share[k] += here[k]
                    for c in range(channels):
                        row, total = distances[c], cell[c]
                        for k in range(n2):
                            total[k] += here[k] * row[k]
            for s in range(len(spacings)):
                if (i + 1) % spacings[s, 0] == 0:
                    _finish(
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
@compiled
def _exponential(row, lowest, factor):
    """Replace ``row`` by ``exp((row - lowest) * factor)``, for exponents of at most 0, to float32's precision."""
    for k in range(len(row)):
        x = max((row[k] - lowest[k]) * factor[k], _LOWEST)
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
@compiled
def _finish(i, start, stop, shape, spacing, totals, shares, out):
    """Sum along k, divide, and write one plane of blocks."""
    m0, m1, m2 = shape[0] // spacing[0], shape[1] // spacing[1], shape[2] // spacing[2]
    channels = totals.shape[1]
    if i >= m0:
        return
    for j in range(start // spacing[1], min(stop // spacing[1], m1)):
        total, share = totals[j - start // spacing[1]], shares[j - start // spacing[1]]
        for k in range(m2):
            weight = np.float32(0)
            for n in range(k * spacing[2], (k + 1) * spacing[2]):
                weight += share[n]
            factor = np.float32(1) / weight if weight > np.float32(0) else np.float32(0)
            target = ((i * m1 + j) * m2 + k) * channels
            for c in range(channels):
                row, value = total[c], np.float32(0)
                for n in range(k * spacing[2], (k + 1) * spacing[2]):
                    value += row[n]
                out[target + c] = factor * value
