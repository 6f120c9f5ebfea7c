"""Cost of volume changes on the CPU: each row of nodes adds to the gradient of the rows that its slopes read."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._cpu import addend, compiled, in_slabs, views
from convexadam.kernels.jacobian.cpu import row_slopes
from convexadam.kernels.volume_change.reference import LEAST

_LEAST = np.float32(LEAST)
_NONE = np.empty((0, 0, 0), np.float32)
_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_ROOT_HALF = np.float32(math.sqrt(0.5)).view(np.int32)
_LN2 = np.float32(math.log(2))
_SERIES = tuple(np.float32(2 / n) for n in (1, 3, 5, 7, 9))


def volume_change(
    field: Field, *, soft_mask: Volume | None = None, weight: float = 1.0, onto: Field | None = None
) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    gradient = addend(onto, like=field)
    share = _NONE if soft_mask is None else views(soft_mask)[0]
    scale = weight / field[0].numel()
    parts = in_slabs(_planes, field.shape[1], *views(field), share, *views(gradient), np.float32(scale))
    value = torch.tensor(scale * sum(parts), dtype=torch.float32, device="cpu")
    return value, gradient if onto is None or onto is gradient else onto.add_(gradient)


@no_type_check
@compiled
def _planes(first, last, u, share, out, scale):
    """Add the gradient of the planes ``first ... last - 1``, and return the sum of their costs.

    The planes before and after them have a part in it as well.
    """
    _, n0, n1, n2 = u.shape
    slopes, stress = np.empty((9, n2), np.float32), np.empty((9, n2), np.float32)
    shares = np.ones(n2, np.float32)
    total = 0.0
    for i in range(max(first - 1, 0), min(last + 1, n0)):
        own = first <= i < last
        i0, i1 = max(i - 1, 0), min(i + 1, n0 - 1)
        scale0 = _HALF if i1 - i0 == 2 else _ONE
        for j in range(n1):
            if share.size > 0:
                shares = share[i, j]
                if not _any(shares):
                    continue
            row_slopes(u, i, j, slopes)
            costs = _stressed(slopes, shares, scale, stress)
            j0, j1 = max(j - 1, 0), min(j + 1, n1 - 1)
            scale1 = _HALF if j1 - j0 == 2 else _ONE
            for a in range(3):
                along_i, along_j, along_k = stress[3 * a], stress[3 * a + 1], stress[3 * a + 2]
                if first <= i0 < last:
                    _add(out[a, i0, j], -scale0, along_i)
                if first <= i1 < last:
                    _add(out[a, i1, j], scale0, along_i)
                if own:
                    _add(out[a, i, j0], -scale1, along_j)
                    _add(out[a, i, j1], scale1, along_j)
                    _add_along_row(out[a, i, j], along_k)
            if own:
                total += costs
    return total


@no_type_check
@compiled
def _any(values):
    largest = np.float32(0)
    for k in range(len(values)):
        largest = max(largest, values[k])
    return largest > np.float32(0)


@no_type_check
@compiled
def _stressed(slopes, shares, scale, stress):
    """Differentiate the cost of each node of a row by its slopes, times ``scale``; return the sum of the costs."""
    total = np.float32(0)
    for k in range(len(shares)):
        a, b, c = _ONE + slopes[0, k], slopes[1, k], slopes[2, k]
        d, e, f = slopes[3, k], _ONE + slopes[4, k], slopes[5, k]
        g, h, x = slopes[6, k], slopes[7, k], _ONE + slopes[8, k]
        first, second, third = e * x - f * h, f * g - d * x, d * h - e * g
        determinant = a * first + b * second + c * third
        safe = max(determinant, _LEAST)
        log = _logarithm(safe)
        slope = _TWO * log / safe
        total += shares[k] * (log * log + slope * (determinant - safe))
        factor = scale * shares[k] * slope
        stress[0, k], stress[1, k], stress[2, k] = factor * first, factor * second, factor * third
        stress[3, k], stress[4, k] = factor * (c * h - b * x), factor * (a * x - c * g)
        stress[5, k], stress[6, k] = factor * (b * g - a * h), factor * (b * f - c * e)
        stress[7, k], stress[8, k] = factor * (c * d - a * f), factor * (a * e - b * d)
    return total


@no_type_check
@compiled
def _logarithm(x):
    """Logarithm of a normal positive number, to float32's precision: a power of two, and a series around 1."""
    bits = np.float32(x).view(np.int32)
    power = (bits - _ROOT_HALF) >> np.int32(23)
    mantissa = np.int32(bits - (power << np.int32(23))).view(np.float32)  # between the roots of 1/2 and 2
    y = (mantissa - _ONE) / (mantissa + _ONE)
    square = y * y
    total = _SERIES[4]
    total = total * square + _SERIES[3]
    total = total * square + _SERIES[2]
    total = total * square + _SERIES[1]
    return np.float32(power) * _LN2 + (total * square + _SERIES[0]) * y


@no_type_check
@compiled
def _add(target, factor, values):
    for k in range(len(values)):
        target[k] += factor * values[k]


@no_type_check
@compiled
def _add_along_row(target, values):
    """Add what the transposed differences along a row make of values; the outer ones are not halved."""
    n = len(values)
    if n == 1:
        return
    inner, before, after = target[1 : n - 1], values[: n - 2], values[2:]
    for k in range(n - 2):
        inner[k] += _HALF * (before[k] - after[k])
    for end, next_one, sign in ((0, 1, -_ONE), (n - 1, n - 2, _ONE)):
        target[end] += sign * (values[end] + (_ONE if n == 2 else _HALF) * values[next_one])
        if n > 2:
            target[next_one] -= sign * _HALF * values[end]
