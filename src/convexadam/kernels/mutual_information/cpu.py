"""Normalised mutual information and its gradient on the CPU: a gather, a histogram, and a look-up for each node."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._cpu import compiled, empty, in_slabs, views, written_to
from convexadam.kernels.diffusion.cpu import add_excess, around
from convexadam.kernels.lncc.cpu import given_or_none, warp_with_slopes
from convexadam.kernels.mutual_information.reference import loss_and_slopes, span

_ZERO, _HALF, _TWO_THIRDS, _ONE, _SIX = (np.float32(number) for number in (0, 0.5, 2 / 3, 1, 6))


class MutualInformation:
    """See `convexadam.kernels.mutual_information.shared`."""

    def __init__(
        self,
        fixed: Float[Tensor, "1 i j k"],
        moving: Float[Tensor, "1 i j k"],
        *,
        bins: int = 32,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._maps = views(fixed[0], moving[0])
        self._weights = given_or_none(fixed_weight, moving_weight)
        spans = *span(fixed, fixed_weight, bins - 1), *span(moving, moving_weight, bins - 3)
        self._bins, self._spans = bins, tuple(np.float32(number.item()) for number in spans)

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, found[:3], found[3:])
        return value, found if out is None or out is found else out.copy_(found)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, length: Float[Tensor, "1 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, asked = written_to(out, like=displacement), empty(0, 1, 1, 1) if length is None else length
        u, target, lengths = views(displacement, gradient, asked)
        fixed, moving = self._maps
        moved, weight = views(*empty(2, *u.shape[1:]))
        planes, rough = len(weight), np.float32(2 * diffusion / (3 * weight.size))
        in_slabs(warp_with_slopes, planes, moving, u, *self._weights, moved, weight, target)
        counted = fixed, moved, weight, *self._spans
        joint = sum(in_slabs(_count, planes, *counted, self._bins))
        loss, slopes = loss_and_slopes(torch.as_tensor(joint, device="cpu"))
        in_slabs(_gradient, planes, *counted, *views(slopes), u, target, lengths, rough)
        return loss.float(), gradient if out is None or out is gradient else out.copy_(gradient)


@no_type_check
@compiled
def _placed(value, low, scale, first, last):
    """Bin below a value, how far on to the next it is, and whether it lies between the outer bins or is put there."""
    given = (value - low) * scale + first
    place = min(max(given, first), last)
    lower = min(int(place), int(last) - 1)
    return lower, place - np.float32(lower), given == place


@no_type_check
@compiled
def _count(first, last, fixed, moved, evidence, low_f, scale_f, low_m, scale_m, bins):
    """Joint histogram of the planes ``first ... last - 1``."""
    _, n1, n2 = fixed.shape
    joint = np.zeros((bins, bins), np.float64)
    counts, end_f, end_m = joint.reshape(-1), np.float32(bins - 1), np.float32(bins - 2)
    for i in range(first, last):
        for j in range(n1):
            values, others, weights = fixed[i, j], moved[i, j], evidence[i, j]
            for k in range(n2):
                weight = weights[k]
                if weight <= _ZERO:
                    continue
                row, f, _ = _placed(values[k], low_f, scale_f, _ZERO, end_f)
                column, x, _ = _placed(others[k], low_m, scale_m, _ONE, end_m)
                y = _ONE - x
                cubic = (
                    y * y * y / _SIX,
                    _TWO_THIRDS - x * x * (_ONE - _HALF * x),
                    _TWO_THIRDS - y * y * (_ONE - _HALF * y),
                    x * x * x / _SIX,
                )
                lower = np.uintp(row * bins + column - 1)
                upper, near, far = lower + np.uintp(bins), weight * (_ONE - f), weight * f
                for b in range(4):
                    counts[lower + np.uintp(b)] += near * cubic[b]
                    counts[upper + np.uintp(b)] += far * cubic[b]
    return joint


@no_type_check
@compiled
def _gradient(first, last, fixed, moved, evidence, low_f, scale_f, low_m, scale_m, slopes, u, gradient, length, rough):
    """Gradient of the planes ``first ... last - 1`` in place of the slopes of the warped map; and its length, if asked.

    ``slopes`` are those of the loss by the entries of the histogram.
    """
    n0, n1, n2 = fixed.shape
    bins, volume = len(slopes), n0 * n1 * n2
    table, end_f, end_m = slopes.reshape(-1), np.float32(bins - 1), np.float32(bins - 2)
    change = np.empty(n2, np.float32)
    for i in range(first, last):
        for j in range(n1):
            values, others, weights = fixed[i, j], moved[i, j], evidence[i, j]
            for k in range(n2):
                row, f, _ = _placed(values[k], low_f, scale_f, _ZERO, end_f)
                column, x, free = _placed(others[k], low_m, scale_m, _ONE, end_m)
                x64, y64 = np.float64(x), 1.0 - np.float64(x)  # what all bins of a row share has to cancel
                by = -0.5 * y64 * y64, x64 * (1.5 * x64 - 2.0), y64 * (2.0 - 1.5 * y64), 0.5 * x64 * x64
                lower = np.uintp(row * bins + column - 1)
                upper, near, far = lower + np.uintp(bins), 0.0, 0.0
                for b in range(4):
                    near += by[b] * table[lower + np.uintp(b)]
                    far += by[b] * table[upper + np.uintp(b)]
                found = weights[k] * scale_m * np.float32(near + f * (far - near))
                change[k] = found if free else _ZERO
            for a in range(3):
                target = gradient[a, i, j]
                for k in range(n2):
                    target[k] *= change[k]
            if len(length) > 0:  # squares of 64 bits, which do not vanish
                for k in range(n2):
                    x, y, z = gradient[0, i, j, k], gradient[1, i, j, k], gradient[2, i, j, k]
                    squared = np.float64(x) * x + np.float64(y) * y + np.float64(z) * z
                    length[0, i, j, k] = np.float32(math.sqrt(squared))
            if rough != _ZERO:
                for a in range(3):
                    row = a * volume + (i * n1 + j) * n2
                    beside = around(row, i, j, u.shape)
                    add_excess(u.reshape(-1), row, beside, n2, gradient.reshape(-1), row, rough)
