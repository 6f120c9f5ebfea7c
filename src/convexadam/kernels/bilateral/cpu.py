"""Edge-preserving smoothing on the CPU: for each row of nodes, one row of the window after the other."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Field
from convexadam.kernels._cpu import compiled, constant, in_slabs, minus, views, written_to

_HALF, _ONE = np.float32(0.5), np.float32(1)
_LOWEST = np.float32(-126)
"""Of a power of two: less is no normal number."""

_TAYLOR = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7))


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma_nodes: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    result = written_to(out, like=field)
    # exponents of two
    factors = [np.float32(-0.5 / (s**2 * math.log(2))) for s in (sigma_nodes, sigma_guide, sigma_field or 1.0)]
    constants = constant(guide.shape[0]), constant(sigma_field is not None)
    in_slabs(_planes, field.shape[1], *views(field, guide, result), radius, *factors, *constants)
    return result if out is None or out is result else out.copy_(result)


@no_type_check
@compiled
def _planes(first, last, u, guide, out, radius, by_nodes, by_guide, by_field, channels, moving):
    _, n0, n1, n2 = u.shape
    field, known, result = u.reshape(-1), guide.reshape(-1), out.reshape(-1)
    sums = np.empty(4 * n2, np.float32)  # of weighted differences, and of weights
    for i in range(first, last):
        for j in range(n1):
            here = (i * n1 + j) * n2
            sums[: 3 * n2], sums[3 * n2 :] = 0, 1  # the node itself
            for di in range(max(-radius, -i), min(radius, n0 - 1 - i) + 1):
                for dj in range(max(-radius, -j), min(radius, n1 - 1 - j) + 1):
                    there = ((i + di) * n1 + j + dj) * n2
                    for dk in range(max(-radius, 1 - n2), min(radius, n2 - 1) + 1):
                        if di != 0 or dj != 0 or dk != 0:
                            nearby = np.float32(di * di + dj * dj + dk * dk) * by_nodes
                            ends = max(-dk, 0), n2 - max(dk, 0), n2, n0 * n1 * n2
                            _add(
                                field, known, here, there + dk, ends, nearby, by_guide, by_field, sums, channels, moving
                            )
            for a in range(3):
                row, total, weight = np.uintp(here + a * n0 * n1 * n2), np.uintp(a * n2), np.uintp(3 * n2)
                for n in range(n2):
                    k = np.uintp(n)
                    result[row + k] = field[row + k] + sums[total + k] / sums[weight + k]


@no_type_check
@compiled
def _add(u, guide, here, there, ends, nearby, by_guide, by_field, sums, channels, moving):
    """Add to the sums of a row of nodes what those from ``ends[0]`` to ``ends[1]`` take of one beside it."""
    x, y, second, third = np.uintp(here), np.uintp(there), np.uintp(ends[3]), np.uintp(2 * ends[3])
    row1, row2, row3 = np.uintp(ends[2]), np.uintp(2 * ends[2]), np.uintp(3 * ends[2])
    for n in range(ends[0], ends[1]):
        k = np.uintp(n)
        d0, d1 = minus(u[y + k], u[x + k]), minus(u[y + second + k], u[x + second + k])
        d2 = minus(u[y + third + k], u[x + third + k])
        apart = np.float32(0)
        for c in range(len(channels)):
            channel = np.uintp(c * ends[3])
            difference = guide[y + channel + k] - guide[x + channel + k]
            apart += difference * difference
        exponent = nearby + by_guide * apart
        if len(moving) > 0:
            exponent += by_field * (d0 * d0 + d1 * d1 + d2 * d2)
        share = _power_of_two(exponent)
        sums[k] += share * d0
        sums[row1 + k] += share * d1
        sums[row2 + k] += share * d2
        sums[row3 + k] += share


@no_type_check
@compiled
def _power_of_two(x):
    """Two to the power of a number of at most 0, to float32's precision."""
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
