"""Patch search on the CPU.

For one plane and one offset, the products of both images are summed over the patch along the first axis, row by row;
``2 patch_radius + 1`` such rows are kept, and their sum along the second and third axis is the product of two patches.
So a voxel and offset cost about ``3 (2 patch_radius + 1)`` operations instead of ``(2 patch_radius + 1)^3``.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Pooled, Shaped, Tensor
from convexadam.kernels._cpu import compile_kernel, make_constant, run_in_slabs, to_numpy
from convexadam.kernels.patch_match.reference import FLAT, pad_image


def match_patches(
    target: Channels,
    atlas: Channels,
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    matches: int = 1,
) -> tuple[Shaped[Tensor, "m i j k"], Float[Tensor, "m i j k"]]:
    """See the package."""
    own, other = pad_image(target, patch_radius), pad_image(atlas, patch_radius + search_radius)
    moments = [*compute_moments(own, patch_radius), *compute_moments(other, patch_radius)]
    middle = (2 * search_radius + 1) ** 3 // 2
    found = torch.full((matches, *mask.shape), middle, dtype=torch.int16, device="cpu")
    value = torch.zeros((matches, *mask.shape), dtype=torch.float32, device="cpu")
    taps = make_constant(2 * patch_radius + 1)
    arrays = to_numpy(own, other, *moments, mask, found, value)
    run_in_slabs(_match_planes, mask.shape[0], *arrays, patch_radius, search_radius, taps)
    return found, value


def compute_moments(padded: Pooled, radius: int) -> tuple[Tensor, Tensor]:
    """Return mean and inverse norm of each patch that lies within a padded image."""
    width, values = 2 * radius + 1, padded.double()  # the variance is a small difference of large numbers
    mean = functional.avg_pool3d(values, width, stride=1)
    variance = functional.avg_pool3d(values * values, width, stride=1) - mean * mean
    norm = torch.where(variance > FLAT, variance * width**3, torch.inf).rsqrt()
    return mean.float(), norm.float()


@no_type_check
@compile_kernel
def _match_planes(first, last, own, other, mean, norm, mean2, norm2, mask, found, value, patch, search, taps):
    channels, _, rows, columns = own.shape
    n1, n2 = mask.shape[1], mask.shape[2]
    width, side = len(taps), 2 * search + 1
    middle = side**3 // 2
    ring, total = np.empty(channels * width * columns, np.float32), np.empty(columns, np.float32)
    score, carried, matches = np.empty(n2, np.float32), np.empty(n2, np.float32), len(found)
    best = np.empty((matches, n1, n2), np.float32)
    choice = np.empty(best.shape, np.float32)  # whole numbers, of the type of the correlations: they are moved together
    needed = np.empty(n1, np.bool_)
    x, y = own.reshape(-1), other.reshape(-1)
    planes, rows2, columns2 = other.shape[1], other.shape[2], other.shape[3]
    for i in range(first, last):
        lowest, highest = n2, 0
        for j in range(n1):
            needed[j] = False
            for k in range(n2):
                if mask[i, j, k]:
                    needed[j] = True
                    lowest, highest = min(lowest, k), max(highest, k + 1)
        if lowest >= highest:
            continue
        best[:], choice[:] = -2, middle
        span = highest - lowest
        for turn in range(-1, side**3):
            number = middle if turn < 0 else turn  # the offset 0 first, so that it wins against equal ones
            if turn == middle:
                continue
            di, dj, dk = number // (side * side), number // side % side, number % side
            for row in range(rows):
                wanted = False
                for j in range(max(row - 2 * patch, 0), min(row, n1 - 1) + 1):
                    wanted |= needed[j]
                if not wanted:
                    continue
                for c in range(channels):
                    here = ((c * own.shape[1] + i) * rows + row) * columns + lowest
                    there = ((c * planes + i + di) * rows2 + row + dj) * columns2 + lowest + dk
                    start = (c * width + row % width) * columns
                    run = span + 2 * patch
                    _multiply_rows(x, here, rows * columns, y, there, rows2 * columns2, ring, start, run, taps)
                j = row - 2 * patch
                if j < 0 or not needed[j]:
                    continue
                score[:span] = 0
                for c in range(channels):
                    _add_rows(ring, c * width * columns, columns, total, span + 2 * patch, taps)
                    here, there = mean[c, i, j, lowest:], mean2[c, i + di, j + dj, lowest + dk :]
                    scale, scale2 = norm[c, i, j, lowest:], norm2[c, i + di, j + dj, lowest + dk :]
                    _add_correlations(total, here, there, scale, scale2, score, span, taps)
                if matches == 1:
                    _keep_best(score, best[0, j, lowest:], choice[0, j, lowest:], span, np.float32(number))
                else:
                    carried[:span] = number
                    for m in range(matches):
                        _insert(score, carried, best[m, j, lowest:], choice[m, j, lowest:], span)
        for j in range(n1):
            for k in range(lowest, highest):
                if mask[i, j, k]:
                    for m in range(matches):
                        found[m, i, j, k] = np.int16(choice[m, j, k])
                        value[m, i, j, k] = best[m, j, k] / np.float32(channels)


@no_type_check
@compile_kernel
def _multiply_rows(x, here, step, y, there, step2, out, start, count, taps):
    """Sum the products of two runs of numbers over the planes of a patch."""
    a = np.uintp(start)
    for n in range(count):
        k = np.uintp(n)
        total = np.float32(0)
        for p in range(len(taps)):
            total += x[np.uintp(here + p * step) + k] * y[np.uintp(there + p * step2) + k]
        out[a + k] = total


@no_type_check
@compile_kernel
def _add_rows(ring, start, step, out, count, taps):
    """Sum the rows of a patch."""
    for n in range(count):
        k = np.uintp(n)
        total = np.float32(0)
        for p in range(len(taps)):
            total += ring[np.uintp(start + p * step) + k]
        out[k] = total


@no_type_check
@compile_kernel
def _add_correlations(total, mean, mean2, norm, norm2, score, count, taps):
    """Sum over the third axis of the patch, and add the correlation of standardised patches to the score."""
    size = np.float32(len(taps) ** 3)
    for n in range(count):
        k = np.uintp(n)
        product = np.float32(0)
        for p in range(len(taps)):
            product += total[k + np.uintp(p)]
        score[k] += (product - size * mean[k] * mean2[k]) * norm[k] * norm2[k]


@no_type_check
@compile_kernel
def _keep_best(score, best, choice, count, number):
    """Replace the best scores so far, and the numbers of their offsets, where the new ones are larger."""
    for n in range(count):
        k = np.uintp(n)
        choice[k] = number if score[k] > best[k] else choice[k]
        best[k] = max(score[k], best[k])


@no_type_check
@compile_kernel
def _insert(score, number, best, choice, count):
    """Exchange scores with those of one rank, and the numbers of their offsets, where the new ones are larger."""
    for n in range(count):
        k = np.uintp(n)
        here, value, mine, other = best[k], score[k], choice[k], number[k]
        better = value > here
        best[k], score[k] = max(value, here), here if better else value
        choice[k], number[k] = other if better else mine, mine if better else other
