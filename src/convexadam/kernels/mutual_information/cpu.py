"""Normalised mutual information and its gradient on the CPU: a gather, a histogram, and a pointwise look-up."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, empty, get_output, run_in_slabs, to_numpy
from convexadam.kernels.diffusion.cpu import add_negative_laplacian, neighbour_rows
from convexadam.kernels.lncc.cpu import prepare_optional_weights, warp_with_slopes
from convexadam.kernels.mutual_information.reference import intensity_range, loss_and_slopes

_ZERO, _HALF, _TWO_THIRDS, _ONE, _SIX = (np.float32(number) for number in (0, 0.5, 2 / 3, 1, 6))


class MutualInformation:
    """See `convexadam.kernels.mutual_information.prepare_mutual_information`."""

    def __init__(
        self,
        fixed: Float[Tensor, "1 i j k"],
        moving: Float[Tensor, "1 i j k"],
        *,
        bins: int = 32,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._maps = to_numpy(fixed[0], moving[0])
        self._weights = prepare_optional_weights(fixed_weight, moving_weight)
        spans = *intensity_range(fixed, fixed_weight, bins - 1), *intensity_range(moving, moving_weight, bins - 3)
        self._bins, self._spans = bins, tuple(np.float32(number.item()) for number in spans)

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = empty(4, *displacement.shape[1:]) if out is None or not out.is_contiguous() else out
        value, _ = self._run(displacement, diffusion, result[:3], result[3:])
        return value, result if out is None or out is result else out.copy_(result)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, length: Float[Tensor, "1 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        gradient, optional = get_output(out, like=displacement), empty(0, 1, 1, 1) if length is None else length
        u, target, lengths = to_numpy(displacement, gradient, optional)
        fixed, moving = self._maps
        warped, weight = to_numpy(*empty(2, *u.shape[1:]))
        planes, rough = len(weight), np.float32(2 * diffusion / (3 * weight.size))
        run_in_slabs(warp_with_slopes, planes, moving, u, *self._weights, warped, weight, target)
        samples = fixed, warped, weight, *self._spans
        joint = sum(run_in_slabs(_compute_histogram, planes, *samples, self._bins))
        loss, slopes = loss_and_slopes(torch.as_tensor(joint, device="cpu"))
        run_in_slabs(_gradient, planes, *samples, *to_numpy(slopes), u, target, lengths, rough)
        return loss.float(), gradient if out is None or out is gradient else out.copy_(gradient)


@no_type_check
@compile_kernel
def _find_bin(value, low, scale, first, last):
    """Return the bin below a value, its distance from it in bins, and whether the value was not clamped."""
    unclamped = (value - low) * scale + first
    position = min(max(unclamped, first), last)
    lower = min(int(position), int(last) - 1)
    return lower, position - np.float32(lower), unclamped == position


@no_type_check
@compile_kernel
def _compute_histogram(first, last, fixed, warped, overlap, low_f, scale_f, low_m, scale_m, bins):
    """Compute the joint histogram of the planes ``first ... last - 1``."""
    _, n1, n2 = fixed.shape
    joint = np.zeros((bins, bins), np.float64)
    counts, end_f, end_m = joint.reshape(-1), np.float32(bins - 1), np.float32(bins - 2)
    for i in range(first, last):
        for j in range(n1):
            values, others, weights = fixed[i, j], warped[i, j], overlap[i, j]
            for k in range(n2):
                weight = weights[k]
                if weight <= _ZERO:
                    continue
                row, f, _ = _find_bin(values[k], low_f, scale_f, _ZERO, end_f)
                column, x, _ = _find_bin(others[k], low_m, scale_m, _ONE, end_m)
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
@compile_kernel
def _gradient(first, last, fixed, warped, overlap, low_f, scale_f, low_m, scale_m, slopes, u, gradient, length, rough):
    """Compute the gradient of the planes ``first ... last - 1``, and optionally its magnitude.

    The gradient overwrites the spatial derivatives of the warped map. ``slopes`` are the derivatives of the loss by the
    entries of the histogram.
    """
    n0, n1, n2 = fixed.shape
    bins, volume = len(slopes), n0 * n1 * n2
    table, end_f, end_m = slopes.reshape(-1), np.float32(bins - 1), np.float32(bins - 2)
    change = np.empty(n2, np.float32)
    for i in range(first, last):
        for j in range(n1):
            values, others, weights = fixed[i, j], warped[i, j], overlap[i, j]
            for k in range(n2):
                row, f, _ = _find_bin(values[k], low_f, scale_f, _ZERO, end_f)
                column, x, inside = _find_bin(others[k], low_m, scale_m, _ONE, end_m)
                x64, y64 = np.float64(x), 1.0 - np.float64(x)  # in float64, because constants along a row must cancel
                by = -0.5 * y64 * y64, x64 * (1.5 * x64 - 2.0), y64 * (2.0 - 1.5 * y64), 0.5 * x64 * x64
                lower = np.uintp(row * bins + column - 1)
                upper, near, far = lower + np.uintp(bins), 0.0, 0.0
                for b in range(4):
                    near += by[b] * table[lower + np.uintp(b)]
                    far += by[b] * table[upper + np.uintp(b)]
                result = weights[k] * scale_m * np.float32(near + f * (far - near))
                change[k] = result if inside else _ZERO
            for a in range(3):
                target = gradient[a, i, j]
                for k in range(n2):
                    target[k] *= change[k]
            if len(length) > 0:  # squares in float64, which do not underflow
                for k in range(n2):
                    x, y, z = gradient[0, i, j, k], gradient[1, i, j, k], gradient[2, i, j, k]
                    squared = np.float64(x) * x + np.float64(y) * y + np.float64(z) * z
                    length[0, i, j, k] = np.float32(math.sqrt(squared))
            if rough != _ZERO:
                for a in range(3):
                    row = a * volume + (i * n1 + j) * n2
                    neighbours = neighbour_rows(row, i, j, u.shape)
                    add_negative_laplacian(u.reshape(-1), row, neighbours, n2, gradient.reshape(-1), row, rough)
