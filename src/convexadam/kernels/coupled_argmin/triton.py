"""The coupled argmin on GPUs: a program holds a block of cells in registers while all displacements pass by.

Costs are read once and the sums are never stored, so that memory traffic is the volume of costs and nothing else. A
tile of several displacements is in flight at a time: each has its own running minimum, and those are merged at the end.
"""

from __future__ import annotations

import functools
from typing import no_type_check

import numpy as np
import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.window import Window

# Fixed sizes, no tuning at run time: the first call must not take seconds. To tune, time these three by shape here.
_BLOCK_CELLS = 64  # two lines of 128 bytes for each displacement
_BLOCK_LABELS = 16  # 1024 costs in flight, eight for each thread
_WARPS = 4


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    subcell: bool = False,
) -> Field:
    """See the package."""
    shape, cells = costs.shape[1:], costs[0].numel()
    costs = costs.contiguous()
    found = torch.empty((3, *shape), dtype=torch.float32, device=costs.device)
    table = _table(window, costs.device)
    with torch.cuda.device_of(costs):  # type: ignore[no-untyped-call]  # nothing happens on the CPU
        _cells[(triton.cdiv(cells, _BLOCK_CELLS),)](
            costs,
            costs if toward is None else toward.contiguous(),
            table,
            found,
            cells,
            table.shape[1],
            float(theta),
            pulled=toward is not None,
            subcell=subcell,
            block_labels=_BLOCK_LABELS,
            block_cells=_BLOCK_CELLS,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # said aloud: the default changes between versions, with a warning
        )
    return found


@functools.lru_cache(maxsize=32)
def _table(window: Window, device: torch.device) -> Tensor:
    """Return number, displacement and numbers of the six steps beside it, ``[10, n]``, short displacements first.

    Of equal costs the first one wins. Kept, because a copy to the device waits for it.
    """
    order = window.by_length
    rows = np.concatenate([order[None], window.table[order].T, window.beside[order].reshape(-1, 6).T])
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int32)).to(device)


@no_type_check
@triton.jit
def _cells(
    costs,
    toward,
    table,
    out,
    cells,
    labels,
    theta,
    pulled: tl.constexpr,
    subcell: tl.constexpr,
    block_labels: tl.constexpr,
    block_cells: tl.constexpr,
):
    """Displacements of ``block_cells`` cells; labels are counted in the order of ``table``."""
    cell = tl.program_id(0).to(tl.int64) * block_cells + tl.arange(0, block_cells)
    here = cell < cells
    want0 = tl.zeros((block_cells,), tl.float32)
    want1 = tl.zeros((block_cells,), tl.float32)
    want2 = tl.zeros((block_cells,), tl.float32)
    if pulled:
        want0 = tl.load(toward + cell, mask=here, other=0.0)
        want1 = tl.load(toward + cells + cell, mask=here, other=0.0)
        want2 = tl.load(toward + cells + cells + cell, mask=here, other=0.0)
    best = tl.full((block_labels, block_cells), float("inf"), tl.float32)
    number = tl.zeros((block_labels, block_cells), tl.int32)
    for first in range(0, labels, block_labels):
        candidate = first + tl.arange(0, block_labels)
        known = candidate < labels
        place = tl.load(table + candidate, mask=known, other=0).to(tl.int64)
        at = costs + place[:, None] * cells + cell[None, :]
        total = tl.load(at, mask=known[:, None] & here[None, :], other=float("inf")).to(tl.float32)
        if pulled:
            step0 = tl.load(table + labels + candidate, mask=known, other=0)
            step1 = tl.load(table + 2 * labels + candidate, mask=known, other=0)
            step2 = tl.load(table + 3 * labels + candidate, mask=known, other=0)
            pull = _pull(want0[None, :], step0[:, None], theta) + _pull(want1[None, :], step1[:, None], theta)
            total += pull + _pull(want2[None, :], step2[:, None], theta)
        better = total < best
        best = tl.where(better, total, best)
        number = tl.where(better, candidate[:, None], number)
    least = tl.min(best, axis=0)
    number = tl.where(best == least[None, :], number, labels)
    chosen = tl.minimum(tl.min(number, axis=0), labels - 1)
    place = tl.load(table + chosen, mask=here, other=0)
    step0 = tl.load(table + labels + chosen, mask=here, other=0)
    step1 = tl.load(table + 2 * labels + chosen, mask=here, other=0)
    step2 = tl.load(table + 3 * labels + chosen, mask=here, other=0)
    found0, found1, found2 = step0.to(tl.float32), step1.to(tl.float32), step2.to(tl.float32)
    if subcell:
        beside = table + 4 * labels + chosen
        found0 += _parabola(costs, cell, here, cells, place, beside, labels, step0, want0, theta, pulled)
        found1 += _parabola(costs, cell, here, cells, place, beside + 2 * labels, labels, step1, want1, theta, pulled)
        found2 += _parabola(costs, cell, here, cells, place, beside + 4 * labels, labels, step2, want2, theta, pulled)
    tl.store(out + cell, found0, mask=here)
    tl.store(out + cells + cell, found1, mask=here)
    tl.store(out + cells + cells + cell, found2, mask=here)


@no_type_check
@triton.jit
def _pull(want, step, theta):
    apart = want - step.to(tl.float32)
    return theta * (apart * apart)


@no_type_check
@triton.jit
def _parabola(costs, cell, here, cells, place, beside, labels, step, want, theta, pulled: tl.constexpr):
    """Where the parabola through the chosen cost and those beside it is lowest, in [-1/2, 1/2].

    Differences to the chosen cost are fitted, not costs: the curvature is small beside them.
    """
    below, above = tl.load(beside, mask=here, other=-1), tl.load(beside + labels, mask=here, other=-1)
    between = here & (below >= 0) & (above >= 0)
    middle = tl.load(costs + place.to(tl.int64) * cells + cell, mask=between, other=0.0).to(tl.float32)
    low = tl.load(costs + below.to(tl.int64) * cells + cell, mask=between, other=0.0).to(tl.float32) - middle
    high = tl.load(costs + above.to(tl.int64) * cells + cell, mask=between, other=0.0).to(tl.float32) - middle
    if pulled:
        pull = _pull(want, step, theta)
        low += _pull(want, step - 1, theta) - pull
        high += _pull(want, step + 1, theta) - pull
    curvature = low + high
    fitted = (low - high) / (2.0 * tl.maximum(curvature, 1.1754944e-38))
    return tl.where(between & (curvature > 0.0), tl.minimum(tl.maximum(fitted, -0.5), 0.5), 0.0)
