"""The coupled argmin in torch."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Field, Float, Tensor


def coupled_argmin(
    costs: Float[Tensor, "di dj dk i j k"], *, toward: Field | None = None, theta: float = 0.0, subcell: bool = False
) -> Field:
    """See the package."""
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
    index = torch.tensor(labels, device=costs.device)[chosen].movedim(-1, 0)
    middle = torch.tensor([w // 2 for w in widths], device=costs.device).reshape(3, 1, 1, 1)
    displacement = (index - middle).to(costs.dtype).contiguous()
    if subcell:
        displacement += _parabola_offsets(costs, index, pulls)
    return displacement


def _parabola_offsets(costs: Tensor, index: Tensor, pulls: list[list[Tensor]] | None) -> Tensor:
    """Where the parabola through the minimum and its two neighbours is lowest, in (-1/2, 1/2) for each axis."""
    widths = costs.shape[:3]
    strides = (widths[1] * widths[2], widths[2], 1)
    flat = costs.reshape(-1, *costs.shape[3:])
    label = index[0] * strides[0] + index[1] * strides[1] + index[2] * strides[2]
    here = flat.gather(0, label[None])[0]
    offsets = torch.zeros_like(index, dtype=costs.dtype)
    for axis, width in enumerate(widths):
        between = (index[axis] > 0) & (index[axis] < width - 1)
        sides = []
        pull = None if pulls is None else torch.stack(pulls[axis])
        for step in (-1, 1):
            beside = flat.gather(0, (label + step * strides[axis]).clamp(0, len(flat) - 1)[None])[0] - here
            if pull is not None:
                at = index[axis]
                beside += pull.gather(0, (at + step).clamp(0, width - 1)[None])[0] - pull.gather(0, at[None])[0]
            sides.append(beside)
        curvature = sides[0] + sides[1]
        fitted = (sides[0] - sides[1]) / (2 * curvature.clamp_min(torch.finfo(costs.dtype).tiny))
        offsets[axis] = torch.where(between & (curvature > 0), fitted.clamp(-0.5, 0.5), 0.0)
    return offsets


def _pulls(component: Tensor, width: int, theta: float) -> list[Tensor]:
    return [(component - (n - width // 2)).square_().mul_(theta) for n in range(width)]
