"""Diffusion energy on the CPU, in one pass over memory, and the Laplacian of a row for other kernels."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, get_accumulator, make_constant, run_in_slabs, subtract, to_numpy


def diffusion(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total, gradient = _run(field, weight, add_to, with_value=1)
    value = weight * total / (3 * field[0].numel())
    return torch.tensor(value, dtype=torch.float32, device="cpu"), gradient


def diffusion_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
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

    Returns the sum of squared differences if ``with_value``.
    """
    _, n0, n1, n2 = u.shape
    field, target = u.reshape(-1), out.reshape(-1)
    total = 0.0
    for plane in range(first, last):
        i = plane % n0
        for j in range(n1):
            start = (plane * n1 + j) * n2
            neighbours = neighbour_rows(start, i, j, u.shape)
            add_negative_laplacian(field, start, neighbours, n2, target, start, factor)
            if len(with_value) > 0:
                total += _sum_squares(field, start, neighbours, n2)
    return total


@no_type_check
@compile_kernel
def _sum_squares(u, row, neighbours, size):
    """Sum the squared forward differences of a row along all axes."""
    start, below, far = np.uintp(row), np.uintp(neighbours[1]), np.uintp(neighbours[3])
    total = np.float32(0)
    for k in range(size):
        at = np.uintp(k)
        along_i, along_j = u[below + at] - u[start + at], u[far + at] - u[start + at]
        total += along_i * along_i + along_j * along_j
    for k in range(size - 1):
        at = np.uintp(k)
        along_k = u[start + at + np.uintp(1)] - u[start + at]
        total += along_k * along_k
    return total


@no_type_check
@compile_kernel
def neighbour_rows(start, i, j, shape):
    """Return the offsets of the previous and next rows of ``(i, j)`` along i and j; of the row itself at the border."""
    _, n0, n1, n2 = shape
    above, below = start - n1 * n2 if i > 0 else start, start + n1 * n2 if i < n0 - 1 else start
    return above, below, start - n2 if j > 0 else start, start + n2 if j < n1 - 1 else start


@no_type_check
@compile_kernel
def add_negative_laplacian(u, row, neighbours, size, out, target, factor):
    """Add ``factor`` times the negative Laplacian of a row, with zero flux through the border.

    ``row`` and ``neighbours`` are the offsets of the row and of its four neighbours in ``u``, and ``target`` is the
    offset of the row in ``out``.
    """
    start, above, below = np.uintp(row), np.uintp(neighbours[0]), np.uintp(neighbours[1])
    near, far, end = np.uintp(neighbours[2]), np.uintp(neighbours[3]), np.uintp(target)
    for k in range(1, size - 1):
        at = np.uintp(k)
        value = u[start + at]
        across = subtract(value, u[above + at]) + subtract(value, u[below + at])
        across += subtract(value, u[near + at]) + subtract(value, u[far + at])
        along_row = subtract(value, u[start + at - np.uintp(1)]) + subtract(value, u[start + at + np.uintp(1)])
        out[end + at] += factor * (across + along_row)
    for k in (0, size - 1):
        at, before, after = np.uintp(k), np.uintp(max(k - 1, 0)), np.uintp(min(k + 1, size - 1))
        value = u[start + at]
        across = subtract(value, u[above + at]) + subtract(value, u[below + at])
        across += subtract(value, u[near + at]) + subtract(value, u[far + at])
        along_row = subtract(value, u[start + before]) + subtract(value, u[start + after])
        out[end + at] += factor * (across + along_row)
        if size == 1:
            break
