"""A damped second-order step on the GPU, in one pass."""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor

_BLOCK = 1024


def damped_step(
    slopes: Float[Tensor, "4 i j k"], means: Float[Tensor, "4 i j k"], *, damping: float, longest: float
) -> float:
    """See the package; returns the predicted decrease."""
    given, changed = slopes.contiguous(), means.contiguous()
    nodes = given[0].numel()
    blocks = triton.cdiv(nodes, _BLOCK)
    parts = torch.empty(blocks, dtype=torch.float32, device=given.device)
    per_square = 0.0 if math.isinf(longest) else 1 / longest**2
    with torch.cuda.device(given.get_device()):
        _step[(blocks,)](given, changed, parts, nodes, damping, per_square, _BLOCK)
    if changed is not means:
        means.copy_(changed)
    return float(parts.sum())


@no_type_check
@triton.jit(do_not_specialize=["nodes"])
def _step(slopes, means, parts, nodes, damping, per_square, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here, second, third, fourth = at < nodes, at + nodes, at + 2 * nodes, at + 3 * nodes
    factor = -1.0 / (tl.load(means + fourth, mask=here, other=1.0) + damping)
    v0 = factor * tl.load(means + at, mask=here, other=0.0)
    v1 = factor * tl.load(means + second, mask=here, other=0.0)
    v2 = factor * tl.load(means + third, mask=here, other=0.0)
    cut = 1.0 / tl.sqrt(tl.maximum((v0 * v0 + v1 * v1 + v2 * v2) * per_square, 1.0))
    v0, v1, v2 = cut * v0, cut * v1, cut * v2
    tl.store(means + at, v0, mask=here)
    tl.store(means + second, v1, mask=here)
    tl.store(means + third, v2, mask=here)
    gain = v0 * tl.load(slopes + at, mask=here, other=0.0)
    gain += v1 * tl.load(slopes + second, mask=here, other=0.0)
    gain += v2 * tl.load(slopes + third, mask=here, other=0.0)
    gain += 0.5 * tl.load(slopes + fourth, mask=here, other=0.0) * (v0 * v0 + v1 * v1 + v2 * v2)
    tl.store(parts + tl.program_id(0), -tl.sum(gain, 0))
