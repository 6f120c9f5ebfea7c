"""Penalty of volume changes on the CPU: each row of points adds to the gradient of the rows in its derivatives."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, get_accumulator, run_in_slabs, to_numpy
from convexadam.kernels.jacobian.cpu import row_slopes
from convexadam.kernels.volume_change.reference import MIN_DETERMINANT

_MIN_DETERMINANT = np.float32(MIN_DETERMINANT)
_NO_MASK = np.empty((0, 0, 0), np.float32)
_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_ROOT_HALF = np.float32(math.sqrt(0.5)).view(np.int32)
_LN2 = np.float32(math.log(2))
_SERIES = tuple(np.float32(2 / n) for n in (1, 3, 5, 7, 9))


def volume_change(
    field: Field, *, soft_mask: Volume | None = None, weight: float = 1.0, add_to: Field | None = None
) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    gradient = get_accumulator(add_to, like=field)
    mask = _NO_MASK if soft_mask is None else to_numpy(soft_mask)[0]
    scale = weight / field[0].numel()
    parts = run_in_slabs(_add_gradient, field.shape[1], *to_numpy(field), mask, *to_numpy(gradient), np.float32(scale))
    value = torch.tensor(scale * sum(parts), dtype=torch.float32, device="cpu")
    return value, gradient if add_to is None or add_to is gradient else add_to.add_(gradient)


@no_type_check
@compile_kernel
def _add_gradient(first, last, u, mask, out, scale):
    """Add the gradient of the planes ``first ... last - 1``, and return the sum of their penalties.

    The penalties of the two adjacent planes contribute to the gradient.
    """
    _, n0, n1, n2 = u.shape
    slopes, stress = np.empty((9, n2), np.float32), np.empty((9, n2), np.float32)
    weights = np.ones(n2, np.float32)
    total = 0.0
    for i in range(max(first - 1, 0), min(last + 1, n0)):
        inside = first <= i < last
        i0, i1 = max(i - 1, 0), min(i + 1, n0 - 1)
        scale0 = _HALF if i1 - i0 == 2 else _ONE
        for j in range(n1):
            if mask.size > 0:
                weights = mask[i, j]
                if not _has_positive(weights):
                    continue
            row_slopes(u, i, j, slopes)
            costs = _differentiate(slopes, weights, scale, stress)
            j0, j1 = max(j - 1, 0), min(j + 1, n1 - 1)
            scale1 = _HALF if j1 - j0 == 2 else _ONE
            for a in range(3):
                along_i, along_j, along_k = stress[3 * a], stress[3 * a + 1], stress[3 * a + 2]
                if first <= i0 < last:
                    _add_scaled(out[a, i0, j], -scale0, along_i)
                if first <= i1 < last:
                    _add_scaled(out[a, i1, j], scale0, along_i)
                if inside:
                    _add_scaled(out[a, i, j0], -scale1, along_j)
                    _add_scaled(out[a, i, j1], scale1, along_j)
                    _add_transposed_difference(out[a, i, j], along_k)
            if inside:
                total += costs
    return total


@no_type_check
@compile_kernel
def _has_positive(values):
    largest = np.float32(0)
    for k in range(len(values)):
        largest = max(largest, values[k])
    return largest > np.float32(0)


@no_type_check
@compile_kernel
def _differentiate(slopes, weights, scale, stress):
    """Differentiate the penalty of each point of a row by its derivatives, times ``scale``; return their sum."""
    total = np.float32(0)
    for k in range(len(weights)):
        a, b, c = _ONE + slopes[0, k], slopes[1, k], slopes[2, k]
        d, e, f = slopes[3, k], _ONE + slopes[4, k], slopes[5, k]
        g, h, x = slopes[6, k], slopes[7, k], _ONE + slopes[8, k]
        first, second, third = e * x - f * h, f * g - d * x, d * h - e * g
        determinant = a * first + b * second + c * third
        clamped = max(determinant, _MIN_DETERMINANT)
        log = _log(clamped)
        slope = _TWO * log / clamped
        total += weights[k] * (log * log + slope * (determinant - clamped))
        factor = scale * weights[k] * slope
        stress[0, k], stress[1, k], stress[2, k] = factor * first, factor * second, factor * third
        stress[3, k], stress[4, k] = factor * (c * h - b * x), factor * (a * x - c * g)
        stress[5, k], stress[6, k] = factor * (b * g - a * h), factor * (b * f - c * e)
        stress[7, k], stress[8, k] = factor * (c * d - a * f), factor * (a * e - b * d)
    return total


@no_type_check
@compile_kernel
def _log(x):
    """Compute the logarithm of a normal positive number to float32 precision: exponent plus a series around 1."""
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
@compile_kernel
def _add_scaled(target, factor, values):
    for k in range(len(values)):
        target[k] += factor * values[k]


@no_type_check
@compile_kernel
def _add_transposed_difference(target, values):
    """Apply the transpose of the differences along a row and add the result; the outer ones are not halved."""
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
