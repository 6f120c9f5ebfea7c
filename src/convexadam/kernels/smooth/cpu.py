"""Separable filters on the CPU: all three passes of a plane are done while it is in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Shaped, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, get_output, run_in_slabs, to_numpy

_NO_FACTOR = np.empty((0, 0, 0), np.float32)


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
    condition: Shaped[Tensor, ""] | None = None,
    keep: bool = False,
    spare: bool = False,
) -> Channels:
    """See the package."""
    if out is not None and condition is not None and not condition:
        return out
    result = get_output(out, like=field)
    one_side = tuple(np.float32(t) for t in taps[len(taps) // 2 :])
    source, target = to_numpy(field, result)
    factors = [_NO_FACTOR if f is None else to_numpy(f)[0] for f in (before, after)]
    run_in_slabs(_smooth_planes, field.shape[0] * field.shape[1], source, *factors, target, one_side, keep)
    return result if out is None or out is result else out.copy_(result)


@no_type_check
@compile_kernel
def _smooth_planes(first, last, field, before, after, out, taps, keep):
    """Smooth the planes ``first ... last - 1``, counted over all channels; ``taps`` from the central one outwards."""
    _, n0, n1, n2 = field.shape
    radius = len(taps) - 1
    plane = n1 * n2
    rows = np.empty(plane, np.float32)
    columns = np.zeros((n1, n2 + 2 * radius), np.float32)
    weight = before.reshape(-1)
    for number in range(first, last):
        channel, i = number // n0, number % n0
        source = field[channel].reshape(-1)
        low, high = min(radius, i), min(radius, n0 - 1 - i)
        inner = low == high == radius
        if inner and before.size == 0:
            for n in range(plane):
                at = np.uintp(i * plane + n)
                total = taps[0] * source[at]
                for o in range(1, radius + 1):
                    total += taps[o] * (source[at - np.uintp(o * plane)] + source[at + np.uintp(o * plane)])
                rows[n] = total
        elif inner:
            for n in range(plane):
                at = np.uintp(i * plane + n)
                total = taps[0] * source[at] * weight[at]
                for o in range(1, radius + 1):
                    below, above = at - np.uintp(o * plane), at + np.uintp(o * plane)
                    total += taps[o] * (source[below] * weight[below] + source[above] * weight[above])
                rows[n] = total
        else:
            rows[:] = 0
            for o in range(-low, high + 1):
                tap, values = taps[abs(o)], field[channel, i + o].reshape(-1)
                if before.size == 0:
                    for n in range(plane):
                        rows[n] += tap * values[n]
                else:
                    factor = before[i + o].reshape(-1)
                    for n in range(plane):
                        rows[n] += tap * factor[n] * values[n]
        for j in range(n1):
            target = columns[j, radius : radius + n2]
            low, high = min(radius, j), min(radius, n1 - 1 - j)
            if low == high == radius:
                start = j * n2
                for k in range(n2):
                    at = np.uintp(start + k)
                    total = taps[0] * rows[at]
                    for o in range(1, radius + 1):
                        total += taps[o] * (rows[at - np.uintp(o * n2)] + rows[at + np.uintp(o * n2)])
                    target[k] = total
            else:
                target[:] = 0
                for o in range(-low, high + 1):
                    tap, values = taps[abs(o)], rows[(j + o) * n2 : (j + o + 1) * n2]
                    for k in range(n2):
                        target[k] += tap * values[k]
        for j in range(n1):
            values, target = columns[j], out[channel, i, j]
            for k in range(n2):
                at = np.uintp(k + radius)
                total = taps[0] * values[at]
                for o in range(1, radius + 1):
                    total += taps[o] * (values[at - np.uintp(o)] + values[at + np.uintp(o)])
                target[k] = total
            if after.size > 0:
                factor = after[i, j]
                for k in range(n2):
                    target[k] *= factor[k]
            if keep:
                start = i * plane + j * n2
                for k in range(n2):
                    at = np.uintp(start + k)
                    target[k] += source[at] if before.size == 0 else weight[at] * source[at]
