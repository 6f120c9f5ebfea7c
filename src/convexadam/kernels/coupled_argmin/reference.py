"""The coupled argmin in torch."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Field, Float, Tensor


def coupled_argmin(costs: Float[Tensor, "di dj dk i j k"], *, toward: Field | None = None, theta: float = 0.0) -> Field:
    """Find ``argmin_d C(x, d) + theta |d - toward(x)|^2`` for each cell ``x``; the sum is never stored.

    Parameters
    ----------
    costs
        Finite costs, ``[2 ri + 1, 2 rj + 1, 2 rk + 1, i, j, k]``.
    toward
        Field ``[3, i, j, k]`` in cells; ``None`` leaves the second term out.
    theta
        Weight of the pull, in cost per squared cell.

    Returns
    -------
    Whole-numbered displacements ``[3, i, j, k]`` in cells. Of equal costs the smallest displacement wins.
    """
    widths, shape = costs.shape[:3], costs.shape[3:]
    labels = sorted(
        itertools.product(*(range(w) for w in widths)),
        key=lambda label: sum((n - w // 2) ** 2 for n, w in zip(label, widths, strict=True)),
    )
    pulls = None if toward is None else [_pulls(toward[a], w, theta) for a, w in enumerate(widths)]
    best = torch.full_like(costs[0, 0, 0], torch.inf)
    chosen = torch.zeros(shape, dtype=torch.int64, device=costs.device)
    candidate = torch.empty_like(best)
    for number, (a, b, c) in enumerate(labels):
        if pulls is None:
            candidate = costs[a, b, c]
        else:
            torch.add(pulls[0][a], pulls[1][b], out=candidate)
            candidate.add_(pulls[2][c]).add_(costs[a, b, c])
        chosen.masked_fill_(candidate < best, number)
        torch.minimum(best, candidate, out=best)
    steps = torch.tensor(labels, dtype=costs.dtype, device=costs.device)
    steps -= torch.tensor([w // 2 for w in widths], dtype=costs.dtype, device=costs.device)
    return steps[chosen].movedim(-1, 0).contiguous()


def _pulls(component: Tensor, width: int, theta: float) -> list[Tensor]:
    return [(component - (n - width // 2)).square_().mul_(theta) for n in range(width)]
