"""Bending energy on the CPU, in one pass.

Inside, the gradient is the Laplacian of the Laplacian. At the border it is so as well, with the Laplacian that lets
nothing flow out, but for the first difference of each axis there: where the product of both has that squared, the
energy has no second difference.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import addend, compiled, constant, in_slabs, minus, views
from convexadam.kernels.diffusion.cpu import add_excess, around


def bending(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total, gradient = _run(field, weight, onto, valued=1)
    value = weight * total / (3 * field[0].numel())
    return torch.tensor(value, dtype=torch.float32, device="cpu"), gradient


def bending_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, onto, valued=0)[1]


def _run(field: Field, weight: float, onto: Field | None, *, valued: int) -> tuple[float, Field]:
    gradient = addend(onto, like=field)
    factor = np.float32(2 * weight / (3 * field[0].numel()))
    parts = in_slabs(_planes, 3 * field.shape[1], *views(field, gradient), factor, constant(valued))
    return sum(parts), gradient if onto is None or onto is gradient else onto.add_(gradient)


@no_type_check
@compiled
def _planes(first, last, u, out, factor, valued):
    """Add the gradient of the planes ``first ... last - 1`` of all components in a row.

    Returns the sum of squared second differences if ``valued``.
    """
    _, n0, n1, n2 = u.shape
    field, target, size = u.reshape(-1), out.reshape(-1), n1 * n2
    ring = np.empty(3 * size, np.float32)  # the negative Laplacian of a plane and of those before and after it
    found, one = np.empty(n2, np.float32), np.float32(1)
    ready = -1
    total = 0.0
    for plane in range(first, last):
        i, ready = plane % n0, max(ready, plane - min(plane % n0, 1) - 1)
        while ready < plane + (1 if i < n0 - 1 else 0):
            ready += 1
            at = ready % 3 * size
            ring[at : at + size] = 0
            for j in range(n1):
                start = ready * size + j * n2
                beside = around(start, ready % n0, j, u.shape)
                add_excess(field, start, beside, n2, ring, at + j * n2, one)
        middle = plane % 3 * size
        above = (plane - 1) % 3 * size if i > 0 else middle
        below = (plane + 1) % 3 * size if i < n0 - 1 else middle
        for j in range(n1):
            row, start = j * n2, plane * size + j * n2
            left, right = row - (n2 if j > 0 else 0), row + (n2 if j < n1 - 1 else 0)
            beside = above + row, below + row, middle + left, middle + right
            found[:] = 0
            add_excess(ring, middle + row, beside, n2, found, 0, one)
            _correct_border(field, start, i, j, u.shape, found)
            for k in range(n2):
                target[np.uintp(start + k)] += factor * found[np.uintp(k)]
            if len(valued) > 0:
                total += _squared(field, start, i, j, u.shape)
    return total


@no_type_check
@compiled
def _correct_border(u, row, i, j, shape, out):
    """Take the first differences at the ends of the axes out of the Laplacian's Laplacian of a row."""
    _, n0, n1, n2 = shape
    for index, n, step in ((i, n0, n1 * n2), (j, n1, n2)):
        if n > 1 and index <= 1:
            _add_difference(u, row, step * (1 - 2 * index), out)
        if n > 1 and index >= n - 2:
            _add_difference(u, row, step * (2 * (n - 1 - index) - 1), out)
    if n2 > 1:
        for k, other in ((0, 1), (1, 0), (n2 - 2, n2 - 1), (n2 - 1, n2 - 2)):
            out[k] += minus(u[row + other], u[row + k])


@no_type_check
@compiled
def _add_difference(u, row, step, out):
    here, there = np.uintp(row), np.uintp(row + step)
    for n in range(len(out)):
        k = np.uintp(n)
        out[k] += minus(u[there + k], u[here + k])


@no_type_check
@compiled
def _squared(u, row, i, j, shape):
    """Sum of the squared second differences of a row, those of two axes twice."""
    n2 = shape[3]
    above, below, left, right = around(row, i, j, shape)
    inner_i = np.float32(1 if above < row < below else 0)
    inner_j = np.float32(1 if left < row < right else 0)
    start, up, down, near = np.uintp(row), np.uintp(above), np.uintp(below), np.uintp(left)
    far, across = np.uintp(right), np.uintp(below + right - row)  # past the border equal to a neighbour: no difference
    total, mixed = np.float32(0), np.float32(0)
    for k in range(n2):
        at = np.uintp(k)
        here = u[start + at]
        to_i, to_j = minus(u[down + at], here), minus(u[far + at], here)
        along_i, along_j = to_i + minus(u[up + at], here), to_j + minus(u[near + at], here)
        both = minus(u[across + at], u[down + at]) - to_j
        total += inner_i * along_i * along_i + inner_j * along_j * along_j
        mixed += both * both
    for k in range(n2 - 1):
        at, after = np.uintp(k), np.uintp(k + 1)
        to_k = minus(u[start + after], u[start + at])
        both_i = minus(u[down + after], u[down + at]) - to_k
        both_j = minus(u[far + after], u[far + at]) - to_k
        mixed += both_i * both_i + both_j * both_j
    for k in range(1, n2 - 1):
        at = np.uintp(k)
        along_k = minus(u[start + at + np.uintp(1)], u[start + at]) + minus(u[start + at - np.uintp(1)], u[start + at])
        total += along_k * along_k
    return total + np.float32(2) * mixed
