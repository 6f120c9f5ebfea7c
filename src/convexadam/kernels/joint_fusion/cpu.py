"""Joint weights on the CPU, voxel by voxel: patches, products and Cholesky factors stay in the cache."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels.patch_match.reference import FLAT, pad_image


def compute_joint_weights(
    target: Channels,
    atlases: Float[Tensor, "n c i j k"],
    offsets: Shaped[Tensor, "n i j k"],
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    alpha: float = 0.1,
    beta: float = 2.0,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    number, channels = atlases.shape[:2]
    own = pad_image(target, patch_radius)
    others = pad_image(atlases.flatten(0, 1), patch_radius + search_radius)
    others = others.reshape(number, channels, *others.shape[1:])
    weights = torch.zeros((number, *mask.shape), dtype=torch.float32, device="cpu")
    arrays = to_numpy(own, others, offsets, mask, weights)
    numbers = np.float32(alpha), np.float32(beta)
    run_in_slabs(_weigh_planes, mask.shape[0], *arrays, patch_radius, search_radius, *numbers)
    return weights


@no_type_check
@compile_kernel
def _weigh_planes(first, last, own, others, offsets, mask, weights, patch, search, alpha, beta):
    number, channels = others.shape[0], own.shape[0]
    width, side = 2 * patch + 1, 2 * search + 1
    size = channels * width**3
    mine, errors = np.empty(size, np.float32), np.empty((number, size), np.float32)
    joint, solved = np.empty((number, number), np.float64), np.empty(number, np.float64)
    inverse = np.float32(1) / np.float32(channels)
    for i in range(first, last):
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                if not mask[i, j, k]:
                    continue
                for c in range(channels):
                    _standardise(own[c], i, j, k, width, mine, c * width**3)
                for a in range(number):
                    o = offsets[a, i, j, k]
                    x, y, z = i + o // (side * side), j + o // side % side, k + o % side
                    for c in range(channels):
                        _standardise(others[a, c], x, y, z, width, errors[a], c * width**3)
                    for p in range(size):
                        errors[a, p] = abs(errors[a, p] - mine[p])
                for a in range(number):
                    for b in range(a + 1):
                        product = np.float32(0)
                        for p in range(size):
                            product += errors[a, p] * errors[b, p]
                        joint[a, b] = (product * inverse) ** beta
                    joint[a, a] += alpha
                _solve_for_ones(joint, solved)
                total = solved.sum()
                for a in range(number):
                    weights[a, i, j, k] = solved[a] / total


@no_type_check
@compile_kernel
def _standardise(image, i, j, k, width, out, start):
    """Write a patch, minus its mean and of norm 1 (0 if it is constant)."""
    n = start
    for x in range(i, i + width):
        for y in range(j, j + width):
            row = image[x, y]
            for p in range(width):
                out[n + p] = row[k + p]
            n += width
    mean, squared = np.float32(0), np.float32(0)
    for p in range(start, n):
        mean += out[p]
    mean /= np.float32(n - start)
    for p in range(start, n):
        out[p] -= mean
        squared += out[p] * out[p]
    scale = np.float32(0)
    if squared > np.float32(FLAT) * np.float32(n - start):
        scale = np.float32(1) / np.sqrt(squared)
    for p in range(start, n):
        out[p] *= scale


@no_type_check
@compile_kernel
def _solve_for_ones(matrix, out):
    """Solve a symmetric positive definite system with the right-hand side 1 by Cholesky factors, in place."""
    n = len(out)
    for a in range(n):
        for b in range(a + 1):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            matrix[a, b] = np.sqrt(total) if a == b else total / matrix[b, b]
    for a in range(n):
        total = 1.0
        for b in range(a):
            total -= matrix[a, b] * out[b]
        out[a] = total / matrix[a, a]
    for a in range(n - 1, -1, -1):
        total = out[a]
        for b in range(a + 1, n):
            total -= matrix[b, a] * out[b]
        out[a] = total / matrix[a, a]
