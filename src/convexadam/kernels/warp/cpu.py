"""Composition of displacements on the CPU."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Field
from convexadam.kernels._cpu import compiled, in_slabs, views, written_to


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
    zero, one = np.float32(0), np.float32(1)
    weights = np.empty((3, 3, n2), np.float32)  # axis, neighbour -1 0 +1
    both = np.empty(n2, np.float32)
    padded = np.empty(n2 + 2, np.float32)
    for i in range(first, last):
        for j in range(n1):
            s0, s1, s2 = step[0, i, j], step[1, i, j], step[2, i, j]
            for k in range(n2):
                squared = s0[k] * s0[k] + s1[k] * s1[k] + s2[k] * s2[k]
                both[k] = longest / np.sqrt(max(squared, longest * longest))
            for a in range(3):
                source, target = step[a, i, j], out[a, i, j]
                before, here, after = weights[a, 0], weights[a, 1], weights[a, 2]
                for k in range(n2):
                    v = source[k] * both[k]
                    target[k] = v
                    before[k], here[k], after[k] = max(-v, zero), one - abs(v), max(v, zero)
            left, middle, right = weights[2, 0], weights[2, 1], weights[2, 2]
            for o0 in range(-1, 2):
                for o1 in range(-1, 2):
                    w0, w1 = weights[0, o0 + 1], weights[1, o1 + 1]
                    for k in range(n2):
                        both[k] = w0[k] * w1[k]
                    for a in range(3):
                        row, target = u[a, min(max(i + o0, 0), n0 - 1), min(max(j + o1, 0), n1 - 1)], out[a, i, j]
                        padded[1 : n2 + 1] = row
                        padded[0], padded[n2 + 1] = row[0], row[n2 - 1]
                        for k in range(n2):
                            at = np.uintp(k)
                            target[k] += both[k] * (
                                left[k] * padded[at]
                                + middle[k] * padded[at + np.uintp(1)]
                                + right[k] * padded[at + np.uintp(2)]
                            )


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
