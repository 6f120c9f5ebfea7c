"""Normalised mutual information and its gradient on the GPU: a gather, a histogram, and a pointwise look-up."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.triton import negative_laplacian
from convexadam.kernels.lncc.triton import warp_with_slopes
from convexadam.kernels.mutual_information.reference import intensity_range, loss_and_slopes
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (2, 4, 32)
"""Points per program of kernels that interpolate or load neighbours."""

_BATCH, _BATCHES = 64, 64
"""Points per batch of the histogram, and batches per program; each program stores its own histogram."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


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
        self._fixed, self._moving, self._bins = fixed.contiguous(), moving.contiguous(), bins
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._spans = torch.stack(
            [*intensity_range(fixed, fixed_weight, bins - 1), *intensity_range(moving, moving_weight, bins - 3)]
        )
        self._shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self._run(displacement, diffusion, out, None)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        result = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        value, _ = self._run(displacement, diffusion, result[:3], result[3:])
        return value, result if out is None or result is out else out.copy_(result)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, length: Float[Tensor, "1 i j k"] | None
    ) -> tuple[Float[Tensor, ""], Field]:
        unclamped = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(unclamped)
        warped, overlap = torch.empty_like(unclamped[0]), torch.empty_like(unclamped[0])
        points, bins, grid = warped.numel(), self._bins, launch_grid(self._shape, _BOX)
        width, programs = max(16, triton.next_power_of_2(bins)), -(-points // (_BATCH * _BATCHES))
        parts = unclamped.new_empty(programs, width, width)
        with torch.cuda.device(unclamped.get_device()):
            arrays = self._moving, unclamped, *self._weights, warped, overlap, gradient
            warp_with_slopes[grid](*arrays, *self._shape, *_BOX, **_OPTIONS)
            samples = self._fixed, warped, overlap, self._spans
            _compute_histogram[(programs,)](*samples, parts, points, bins, width, _BATCH, _BATCHES, **_OPTIONS)
            loss, slopes = loss_and_slopes(parts.sum(0, dtype=torch.float64)[:bins, :bins])
            arrays = *samples, slopes.contiguous(), unclamped, gradient, length
            numbers = 2 * diffusion / (3 * points), diffusion != 0
            _gradient[grid](*arrays, *self._shape, bins, *numbers, *_BOX, **_OPTIONS)
        return loss.float(), gradient if out is None or gradient is out else out.copy_(gradient)


@no_type_check
@triton.jit
def _bin_position(value, spans, first, last):
    """Compute the position of values in bins, clamped to the outer ones."""
    low, scale = tl.load(spans), tl.load(spans + 1)
    return tl.minimum(tl.maximum((value - low) * scale + first, first), last)


@no_type_check
@triton.jit(do_not_specialize=["points"])
def _compute_histogram(
    fixed,
    warped,
    overlap,
    spans,
    parts,
    points,
    bins: tl.constexpr,
    width: tl.constexpr,
    batch: tl.constexpr,
    batches: tl.constexpr,
):
    """Compute the histogram of some points as a matrix product of their window weights along both axes."""
    middle = tl.arange(0, width)[None, :].to(tl.float32)
    joint = tl.zeros((width, width), tl.float32)
    start = tl.program_id(0).to(tl.int64) * (batch * batches)
    for number in range(batches):
        point = start + number * batch + tl.arange(0, batch)
        valid = point < points
        weight = tl.load(overlap + point, mask=valid, other=0.0)
        row = _bin_position(tl.load(fixed + point, mask=valid, other=0.0), spans, 0.0, bins - 1.0)
        column = _bin_position(tl.load(warped + point, mask=valid, other=0.0), spans + 2, 1.0, bins - 2.0)
        tent = weight[:, None] * tl.maximum(1 - tl.abs(row[:, None] - middle), 0.0)
        x = tl.abs(column[:, None] - middle)
        y = tl.maximum(2 - x, 0.0)
        spline = tl.where(x < 1, 0.6666666666666666 - x * x * (1 - 0.5 * x), y * y * y / 6)
        joint += tl.dot(tl.trans(tent), spline, input_precision="ieee")
    entry = tl.arange(0, width)[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(parts + tl.program_id(0) * (width * width) + entry, joint)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _gradient(
    fixed,
    warped,
    overlap,
    spans,
    slopes,
    u,
    gradient,
    length,
    n0,
    n1,
    n2,
    bins: tl.constexpr,
    rough,
    diffuse: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Multiply the spatial derivatives in ``gradient`` by the derivative of the loss, and store its magnitude."""
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    component = (point * 0 + n0) * n1 * n2  # 64 bits
    second, third = point + component, point + 2 * component
    weight, value = tl.load(overlap + point, mask=valid, other=0.0), tl.load(warped + point, mask=valid, other=0.0)
    in_view = valid & (weight > 0)
    row = _bin_position(tl.load(fixed + point, mask=valid, other=0.0), spans, 0.0, bins - 1.0)
    column = _bin_position(value, spans + 2, 1.0, bins - 2.0)
    scale = tl.load(spans + 3)
    unclamped = (value - tl.load(spans + 2)) * scale + 1.0
    lower, first = tl.minimum(row.to(tl.int32), bins - 2), tl.minimum(column.to(tl.int32), bins - 3)
    near = slopes + lower * bins + first - 1
    x = (column - first.to(tl.float32)).to(tl.float64)  # in float64, because constants along a row must cancel
    along = (row - lower.to(tl.float32)).to(tl.float64)
    change = (1 - along) * _slope(near, x, in_view) + along * _slope(near + bins, x, in_view)
    factor = tl.where(in_view & (unclamped == column), weight * scale * change.to(tl.float32), 0.0)
    g0 = factor * tl.load(gradient + point, mask=valid, other=0.0)
    g1 = factor * tl.load(gradient + second, mask=valid, other=0.0)
    g2 = factor * tl.load(gradient + third, mask=valid, other=0.0)
    if length is not None:  # squares in float64, which do not underflow
        x, y, z = g0.to(tl.float64), g1.to(tl.float64), g2.to(tl.float64)
        tl.store(length + point, tl.sqrt(x * x + y * y + z * z).to(tl.float32), mask=valid)
    if diffuse:
        u0 = tl.load(u + point, mask=valid, other=0.0)
        u1 = tl.load(u + second, mask=valid, other=0.0)
        u2 = tl.load(u + third, mask=valid, other=0.0)
        g0 += rough * negative_laplacian(u, u0, point, i, j, k, n0, n1, n2, valid)
        g1 += rough * negative_laplacian(u, u1, second, i, j, k, n0, n1, n2, valid)
        g2 += rough * negative_laplacian(u, u2, third, i, j, k, n0, n1, n2, valid)
    tl.store(gradient + point, g0, mask=valid)
    tl.store(gradient + second, g1, mask=valid)
    tl.store(gradient + third, g2, mask=valid)


@no_type_check
@triton.jit
def _slope(entry, x, mask):
    """Differentiate the sum of a row of slopes, weighted by B-splines, by the position in bins."""
    y = 1 - x
    total = -0.5 * y * y * tl.load(entry, mask=mask, other=0.0) + 0.5 * x * x * tl.load(entry + 3, mask=mask, other=0.0)
    total += x * (1.5 * x - 2) * tl.load(entry + 1, mask=mask, other=0.0)
    return total + y * (2 - 1.5 * y) * tl.load(entry + 2, mask=mask, other=0.0)
