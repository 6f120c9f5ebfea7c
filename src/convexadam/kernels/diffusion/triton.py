"""Diffusion energy on the GPU, in one pass; and differences to neighbours, of which other kernels are made."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.warp.triton import boxes, nodes_of_box

_BOX = (2, 4, 32)
"""Nodes of one program: whole warps along the innermost axis, whose values lie side by side."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def diffusion(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    n0, n1, n2 = field.shape[1:]
    parts = torch.empty(boxes((3 * n0, n1, n2), _BOX)[::-1], dtype=torch.float32, device=field.device)
    gradient = _run(field, weight, onto, parts)
    return parts.sum() * (weight / (3 * field[0].numel())), gradient


def diffusion_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, onto, None)


def _run(field: Field, weight: float, onto: Field | None, parts: Float[Tensor, "a b c"] | None) -> Field:
    given = field.contiguous()
    gradient = onto if onto is not None and onto.is_contiguous() else torch.zeros_like(given)
    n0, n1, n2 = given.shape[1:]
    factor = 2 * weight / (3 * given[0].numel())
    with torch.cuda.device(given.get_device()):
        _add[boxes((3 * n0, n1, n2), _BOX)](given, gradient, parts, n0, n1, n2, factor, *_BOX, **_OPTIONS)
    return gradient if onto is None or onto is gradient else onto.add_(gradient)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add(u, out, parts, n0, n1, n2, factor, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    """Add the gradient of all components, one after the other, and sum the squared differences of each program."""
    plane, j, k, node, here = nodes_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + node, mask=here, other=0.0)
    before = tl.load(out + node, mask=here, other=0.0)
    tl.store(out + node, before + factor * excess(u, value, node, i, j, k, n0, n1, n2, here), mask=here)
    if parts is not None:
        row = (node * 0 + n1) * n2
        along_i = tl.load(u + node + tl.where(i < n0 - 1, row, 0), mask=here, other=0.0) - value
        along_j = tl.load(u + node + tl.where(j < n1 - 1, n2, 0), mask=here, other=0.0) - value
        along_k = tl.load(u + node + tl.where(k < n2 - 1, 1, 0), mask=here, other=0.0) - value
        total = tl.sum(along_i * along_i + along_j * along_j + along_k * along_k, 0)
        tl.store(parts + program(), total)


@no_type_check
@triton.jit
def program():
    """Return the number of this program among all."""
    return (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)


@no_type_check
@triton.jit
def excess(u, value, at, i, j, k, n0, n1, n2, here):
    """Sum of what a value has over its neighbours; past the border the value itself stands for one."""
    row = (at * 0 + n1) * n2
    total = value - tl.load(u + at - tl.where(i > 0, row, 0), mask=here, other=0.0)
    total += value - tl.load(u + at + tl.where(i < n0 - 1, row, 0), mask=here, other=0.0)
    total += value - tl.load(u + at - tl.where(j > 0, n2, 0), mask=here, other=0.0)
    total += value - tl.load(u + at + tl.where(j < n1 - 1, n2, 0), mask=here, other=0.0)
    total += value - tl.load(u + at - tl.where(k > 0, 1, 0), mask=here, other=0.0)
    total += value - tl.load(u + at + tl.where(k < n2 - 1, 1, 0), mask=here, other=0.0)
    return total
