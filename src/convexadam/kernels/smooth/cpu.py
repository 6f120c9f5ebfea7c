"""Separable smoothing on the CPU: the three passes of a plane happen while it is in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Volume
from convexadam.kernels._cpu import compiled, in_slabs, views, written_to

_NONE = np.empty((0, 0, 0), np.float32)


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
) -> Channels:
    """See the package."""
    result = written_to(out, like=field)
    one_side = tuple(np.float32(t) for t in taps[len(taps) // 2 :])
    source, target = views(field, result)
    factors = [_NONE if f is None else views(f)[0] for f in (before, after)]
    in_slabs(_planes, field.shape[0] * field.shape[1], source, *factors, target, one_side)
    return result if out is None or out is result else out.copy_(result)


@no_type_check
@compiled
def _planes(first, last, field, before, after, out, taps):
    """Smooth the planes ``first ... last - 1`` of all channels in a row; ``taps`` from the middle outwards."""
    _, n0, n1, n2 = field.shape
    reach = len(taps) - 1
    plane = n1 * n2
    rows = np.empty(plane, np.float32)
    columns = np.zeros((n1, n2 + 2 * reach), np.float32)
    weight = before.reshape(-1)
    for number in range(first, last):
        channel, i = number // n0, number % n0
        source = field[channel].reshape(-1)
        low, high = min(reach, i), min(reach, n0 - 1 - i)
        inner = low == high == reach
        if inner and before.size == 0:
            for n in range(plane):
                at = np.uintp(i * plane + n)
                total = taps[0] * source[at]
                for o in range(1, reach + 1):
                    total += taps[o] * (source[at - np.uintp(o * plane)] + source[at + np.uintp(o * plane)])
                rows[n] = total
        elif inner:
            for n in range(plane):
                at = np.uintp(i * plane + n)
                total = taps[0] * source[at] * weight[at]
                for o in range(1, reach + 1):
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
            target = columns[j, reach : reach + n2]
            low, high = min(reach, j), min(reach, n1 - 1 - j)
            if low == high == reach:
                start = j * n2
                for k in range(n2):
                    at = np.uintp(start + k)
                    total = taps[0] * rows[at]
                    for o in range(1, reach + 1):
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
                at = np.uintp(k + reach)
                total = taps[0] * values[at]
                for o in range(1, reach + 1):
                    total += taps[o] * (values[at - np.uintp(o)] + values[at + np.uintp(o)])
                target[k] = total
            if after.size > 0:
                factor = after[i, j]
                for k in range(n2):
                    target[k] *= factor[k]
