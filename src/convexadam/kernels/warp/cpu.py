"""Composition of displacements on the CPU."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Field
from convexadam.kernels._cpu import compiled, in_slabs, views, written_to

_BLOCK = 256
"""Nodes of a row that are moved at a time."""


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """See the package."""
    result = written_to(out, like=displacement)
    arrays, limit = views(displacement, step, result), np.float32(longest)
    if longest <= 1 and factors == (1, 1):
        in_slabs(_near_rows, displacement.shape[1], *arrays, limit)
    else:
        in_slabs(_far_rows, displacement.shape[1], *arrays, limit, *(np.float32(f) for f in factors))
    return result if out is None or out is result else out.copy_(result)


@no_type_check
@compiled
def _near_rows(first, last, u, step, out, longest):
    """Add steps of up to one node: 27 weighted neighbours, without any gather."""
    _, n0, n1, n2 = u.shape
    volume, values, steps, target = n0 * n1 * n2, u.reshape(-1), step.reshape(-1), out.reshape(-1)
    factor, weights = np.empty(_BLOCK, np.float32), np.empty(9 * _BLOCK, np.float32)
    for i in range(first, last):
        for j in range(n1):
            for begin in range(0, n2, _BLOCK):
                end, row = min(begin + _BLOCK, n2), (i * n1 + j) * n2
                node = np.uintp(row + begin)
                second, third = node + np.uintp(volume), node + np.uintp(2 * volume)
                for k in range(end - begin):
                    at = np.uintp(k)
                    squared = steps[node + at] ** 2 + steps[second + at] ** 2 + steps[third + at] ** 2
                    factor[k] = longest / np.sqrt(max(squared, longest * longest))
                for a, to in ((0, node), (1, second), (2, third)):
                    _weigh(steps, to, factor, weights, a * 3 * _BLOCK, target, end - begin)
                for o0 in range(3):
                    start = min(max(i + o0 - 1, 0), n0 - 1) * n1
                    rows = (start + max(j - 1, 0)) * n2, (start + j) * n2, (start + min(j + 1, n1 - 1)) * n2
                    for a, to in ((0, node), (1, second), (2, third)):
                        _add_plane(values, a * volume, rows, begin, end, n2, weights, o0 * _BLOCK, target, to)


@no_type_check
@compiled
def _weigh(steps, node, factor, weights, first, out, size):
    """Shorten the steps of a row along one axis, and find the shares of the neighbours -1, 0 and +1 that they read."""
    before = np.uintp(first)
    here, after = before + np.uintp(_BLOCK), before + np.uintp(2 * _BLOCK)
    for k in range(size):
        at = np.uintp(k)
        v = steps[node + at] * factor[at]
        out[node + at] = v
        weights[before + at], weights[here + at] = max(-v, np.float32(0)), np.float32(1) - abs(v)
        weights[after + at] = max(v, np.float32(0))


@no_type_check
@compiled
def _add_plane(values, first, rows, begin, end, size, weights, along_i, out, to):
    """Add what the nodes ``begin ... end - 1`` of a row read in one of three planes: three rows of it."""
    a, b, c = np.uintp(first + rows[0]), np.uintp(first + rows[1]), np.uintp(first + rows[2])
    near, left, block, one = np.uintp(3 * _BLOCK), np.uintp(6 * _BLOCK), np.uintp(_BLOCK), np.uintp(1)
    for k in range(max(begin, 1), min(end, size - 1)):
        at, n = np.uintp(k), np.uintp(k - begin)
        below, here, above = weights[left + n], weights[left + block + n], weights[left + block + block + n]
        total = weights[near + n] * (
            below * values[a + at - one] + here * values[a + at] + above * values[a + at + one]
        )
        middle = below * values[b + at - one] + here * values[b + at] + above * values[b + at + one]
        far = below * values[c + at - one] + here * values[c + at] + above * values[c + at + one]
        total += weights[near + block + n] * middle + weights[near + block + block + n] * far
        out[to + n] += weights[np.uintp(along_i) + n] * total
    for k in range(0, size, max(size - 1, 1)):  # both ends lack a neighbour
        if k >= begin and k < end:
            before, at, after = np.uintp(max(k - 1, 0)), np.uintp(k), np.uintp(min(k + 1, size - 1))
            n, total = np.uintp(k - begin), np.float32(0)
            below, here, above = weights[left + n], weights[left + block + n], weights[left + block + block + n]
            for row, share in ((a, near), (b, near + block), (c, near + block + block)):
                read = below * values[row + before] + here * values[row + at] + above * values[row + after]
                total += weights[share + n] * read
            out[to + n] += weights[np.uintp(along_i) + n] * total


@no_type_check
@compiled
def _far_rows(first, last, u, step, out, longest, own, other):
    """Add steps of any length: eight nodes each, looked up."""
    _, n0, n1, n2 = u.shape
    one, volume = np.float32(1), n0 * n1 * n2
    values, steps, target = u.reshape(-1), step.reshape(-1), out.reshape(-1)
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                node = (i * n1 + j) * n2 + k
                v0, v1, v2 = steps[node], steps[node + volume], steps[node + 2 * volume]
                scale = one / max(np.sqrt(v0 * v0 + v1 * v1 + v2 * v2) / longest, one)
                v0, v1, v2 = v0 * scale, v1 * scale, v2 * scale
                a0, s0, f0 = along(np.float32(i) + v0, n0)
                a1, s1, f1 = along(np.float32(j) + v1, n1)
                a2, s2, f2 = along(np.float32(k) + v2, n2)
                at, s0, s1 = (a0 * n1 + a1) * n2 + a2, s0 * n1 * n2, s1 * n2
                nodes = at, at + s2, at + s1, at + s1 + s2, at + s0, at + s0 + s2, at + s0 + s1, at + s0 + s1 + s2
                near, far = (one - f0) * (one - f1), (one - f0) * f1
                below, above = f0 * (one - f1), f0 * f1
                shares = (near * (one - f2), near * f2, far * (one - f2), far * f2)
                others = (below * (one - f2), below * f2, above * (one - f2), above * f2)
                for a, v in ((0, v0), (1, v1), (2, v2)):
                    target[node + a * volume] = own * v + other * _mean(values, a * volume, nodes, shares + others)


@no_type_check
@compiled
def along(position, size):
    """Return the neighbour below a position clamped to an axis, the step to the one above, and its share."""
    clamped = min(max(position, np.float32(0)), np.float32(size - 1))
    low = min(int(clamped), max(size - 2, 0))
    return low, min(size - 1, 1), clamped - np.float32(low)  # one node alone is its own neighbour


@no_type_check
@compiled
def _mean(values, first, nodes, shares):
    """Weighted sum of eight values; of one alone it is that value, exactly."""
    a, b, c, d, e, f, g, h = nodes
    total = shares[0] * values[np.uintp(first + a)] + shares[1] * values[np.uintp(first + b)]
    total += shares[2] * values[np.uintp(first + c)] + shares[3] * values[np.uintp(first + d)]
    total += shares[4] * values[np.uintp(first + e)] + shares[5] * values[np.uintp(first + f)]
    return total + shares[6] * values[np.uintp(first + g)] + shares[7] * values[np.uintp(first + h)]
