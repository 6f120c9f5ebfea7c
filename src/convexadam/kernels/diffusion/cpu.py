"""Diffusion energy on the CPU, in one pass; and differences to neighbours, of which other kernels are made."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import addend, compiled, constant, in_slabs, minus, views


def diffusion(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total, gradient = _run(field, weight, onto, valued=1)
    value = weight * total / (3 * field[0].numel())
    return torch.tensor(value, dtype=torch.float32, device="cpu"), gradient


def diffusion_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
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

    Returns the sum of squared differences if ``valued``.
    """
    _, n0, n1, n2 = u.shape
    field, target = u.reshape(-1), out.reshape(-1)
    total = 0.0
    for plane in range(first, last):
        i = plane % n0
        for j in range(n1):
            start = (plane * n1 + j) * n2
            beside = around(start, i, j, u.shape)
            add_excess(field, start, beside, n2, target, start, factor)
            if len(valued) > 0:
                total += _squared(field, start, beside, n2)
    return total


@no_type_check
@compiled
def _squared(u, row, beside, size):
    """Sum of the squared differences of a row's nodes to the next ones along each axis."""
    start, below, far = np.uintp(row), np.uintp(beside[1]), np.uintp(beside[3])
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
@compiled
def around(start, i, j, shape):
    """Where the rows before and after a row ``(i, j)`` start, along i, then along j; itself where there is none."""
    _, n0, n1, n2 = shape
    above, below = start - n1 * n2 if i > 0 else start, start + n1 * n2 if i < n0 - 1 else start
    return above, below, start - n2 if j > 0 else start, start + n2 if j < n1 - 1 else start


@no_type_check
@compiled
def add_excess(u, row, beside, size, out, target, factor):
    """Add ``factor`` times what the nodes of a row have over their six neighbours; a missing one counts as equal.

    ``row`` and ``beside``, the four rows around it, are where they start in ``u``, and ``target`` where it does in
    ``out``. With a factor of 1 this is the negative Laplacian without flux through the border.
    """
    start, above, below = np.uintp(row), np.uintp(beside[0]), np.uintp(beside[1])
    near, far, end = np.uintp(beside[2]), np.uintp(beside[3]), np.uintp(target)
    for k in range(1, size - 1):
        at = np.uintp(k)
        here = u[start + at]
        across = minus(here, u[above + at]) + minus(here, u[below + at])
        across += minus(here, u[near + at]) + minus(here, u[far + at])
        along_row = minus(here, u[start + at - np.uintp(1)]) + minus(here, u[start + at + np.uintp(1)])
        out[end + at] += factor * (across + along_row)
    for k in (0, size - 1):
        at, before, after = np.uintp(k), np.uintp(max(k - 1, 0)), np.uintp(min(k + 1, size - 1))
        here = u[start + at]
        across = minus(here, u[above + at]) + minus(here, u[below + at])
        across += minus(here, u[near + at]) + minus(here, u[far + at])
        along_row = minus(here, u[start + before]) + minus(here, u[start + after])
        out[end + at] += factor * (across + along_row)
        if size == 1:
            break
