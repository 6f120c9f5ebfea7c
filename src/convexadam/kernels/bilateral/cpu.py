"""Edge-preserving smoothing on the CPU, vectorised over a row of points, one offset of the window at a time."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Field
from convexadam.kernels._cpu import compile_kernel, get_output, make_constant, run_in_slabs, subtract, to_numpy

_HALF, _ONE = np.float32(0.5), np.float32(1)
_LOWEST = np.float32(-126)
"""Smallest exponent of a normal float32."""

_TAYLOR = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7))


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    result = get_output(out, like=field)
    # the exponents are converted to base 2
    factors = [np.float32(-0.5 / (s**2 * math.log(2))) for s in (sigma, sigma_guide, sigma_field or 1.0)]
    constants = make_constant(guide.shape[0]), make_constant(sigma_field is not None)
    run_in_slabs(_filter_planes, field.shape[1], *to_numpy(field, guide, result), radius, *factors, *constants)
    return result if out is None or out is result else out.copy_(result)


@no_type_check
@compile_kernel
def _filter_planes(first, last, u, guide, out, radius, by_distance, by_guide, by_field, channels, by_displacement):
    _, n0, n1, n2 = u.shape
    field, guides, result = u.reshape(-1), guide.reshape(-1), out.reshape(-1)
    sums = np.empty(4 * n2, np.float32)  # of weighted differences (three components) and of weights
    for i in range(first, last):
        for j in range(n1):
            row = (i * n1 + j) * n2
            sums[: 3 * n2], sums[3 * n2 :] = 0, 1  # the point itself has weight 1 and difference 0
            for di in range(max(-radius, -i), min(radius, n0 - 1 - i) + 1):
                for dj in range(max(-radius, -j), min(radius, n1 - 1 - j) + 1):
                    neighbour = ((i + di) * n1 + j + dj) * n2
                    for dk in range(max(-radius, 1 - n2), min(radius, n2 - 1) + 1):
                        if di != 0 or dj != 0 or dk != 0:
                            exponent_distance = np.float32(di * di + dj * dj + dk * dk) * by_distance
                            ends = max(-dk, 0), n2 - max(dk, 0), n2, n0 * n1 * n2
                            _add_neighbours(
                                field,
                                guides,
                                row,
                                neighbour + dk,
                                ends,
                                exponent_distance,
                                by_guide,
                                by_field,
                                sums,
                                channels,
                                by_displacement,
                            )
            for a in range(3):
                start, total, weight = np.uintp(row + a * n0 * n1 * n2), np.uintp(a * n2), np.uintp(3 * n2)
                for n in range(n2):
                    k = np.uintp(n)
                    result[start + k] = field[start + k] + sums[total + k] / sums[weight + k]


@no_type_check
@compile_kernel
def _add_neighbours(
    u, guide, row, neighbour, ends, exponent_distance, by_guide, by_field, sums, channels, by_displacement
):
    """Add the weighted differences of points ``ends[0] ... ends[1] - 1`` of a row to their neighbours to the sums."""
    x, y, second, third = np.uintp(row), np.uintp(neighbour), np.uintp(ends[3]), np.uintp(2 * ends[3])
    row1, row2, row3 = np.uintp(ends[2]), np.uintp(2 * ends[2]), np.uintp(3 * ends[2])
    for n in range(ends[0], ends[1]):
        k = np.uintp(n)
        d0, d1 = subtract(u[y + k], u[x + k]), subtract(u[y + second + k], u[x + second + k])
        d2 = subtract(u[y + third + k], u[x + third + k])
        squared = np.float32(0)
        for c in range(len(channels)):
            channel = np.uintp(c * ends[3])
            difference = guide[y + channel + k] - guide[x + channel + k]
            squared += difference * difference
        exponent = exponent_distance + by_guide * squared
        if len(by_displacement) > 0:
            exponent += by_field * (d0 * d0 + d1 * d1 + d2 * d2)
        share = _exp2(exponent)
        sums[k] += share * d0
        sums[row1 + k] += share * d1
        sums[row2 + k] += share * d2
        sums[row3 + k] += share


@no_type_check
@compile_kernel
def _exp2(x):
    """Compute two to the power of a number of at most 0, to the precision of float32."""
    x = max(x, _LOWEST)
    whole = np.int32(x - _HALF)
    x -= np.float32(whole)
    total = _TAYLOR[6]
    total = total * x + _TAYLOR[5]
    total = total * x + _TAYLOR[4]
    total = total * x + _TAYLOR[3]
    total = total * x + _TAYLOR[2]
    total = total * x + _TAYLOR[1]
    power = np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
    return (total * x + _TAYLOR[0]) * power
