"""A damped second-order step on the CPU, in one pass."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Float, Tensor
from convexadam.kernels._cpu import compiled, in_slabs, views

_HALF, _ONE = np.float32(0.5), np.float32(1)


def damped_step(
    slopes: Float[Tensor, "4 i j k"], means: Float[Tensor, "4 i j k"], *, damping: float, longest: float
) -> float:
    """See the package; returns the predicted decrease."""
    changed = means.contiguous()
    arrays = [v.reshape(4, -1) for v in views(slopes, changed)]
    shortest = np.float32(0 if np.isinf(longest) else 1 / longest**2)
    decrease = sum(in_slabs(_step, arrays[0].shape[1], *arrays, np.float32(damping), shortest, multiple=1024))
    if changed is not means:
        means.copy_(changed)
    return float(decrease)


@no_type_check
@compiled
def _step(first, last, slopes, means, damping, per_square):
    """Write the steps of the nodes ``first ... last - 1`` and return what they should gain."""
    total = 0.0
    for start in range(first, last, 1024):
        part = np.float32(0)
        for n in range(start, min(start + 1024, last)):
            factor = -_ONE / (means[3, n] + damping)
            v0, v1, v2 = factor * means[0, n], factor * means[1, n], factor * means[2, n]
            squared = v0 * v0 + v1 * v1 + v2 * v2
            cut = _ONE / np.sqrt(max(squared * per_square, _ONE))
            v0, v1, v2 = cut * v0, cut * v1, cut * v2
            means[0, n], means[1, n], means[2, n] = v0, v1, v2
            part -= slopes[0, n] * v0 + slopes[1, n] * v1 + slopes[2, n] * v2
            part -= _HALF * slopes[3, n] * (v0 * v0 + v1 * v1 + v2 * v2)
        total += part
    return total
