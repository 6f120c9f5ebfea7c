"""Normalised mutual information and its gradient on the GPU: a gather, a histogram, and a look-up for each node."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.triton import excess
from convexadam.kernels.lncc.triton import warp_with_slopes
from convexadam.kernels.mutual_information.reference import loss_and_slopes, span
from convexadam.kernels.warp.triton import boxes, nodes_of_box

_BOX = (2, 4, 32)
"""Nodes of one program that reads between nodes or beside them."""

_COUNT, _ROUNDS = 64, 64
"""Nodes that are counted at a time, and how often by one program, which leaves a histogram of its own."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


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
        self._fixed, self._moving, self._bins = fixed.contiguous(), moving.contiguous(), bins
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._spans = torch.stack([*span(fixed, fixed_weight, bins - 1), *span(moving, moving_weight, bins - 3)])
        self._shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out, None)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        value, _ = self._run(displacement, diffusion, found[:3], found[3:])
        return value, found if out is None or found is out else out.copy_(found)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, length: Float[Tensor, "1 i j k"] | None
    ) -> tuple[Float[Tensor, ""], Field]:
        given = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(given)
        moved, evidence = torch.empty_like(given[0]), torch.empty_like(given[0])
        nodes, bins, grid = moved.numel(), self._bins, boxes(self._shape, _BOX)
        width, programs = max(16, triton.next_power_of_2(bins)), -(-nodes // (_COUNT * _ROUNDS))
        parts = given.new_empty(programs, width, width)
        with torch.cuda.device(given.get_device()):
            arrays = self._moving, given, *self._weights, moved, evidence, gradient
            warp_with_slopes[grid](*arrays, *self._shape, *_BOX, **_OPTIONS)
            counted = self._fixed, moved, evidence, self._spans
            _count[(programs,)](*counted, parts, nodes, bins, width, _COUNT, _ROUNDS, **_OPTIONS)
            loss, slopes = loss_and_slopes(parts.sum(0, dtype=torch.float64)[:bins, :bins])
            arrays = *counted, slopes.contiguous(), given, gradient, length
            numbers = 2 * diffusion / (3 * nodes), diffusion != 0
            _gradient[grid](*arrays, *self._shape, bins, *numbers, *_BOX, **_OPTIONS)
        return loss.float(), gradient if out is None or gradient is out else out.copy_(gradient)


@no_type_check
@triton.jit
def _place(value, spans, first, last):
    """Where values lie among the bins; what is beyond the outer ones is put there."""
    low, scale = tl.load(spans), tl.load(spans + 1)
    return tl.minimum(tl.maximum((value - low) * scale + first, first), last)


@no_type_check
@triton.jit(do_not_specialize=["nodes"])
def _count(
    fixed,
    moved,
    evidence,
    spans,
    parts,
    nodes,
    bins: tl.constexpr,
    width: tl.constexpr,
    count: tl.constexpr,
    rounds: tl.constexpr,
):
    """Histogram of some nodes: the product of their shares in the bins of either axis."""
    middle = tl.arange(0, width)[None, :].to(tl.float32)
    joint = tl.zeros((width, width), tl.float32)
    start = tl.program_id(0).to(tl.int64) * (count * rounds)
    for number in range(rounds):
        node = start + number * count + tl.arange(0, count)
        here = node < nodes
        weight = tl.load(evidence + node, mask=here, other=0.0)
        row = _place(tl.load(fixed + node, mask=here, other=0.0), spans, 0.0, bins - 1.0)
        column = _place(tl.load(moved + node, mask=here, other=0.0), spans + 2, 1.0, bins - 2.0)
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
    moved,
    evidence,
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
    """Multiply the slopes of the warped map, which ``gradient`` holds, by those of the loss; and write its length."""
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    component = (node * 0 + n0) * n1 * n2  # 64 bits
    second, third = node + component, node + 2 * component
    weight, value = tl.load(evidence + node, mask=here, other=0.0), tl.load(moved + node, mask=here, other=0.0)
    seen = here & (weight > 0)
    row = _place(tl.load(fixed + node, mask=here, other=0.0), spans, 0.0, bins - 1.0)
    column = _place(value, spans + 2, 1.0, bins - 2.0)
    scale = tl.load(spans + 3)
    given = (value - tl.load(spans + 2)) * scale + 1.0
    lower, first = tl.minimum(row.to(tl.int32), bins - 2), tl.minimum(column.to(tl.int32), bins - 3)
    near = slopes + lower * bins + first - 1
    x = (column - first.to(tl.float32)).to(tl.float64)  # what all bins of a row share has to cancel
    along = (row - lower.to(tl.float32)).to(tl.float64)
    change = (1 - along) * _slope(near, x, seen) + along * _slope(near + bins, x, seen)
    factor = tl.where(seen & (given == column), weight * scale * change.to(tl.float32), 0.0)
    g0 = factor * tl.load(gradient + node, mask=here, other=0.0)
    g1 = factor * tl.load(gradient + second, mask=here, other=0.0)
    g2 = factor * tl.load(gradient + third, mask=here, other=0.0)
    if length is not None:  # in 64 bits, whose squares do not vanish
        x, y, z = g0.to(tl.float64), g1.to(tl.float64), g2.to(tl.float64)
        tl.store(length + node, tl.sqrt(x * x + y * y + z * z).to(tl.float32), mask=here)
    if diffuse:
        u0 = tl.load(u + node, mask=here, other=0.0)
        u1 = tl.load(u + second, mask=here, other=0.0)
        u2 = tl.load(u + third, mask=here, other=0.0)
        g0 += rough * excess(u, u0, node, i, j, k, n0, n1, n2, here)
        g1 += rough * excess(u, u1, second, i, j, k, n0, n1, n2, here)
        g2 += rough * excess(u, u2, third, i, j, k, n0, n1, n2, here)
    tl.store(gradient + node, g0, mask=here)
    tl.store(gradient + second, g1, mask=here)
    tl.store(gradient + third, g2, mask=here)


@no_type_check
@triton.jit
def _slope(entry, x, mask):
    """Differentiate a row of slopes, each times its spline, by the place among the bins."""
    y = 1 - x
    total = -0.5 * y * y * tl.load(entry, mask=mask, other=0.0) + 0.5 * x * x * tl.load(entry + 3, mask=mask, other=0.0)
    total += x * (1.5 * x - 2) * tl.load(entry + 1, mask=mask, other=0.0)
    return total + y * (2 - 1.5 * y) * tl.load(entry + 2, mask=mask, other=0.0)
