"""Squared differences and their gradient on the GPU: one gather of eight rows of channels for each node."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.kernels.diffusion.triton import excess
from convexadam.kernels.warp.triton import boxes, cell, corners, mixed, nodes_of_box

_BOX = (2, 4, 8)
"""Nodes of one program. They read 3 x 5 x 9 rows of the moving map or so: two for each, the other six are cached."""

_LONG_BOX = (2, 4, 32)
"""The same for the evidence alone, which takes a single value of each node."""

_CHANNELS = 16
"""Channels taken at a time: in half precision 32 bytes, one sector of memory."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.compared`.

    Parameters
    ----------
    storage
        Type in which features are kept; ``None`` is float16 on GPUs, where this kernel waits for memory, and float32
        elsewhere. Half precision keeps 11 bits of features scaled to at most 1; everything is computed in float32.
    """

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | None = None,
        storage: torch.dtype | None = None,
    ) -> None:
        self._limit = 0.0 if outlier is None else 1 / outlier
        storage = storage or (torch.float16 if fixed.is_cuda else torch.float32)
        scale = None if storage == torch.float32 else _power_of_two_above(fixed, moving)
        self._features = _rows(fixed, storage, scale), _rows(moving, storage, scale)
        self._weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
        self._squared_scale = None if scale is None else scale.square()
        self._shape = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        self._grid = boxes(self._shape, _BOX)
        self._parts = torch.empty(self._grid[::-1], dtype=torch.float32, device=fixed.device)

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        gradient = self.gradient(displacement, diffusion=diffusion, out=out)
        return self._parts.sum(), gradient

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self._run(displacement, diffusion, out, None)

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        found = out if out is not None and out.is_contiguous() else displacement.new_empty(4, *self._shape)
        self._run(displacement, diffusion, found[:3], found[3:])
        return self._parts.sum(), found if out is None or found is out else out.copy_(found)

    def _run(
        self, displacement: Field, diffusion: float, out: Field | None, trace: Float[Tensor, "1 i j k"] | None
    ) -> Field:
        given = displacement.contiguous()
        gradient = out if out is not None and out.is_contiguous() else torch.empty_like(given)
        nodes, channels = given[0].numel(), self._features[0].shape[-1]
        numbers = 1 / nodes, 2 * diffusion / (3 * nodes), self._limit
        arrays = (*self._features, given, *self._weights, self._squared_scale, gradient, trace, self._parts)
        switches, sizes = (diffusion != 0, self._limit > 0), (channels, min(channels, _CHANNELS), *_BOX)
        with torch.cuda.device(given.get_device()):
            _gradient[self._grid](*arrays, *self._shape, *numbers, *switches, *sizes, **_OPTIONS)
        return gradient if out is None or gradient is out else out.copy_(gradient)


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    given = displacement.contiguous()
    weights = [None if w is None else w.contiguous() for w in (fixed_weight, moving_weight)]
    found = torch.empty_like(given[0])
    n0, n1, n2 = found.shape
    with torch.cuda.device(given.get_device()):
        _evidence[boxes((n0, n1, n2), _LONG_BOX)](given, *weights, found, n0, n1, n2, *_LONG_BOX, **_OPTIONS)
    return found


def _rows(features: Channels, storage: torch.dtype, scale: Float[Tensor, ""] | None) -> Float[Tensor, "i j k d"]:
    """Channels last, and as many as whole blocks have; those in excess are 0 in both maps and differ by nothing."""
    count = features.shape[0]
    # a power of two up to one block, then whole blocks; never less than four, so that a load is a whole word
    width = max(4, min(triton.next_power_of_2(count), -(-count // _CHANNELS) * _CHANNELS))
    rows = torch.zeros((*features.shape[1:], width), dtype=storage, device=features.device)
    last = features.detach().permute(1, 2, 3, 0)
    rows[..., :count] = last if scale is None else last / scale
    return rows


def _power_of_two_above(*features: Channels) -> Float[Tensor, ""]:
    """Scale that brings all values to at most 1 without any rounding; stays on the device."""
    largest = torch.stack([f.detach().abs().amax() for f in features]).amax()
    return torch.exp2(torch.log2(largest.clamp_min(1e-18)).ceil())  # its square still is a normal number


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _gradient(
    fixed,
    moving,
    u,
    fixed_weight,
    moving_weight,
    squared_scale,
    gradient,
    trace,
    parts,
    n0,
    n1,
    n2,
    share,
    rough,
    limit,
    diffuse: tl.constexpr,
    limited: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    component = (node * 0 + n0) * n1 * n2  # 64 bits
    u0 = tl.load(u + node, mask=here, other=0.0)
    u1 = tl.load(u + node + component, mask=here, other=0.0)
    u2 = tl.load(u + node + 2 * component, mask=here, other=0.0)
    p0, p1, p2 = i.to(tl.float32) + u0, j.to(tl.float32) + u1, k.to(tl.float32) + u2
    first, s0, s1, s2, f0, f1, f2 = cell(p0, p1, p2, n0, n1, n2)
    seen = here & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = evidence_of(fixed_weight, moving_weight, node, first, s0, s1, s2, f0, f1, f2, seen)
    traced: tl.constexpr = trace is not None
    part, g0, g1, g2, h0, h1, h2 = _compared(
        fixed, moving, node, first, s0, s1, s2, f0, f1, f2, weight > 0, traced, channels, block
    )

    weight *= share
    if squared_scale is not None:
        weight *= tl.load(squared_scale)
    if limited:
        squared = part
        if squared_scale is not None:
            squared *= tl.load(squared_scale)
        kept = 1.0 / (1.0 + squared * limit)
        part *= kept
        kept *= kept
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts + program, tl.sum(weight * part, 0))
    # a position clamped to the volume does not move with the displacement
    weight *= 2
    if limited:
        weight *= kept
    free0, free1, free2 = (p0 > 0) & (p0 < n0 - 1.0), (p1 > 0) & (p1 < n1 - 1.0), (p2 > 0) & (p2 < n2 - 1.0)
    g0 = tl.where(free0, weight * g0, 0.0)
    g1 = tl.where(free1, weight * g1, 0.0)
    g2 = tl.where(free2, weight * g2, 0.0)
    if traced:
        squared = tl.where(free0, h0, 0.0) + tl.where(free1, h1, 0.0) + tl.where(free2, h2, 0.0)
        tl.store(trace + node, weight * squared / 3, mask=here)
    if diffuse:
        g0 += rough * excess(u, u0, node, i, j, k, n0, n1, n2, here)
        g1 += rough * excess(u, u1, node + component, i, j, k, n0, n1, n2, here)
        g2 += rough * excess(u, u2, node + 2 * component, i, j, k, n0, n1, n2, here)
    tl.store(gradient + node, g0, mask=here)
    tl.store(gradient + node + component, g1, mask=here)
    tl.store(gradient + node + 2 * component, g2, mask=here)


@no_type_check
@triton.jit
def _compared(
    fixed,
    moving,
    node,
    first,
    s0,
    s1,
    s2,
    f0,
    f1,
    f2,
    mask,
    traced: tl.constexpr,
    channels: tl.constexpr,
    block: tl.constexpr,
):
    """Squared difference of each node, half its gradient and, if ``traced``, squares of slopes.

    0 outside the mask, where nothing is read.
    """
    mask = mask[:, None]
    f0, f1, f2 = f0[:, None], f1[:, None], f2[:, None]
    s0, s1, s2 = s0[:, None] * channels, s1[:, None] * channels, s2[:, None] * channels
    channel = tl.arange(0, block)[None, :]
    fixed_row, low_row = fixed + node[:, None] * channels, moving + first[:, None] * channels
    part = tl.zeros(node.shape, tl.float32)
    g0, g1, g2 = part, part, part
    h0, h1, h2 = part, part, part
    for start in range(0, channels, block):
        low, low1, low2 = _face(low_row + (start + channel), s1, s2, f1, f2, mask)
        high, high1, high2 = _face(low_row + s0 + (start + channel), s1, s2, f1, f2, mask)
        here = tl.load(fixed_row + (start + channel), mask=mask, other=0.0).to(tl.float32)
        d0, d1, d2 = high - low, low1 + f0 * (high1 - low1), low2 + f0 * (high2 - low2)
        residual = low + f0 * d0 - here
        part += tl.sum(residual * residual, 1)
        g0 += tl.sum(residual * d0, 1)
        g1 += tl.sum(residual * d1, 1)
        g2 += tl.sum(residual * d2, 1)
        if traced:
            h0 += tl.sum(d0 * d0, 1)
            h1 += tl.sum(d1 * d1, 1)
            h2 += tl.sum(d2 * d2, 1)
    return part, g0, g1, g2, h0, h1, h2


@no_type_check
@triton.jit
def _face(row, s1, s2, f1, f2, mask):
    """Values on the near or far face of the cells, and their slopes along the last two axes."""
    m00 = tl.load(row, mask=mask, other=0.0).to(tl.float32)
    m01 = tl.load(row + s2, mask=mask, other=0.0).to(tl.float32)
    m10 = tl.load(row + s1, mask=mask, other=0.0).to(tl.float32)
    m11 = tl.load(row + s1 + s2, mask=mask, other=0.0).to(tl.float32)
    d0, d1 = m01 - m00, m11 - m10
    e0, e1 = m00 + f2 * d0, m10 + f2 * d1
    slope = e1 - e0
    return e0 + f1 * slope, slope, d0 + f1 * (d1 - d0)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _evidence(
    u, fixed_weight, moving_weight, out, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr
):
    i, j, k, node, here = nodes_of_box(n0, n1, n2, box0, box1, box2)
    component = (node * 0 + n0) * n1 * n2  # 64 bits
    p0 = i.to(tl.float32) + tl.load(u + node, mask=here, other=0.0)
    p1 = j.to(tl.float32) + tl.load(u + node + component, mask=here, other=0.0)
    p2 = k.to(tl.float32) + tl.load(u + node + 2 * component, mask=here, other=0.0)
    first, s0, s1, s2, f0, f1, f2 = cell(p0, p1, p2, n0, n1, n2)
    seen = here & inside(p0, n0) & inside(p1, n1) & inside(p2, n2)
    weight = evidence_of(fixed_weight, moving_weight, node, first, s0, s1, s2, f0, f1, f2, seen)
    tl.store(out + node, weight, mask=here)


@no_type_check
@triton.jit
def inside(position, n):
    """Whether a position along an axis is in the field of view."""
    return (position >= -0.5) & (position <= n - 0.5)


@no_type_check
@triton.jit
def evidence_of(fixed_weight, moving_weight, node, first, s0, s1, s2, f0, f1, f2, seen):
    """Evidence of each node: 0 where nothing is seen, and where one of the nodes that are mixed has none."""
    weight = seen.to(tl.float32)
    if fixed_weight is not None:
        weight *= tl.load(fixed_weight + node, mask=seen, other=0.0)
    if moving_weight is not None:
        w000, w001, w010, w011, w100, w101, w110, w111 = corners(moving_weight, first, s0, s1, s2, seen)
        k000, k001, k010, k011 = _known(w000), _known(w001), _known(w010), _known(w011)
        k100, k101, k110, k111 = _known(w100), _known(w101), _known(w110), _known(w111)
        known = mixed(k000, k001, k010, k011, k100, k101, k110, k111, f0, f1, f2)
        sampled = mixed(w000, w001, w010, w011, w100, w101, w110, w111, f0, f1, f2)
        weight *= tl.where(known > 0.999, sampled, 0.0)
    return weight


@no_type_check
@triton.jit
def _known(weight):
    return (weight > 0).to(tl.float32)
