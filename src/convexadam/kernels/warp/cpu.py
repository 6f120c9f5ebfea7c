"""Composition of displacements on the CPU."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Field
from convexadam.kernels._cpu import compiled, in_slabs, views, written_to


def add_step(displacement: Field, step: Field, *, longest: float, out: Field | None = None) -> Field:
    """See the package."""
    result = written_to(out, like=displacement)
    kernel = _near_rows if longest <= 1 else _far_rows
    in_slabs(kernel, displacement.shape[1], *views(displacement, step, result), np.float32(longest))
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
def _far_rows(first, last, u, step, out, longest):
    """Add steps of any length: eight nodes each, looked up."""
    _, n0, n1, n2 = u.shape
    zero, one = np.float32(0), np.float32(1)
    top0, top1, top2 = np.float32(n0 - 1), np.float32(n1 - 1), np.float32(n2 - 1)
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                v0, v1, v2 = step[0, i, j, k], step[1, i, j, k], step[2, i, j, k]
                scale = longest / max(np.sqrt(v0 * v0 + v1 * v1 + v2 * v2), longest)
                v0, v1, v2 = v0 * scale, v1 * scale, v2 * scale
                c0 = min(max(np.float32(i) + v0, zero), top0)
                c1 = min(max(np.float32(j) + v1, zero), top1)
                c2 = min(max(np.float32(k) + v2, zero), top2)
                a0, a1, a2 = min(int(c0), max(n0 - 2, 0)), min(int(c1), max(n1 - 2, 0)), min(int(c2), max(n2 - 2, 0))
                b0, b1, b2 = min(a0 + 1, n0 - 1), min(a1 + 1, n1 - 1), min(a2 + 1, n2 - 1)
                f0, f1, f2 = c0 - np.float32(a0), c1 - np.float32(a1), c2 - np.float32(a2)
                out[0, i, j, k], out[1, i, j, k], out[2, i, j, k] = v0, v1, v2
                for x0, w0 in ((a0, one - f0), (b0, f0)):
                    for x1, w1 in ((a1, one - f1), (b1, f1)):
                        for x2, w2 in ((a2, one - f2), (b2, f2)):
                            for a in range(3):
                                out[a, i, j, k] += w0 * w1 * w2 * u[a, x0, x1, x2]
