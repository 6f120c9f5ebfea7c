"""Bending energy on the GPU, in two passes: the Laplacian, and what it takes of its own Laplacian (see ``cpu.py``)."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.diffusion.triton import excess, program
from convexadam.kernels.warp.triton import boxes, nodes_of_box

_BOX = (2, 4, 32)
"""Nodes of one program: whole warps along the innermost axis, whose values lie side by side."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def bending(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    n0, n1, n2 = field.shape[1:]
    parts = torch.empty(boxes((3 * n0, n1, n2), _BOX)[::-1], dtype=torch.float32, device=field.device)
    gradient = _run(field, weight, onto, parts)
    return parts.sum() * (weight / (3 * field[0].numel())), gradient


def bending_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """See the package."""
    return _run(field, weight, onto, None)


def _run(field: Field, weight: float, onto: Field | None, parts: Float[Tensor, "a b c"] | None) -> Field:
    given = field.contiguous()
    gradient = onto if onto is not None and onto.is_contiguous() else torch.zeros_like(given)
    laplacian = torch.empty_like(given)
    n0, n1, n2 = given.shape[1:]
    factor = 2 * weight / (3 * given[0].numel())
    grid = boxes((3 * n0, n1, n2), _BOX)
    with torch.cuda.device(given.get_device()):
        _laplacian[grid](given, laplacian, parts, n0, n1, n2, *_BOX, **_OPTIONS)
        _add[grid](given, laplacian, gradient, n0, n1, n2, factor, *_BOX, **_OPTIONS)
    return gradient if onto is None or onto is gradient else onto.add_(gradient)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _laplacian(u, out, parts, n0, n1, n2, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    """Write the negative Laplacian of each component, and the sum of squared second differences of each program."""
    plane, j, k, node, here = nodes_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + node, mask=here, other=0.0)
    tl.store(out + node, excess(u, value, node, i, j, k, n0, n1, n2, here), mask=here)
    if parts is not None:
        step0, step1 = (node * 0 + n1) * n2, node * 0 + n2
        total = _along(u, value, node, step0, here & (i > 0) & (i < n0 - 1))
        total += _along(u, value, node, step1, here & (j > 0) & (j < n1 - 1))
        total += _along(u, value, node, node * 0 + 1, here & (k > 0) & (k < n2 - 1))
        total += 2 * _across(u, value, node, step0, step1, here & (i < n0 - 1) & (j < n1 - 1))
        total += 2 * _across(u, value, node, step0, node * 0 + 1, here & (i < n0 - 1) & (k < n2 - 1))
        total += 2 * _across(u, value, node, step1, node * 0 + 1, here & (j < n1 - 1) & (k < n2 - 1))
        tl.store(parts + program(), tl.sum(total, 0))


@no_type_check
@triton.jit
def _along(u, value, node, step, inside):
    """Squared second difference along an axis."""
    after, before = tl.load(u + node + step, mask=inside, other=0.0), tl.load(u + node - step, mask=inside, other=0.0)
    difference = tl.where(inside, (after - value) + (before - value), 0.0)
    return difference * difference


@no_type_check
@triton.jit
def _across(u, value, node, step, other, inside):
    """Squared difference along an axis of the differences along another one."""
    one, two = tl.load(u + node + step, mask=inside, other=0.0), tl.load(u + node + other, mask=inside, other=0.0)
    both = tl.load(u + node + step + other, mask=inside, other=0.0)
    difference = tl.where(inside, (both - one) - (two - value), 0.0)
    return difference * difference


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _add(u, laplacian, out, n0, n1, n2, factor, box0: tl.constexpr, box1: tl.constexpr, box2: tl.constexpr):
    plane, j, k, node, here = nodes_of_box(3 * n0, n1, n2, box0, box1, box2)
    i = plane % n0
    value = tl.load(u + node, mask=here, other=0.0)
    total = excess(laplacian, tl.load(laplacian + node, mask=here, other=0.0), node, i, j, k, n0, n1, n2, here)
    total += _at_the_ends(u, value, node, (node * 0 + n1) * n2, i, n0, here)
    total += _at_the_ends(u, value, node, node * 0 + n2, j, n1, here)
    total += _at_the_ends(u, value, node, node * 0 + 1, k, n2, here)
    tl.store(out + node, tl.load(out + node, mask=here, other=0.0) + factor * total, mask=here)


@no_type_check
@triton.jit
def _at_the_ends(u, value, node, step, index, n, here):
    """Take the first differences at both ends of an axis out of the gradient."""
    several = here & (index < 2 * n - 2)  # nodes along this axis
    low, high = several & (index <= 1), several & (index >= n - 2)
    partner = tl.load(u + node + step * (1 - 2 * index), mask=low, other=0.0)
    total = tl.where(low, partner - value, 0.0)
    partner = tl.load(u + node + step * (2 * (n - 1 - index) - 1), mask=high, other=0.0)
    return total + tl.where(high, partner - value, 0.0)
