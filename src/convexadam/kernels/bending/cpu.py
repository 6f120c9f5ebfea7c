"""Bending energy on the CPU, in one pass over memory.

The gradient is the biharmonic operator, computed as the Laplacian of the Laplacian, both with zero flux through the
border. At the border that product contains squared first differences, which the energy does not; they are subtracted.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, get_accumulator, make_constant, run_in_slabs, subtract, to_numpy
from convexadam.kernels.diffusion.cpu import add_negative_laplacian, neighbour_rows


def bending(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total, gradient = _run(field, weight, add_to, with_value=1)
    value = weight * total / (3 * field[0].numel())
    return torch.tensor(value, dtype=torch.float32, device="cpu"), gradient


def bending_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, add_to, with_value=0)[1]


def _run(field: Field, weight: float, add_to: Field | None, *, with_value: int) -> tuple[float, Field]:
    gradient = get_accumulator(add_to, like=field)
    factor = np.float32(2 * weight / (3 * field[0].numel()))
    parts = run_in_slabs(
        _add_gradient, 3 * field.shape[1], *to_numpy(field, gradient), factor, make_constant(with_value)
    )
    return sum(parts), gradient if add_to is None or add_to is gradient else add_to.add_(gradient)


@no_type_check
@compile_kernel
def _add_gradient(first, last, u, out, factor, with_value):
    """Add the gradient of the planes ``first ... last - 1``, counted over all components.

    Returns the sum of squared second differences if ``with_value``.
    """
    _, n0, n1, n2 = u.shape
    field, target, size = u.reshape(-1), out.reshape(-1), n1 * n2
    ring = np.empty(3 * size, np.float32)  # negative Laplacians of a plane and of its two neighbours
    correction, one = np.empty(n2, np.float32), np.float32(1)
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
                neighbours = neighbour_rows(start, ready % n0, j, u.shape)
                add_negative_laplacian(field, start, neighbours, n2, ring, at + j * n2, one)
        middle = plane % 3 * size
        above = (plane - 1) % 3 * size if i > 0 else middle
        below = (plane + 1) % 3 * size if i < n0 - 1 else middle
        for j in range(n1):
            row, start = j * n2, plane * size + j * n2
            left, right = row - (n2 if j > 0 else 0), row + (n2 if j < n1 - 1 else 0)
            neighbours = above + row, below + row, middle + left, middle + right
            correction[:] = 0
            add_negative_laplacian(ring, middle + row, neighbours, n2, correction, 0, one)
            _correct_border(field, start, i, j, u.shape, correction)
            for k in range(n2):
                target[np.uintp(start + k)] += factor * correction[np.uintp(k)]
            if len(with_value) > 0:
                total += _sum_squares(field, start, i, j, u.shape)
    return total


@no_type_check
@compile_kernel
def _correct_border(u, row, i, j, shape, out):
    """Subtract the first differences at the ends of the axes from the biharmonic operator in a row."""
    _, n0, n1, n2 = shape
    for index, n, step in ((i, n0, n1 * n2), (j, n1, n2)):
        if n > 1 and index <= 1:
            _add_difference(u, row, step * (1 - 2 * index), out)
        if n > 1 and index >= n - 2:
            _add_difference(u, row, step * (2 * (n - 1 - index) - 1), out)
    if n2 > 1:
        for k, other in ((0, 1), (1, 0), (n2 - 2, n2 - 1), (n2 - 1, n2 - 2)):
            out[k] += subtract(u[row + other], u[row + k])


@no_type_check
@compile_kernel
def _add_difference(u, row, step, out):
    value, neighbour = np.uintp(row), np.uintp(row + step)
    for n in range(len(out)):
        k = np.uintp(n)
        out[k] += subtract(u[neighbour + k], u[value + k])


@no_type_check
@compile_kernel
def _sum_squares(u, row, i, j, shape):
    """Sum the squared second differences of a row; mixed ones enter twice."""
    n2 = shape[3]
    above, below, left, right = neighbour_rows(row, i, j, shape)
    inner_i = np.float32(1 if above < row < below else 0)
    inner_j = np.float32(1 if left < row < right else 0)
    start, up, down, near = np.uintp(row), np.uintp(above), np.uintp(below), np.uintp(left)
    # beyond the border a neighbour, which gives a difference of 0
    far, across = (
        np.uintp(right),
        np.uintp(below + right - row),
    )
    total, mixed = np.float32(0), np.float32(0)
    for k in range(n2):
        at = np.uintp(k)
        value = u[start + at]
        to_i, to_j = subtract(u[down + at], value), subtract(u[far + at], value)
        along_i, along_j = to_i + subtract(u[up + at], value), to_j + subtract(u[near + at], value)
        both = subtract(u[across + at], u[down + at]) - to_j
        total += inner_i * along_i * along_i + inner_j * along_j * along_j
        mixed += both * both
    for k in range(n2 - 1):
        at, after = np.uintp(k), np.uintp(k + 1)
        to_k = subtract(u[start + after], u[start + at])
        both_i = subtract(u[down + after], u[down + at]) - to_k
        both_j = subtract(u[far + after], u[far + at]) - to_k
        mixed += both_i * both_i + both_j * both_j
    for k in range(1, n2 - 1):
        at = np.uintp(k)
        along_k = subtract(u[start + at + np.uintp(1)], u[start + at]) + subtract(
            u[start + at - np.uintp(1)], u[start + at]
        )
        total += along_k * along_k
    return total + np.float32(2) * mixed
