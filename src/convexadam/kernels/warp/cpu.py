"""Composition of displacement fields on the CPU."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from convexadam._typing import Field
from convexadam.kernels._cpu import compile_kernel, get_output, run_in_slabs, to_numpy

_BLOCK = 256
"""Points of a row per iteration, whose weights remain in the cache."""


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """See the package."""
    result = get_output(out, like=displacement)
    arrays, limit = to_numpy(displacement, step, result), np.float32(longest)
    if longest <= 1 and factors == (1, 1):
        run_in_slabs(_add_short_steps, displacement.shape[1], *arrays, limit)
    else:
        run_in_slabs(_add_long_steps, displacement.shape[1], *arrays, limit, *(np.float32(f) for f in factors))
    return result if out is None or out is result else out.copy_(result)


def add_opposite_steps(forward: Field, backward: Field, *, factors: tuple[float, float]) -> tuple[Field, Field]:
    """See the package."""
    return (
        add_step(backward, forward, longest=math.inf, factors=factors),
        add_step(forward, backward, longest=math.inf, factors=factors),
    )


@no_type_check
@compile_kernel
def _add_short_steps(first, last, u, step, out, longest):
    """Compose with steps of at most one grid unit: a weighted sum of 27 neighbours, without a gather."""
    _, n0, n1, n2 = u.shape
    volume, values, steps, target = n0 * n1 * n2, u.reshape(-1), step.reshape(-1), out.reshape(-1)
    factor, weights = np.empty(_BLOCK, np.float32), np.empty(9 * _BLOCK, np.float32)
    for i in range(first, last):
        for j in range(n1):
            for begin in range(0, n2, _BLOCK):
                end, row = min(begin + _BLOCK, n2), (i * n1 + j) * n2
                point = np.uintp(row + begin)
                second, third = point + np.uintp(volume), point + np.uintp(2 * volume)
                for k in range(end - begin):
                    at = np.uintp(k)
                    squared = steps[point + at] ** 2 + steps[second + at] ** 2 + steps[third + at] ** 2
                    factor[k] = longest / np.sqrt(max(squared, longest * longest))
                for a, to in ((0, point), (1, second), (2, third)):
                    _compute_weights(steps, to, factor, weights, a * 3 * _BLOCK, target, end - begin)
                for o0 in range(3):
                    start = min(max(i + o0 - 1, 0), n0 - 1) * n1
                    rows = (start + max(j - 1, 0)) * n2, (start + j) * n2, (start + min(j + 1, n1 - 1)) * n2
                    for a, to in ((0, point), (1, second), (2, third)):
                        _add_plane(values, a * volume, rows, begin, end, n2, weights, o0 * _BLOCK, target, to)


@no_type_check
@compile_kernel
def _compute_weights(steps, point, factor, weights, first, out, size):
    """Clip the steps of a row along one axis, and compute the weights of the neighbours -1, 0 and +1."""
    before = np.uintp(first)
    middle, after = before + np.uintp(_BLOCK), before + np.uintp(2 * _BLOCK)
    for k in range(size):
        at = np.uintp(k)
        v = steps[point + at] * factor[at]
        out[point + at] = v
        weights[before + at], weights[middle + at] = max(-v, np.float32(0)), np.float32(1) - abs(v)
        weights[after + at] = max(v, np.float32(0))


@no_type_check
@compile_kernel
def _add_plane(values, first, rows, begin, end, size, weights, along_i, out, to):
    """Add the weighted neighbours of the points ``begin ... end - 1`` of a row in one of three planes."""
    a, b, c = np.uintp(first + rows[0]), np.uintp(first + rows[1]), np.uintp(first + rows[2])
    near, left, block, one = np.uintp(3 * _BLOCK), np.uintp(6 * _BLOCK), np.uintp(_BLOCK), np.uintp(1)
    for k in range(max(begin, 1), min(end, size - 1)):
        at, n = np.uintp(k), np.uintp(k - begin)
        below, at_point, above = weights[left + n], weights[left + block + n], weights[left + block + block + n]
        total = weights[near + n] * (
            below * values[a + at - one] + at_point * values[a + at] + above * values[a + at + one]
        )
        middle = below * values[b + at - one] + at_point * values[b + at] + above * values[b + at + one]
        far = below * values[c + at - one] + at_point * values[c + at] + above * values[c + at + one]
        total += weights[near + block + n] * middle + weights[near + block + block + n] * far
        out[to + n] += weights[np.uintp(along_i) + n] * total
    for k in range(0, size, max(size - 1, 1)):  # both ends lack a neighbour
        if k >= begin and k < end:
            before, at, after = np.uintp(max(k - 1, 0)), np.uintp(k), np.uintp(min(k + 1, size - 1))
            n, total = np.uintp(k - begin), np.float32(0)
            below, at_point, above = weights[left + n], weights[left + block + n], weights[left + block + block + n]
            for row, share in ((a, near), (b, near + block), (c, near + block + block)):
                read = below * values[row + before] + at_point * values[row + at] + above * values[row + after]
                total += weights[share + n] * read
            out[to + n] += weights[np.uintp(along_i) + n] * total


@no_type_check
@compile_kernel
def _add_long_steps(first, last, u, step, out, longest, step_factor, displacement_factor):
    """Compose with steps of any length: a gather of eight points each."""
    _, n0, n1, n2 = u.shape
    one, volume = np.float32(1), n0 * n1 * n2
    values, steps, target = u.reshape(-1), step.reshape(-1), out.reshape(-1)
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                point = (i * n1 + j) * n2 + k
                v0, v1, v2 = steps[point], steps[point + volume], steps[point + 2 * volume]
                scale = one / max(np.sqrt(v0 * v0 + v1 * v1 + v2 * v2) / longest, one)
                v0, v1, v2 = v0 * scale, v1 * scale, v2 * scale
                a0, s0, f0 = find_neighbours(np.float32(i) + v0, n0)
                a1, s1, f1 = find_neighbours(np.float32(j) + v1, n1)
                a2, s2, f2 = find_neighbours(np.float32(k) + v2, n2)
                at, s0, s1 = (a0 * n1 + a1) * n2 + a2, s0 * n1 * n2, s1 * n2
                points = at, at + s2, at + s1, at + s1 + s2, at + s0, at + s0 + s2, at + s0 + s1, at + s0 + s1 + s2
                near, far = (one - f0) * (one - f1), (one - f0) * f1
                below, above = f0 * (one - f1), f0 * f1
                shares = (near * (one - f2), near * f2, far * (one - f2), far * f2)
                upper_shares = (below * (one - f2), below * f2, above * (one - f2), above * f2)
                for a, v in ((0, v0), (1, v1), (2, v2)):
                    target[point + a * volume] = step_factor * v + displacement_factor * _weighted_sum(
                        values, a * volume, points, shares + upper_shares
                    )


@no_type_check
@compile_kernel
def find_neighbours(position, size):
    """Clamp a position to an axis; return its lower neighbour, the step to the upper one, and the weight of that."""
    clamped = min(max(position, np.float32(0)), np.float32(size - 1))
    low = min(int(clamped), max(size - 2, 0))
    return low, min(size - 1, 1), clamped - np.float32(low)  # along an axis of one point, it is its own neighbour


@no_type_check
@compile_kernel
def _weighted_sum(values, first, points, shares):
    """Compute the weighted sum of eight values; exact if one weight is 1."""
    a, b, c, d, e, f, g, h = points
    total = shares[0] * values[np.uintp(first + a)] + shares[1] * values[np.uintp(first + b)]
    total += shares[2] * values[np.uintp(first + c)] + shares[3] * values[np.uintp(first + d)]
    total += shares[4] * values[np.uintp(first + e)] + shares[5] * values[np.uintp(first + f)]
    return total + shares[6] * values[np.uintp(first + g)] + shares[7] * values[np.uintp(first + h)]
