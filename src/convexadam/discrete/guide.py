"""Corresponding points in a cost volume."""

from __future__ import annotations

import torch

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels.pairs import Pairs
from convexadam.kernels.window import Window

_CELLS = 4096
"""As many are looked at, about, to find the scale of costs."""


def add_pairs(costs: Float[Tensor, "n i j k"], window: Window, pairs: Pairs) -> None:
    """Add ``curvature w_n g_n(x) |d - t_n|^2`` to the costs of each cell ``x`` and displacement ``d``, in place.

    ``g_n`` is the Gaussian of a point, up to 1, and the curvature that of the image (`mean_curvature`). The least cost
    that a pair adds to a cell is 0. With an outlier distance ``t`` the squared distance ``r`` is ``r / (1 + r / t^2)``.
    What half precision does not hold becomes its largest number.

    Parameters
    ----------
    costs
        ``[n, i, j, k]`` in the order of ``window.steps``.
    window
        The displacements, in cells.
    pairs
        On the cells.
    """
    shape: Triple = (costs.shape[1], costs.shape[2], costs.shape[3])
    kind = torch.promote_types(costs.dtype, torch.float32)
    scale = mean_curvature(costs, window)
    steps = torch.from_numpy(window.table).double()
    squared = (steps[None] - pairs.displacements[:, None]).square().sum(2)
    added = scale * pairs.weights[:, None] * squared / (1 + squared / pairs.outlier**2)
    most = torch.finfo(costs.dtype).max
    added = (added - added.amin(1, keepdim=True)).clamp_max_(most).to(costs.device, kind)
    nodes, shares = pairs.around(shape)
    rows = [
        torch.zeros((len(at), n), dtype=torch.float64, device="cpu").scatter_add_(1, at, share)
        for n, at, share in zip(shape, nodes, shares, strict=True)
    ]
    for number, of_step in enumerate(added):
        first = [int(at[number, 0]) for at in nodes]
        i, j, k = (slice(f, int(at[number, -1]) + 1) for f, at in zip(first, nodes, strict=True))
        in_i, in_j, in_k = rows[0][number, i], rows[1][number, j], rows[2][number, k]
        near = (pairs.mass * in_i[:, None, None] * in_j[:, None] * in_k).clamp_max_(1).to(added)
        block = costs[:, i, j, k]
        block.copy_(torch.addcmul(block.to(kind), of_step[:, None, None, None], near).clamp_max_(most))


def mean_curvature(costs: Float[Tensor, "n i j k"], window: Window) -> float:
    """Cost per squared cell: what the mean displacement costs more than the best one, over its mean squared length.

    Of the cells, perhaps a part of them, where displacements differ at all; 0 where they do nowhere.
    """
    every = costs.flatten(1)
    some = every[:, :: max(1, every.shape[1] // _CELLS)].to(torch.promote_types(costs.dtype, torch.float32))
    excess = some.mean(0) - some.amin(0)
    squared = float((window.table**2).sum(1).mean())
    return float(excess.sum() / (excess > 0).sum().clamp_min(1)) / squared if squared > 0 else 0.0
