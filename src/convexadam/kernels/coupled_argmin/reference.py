"""The coupled argmin in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.box_mean import box_mean
from convexadam.kernels.window import Window


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    unit: Float[Tensor, ""] | None = None,
    parabolic_fit: bool = False,
    average: bool = False,
) -> Field:
    """See the package."""
    theta *= 1.0 if unit is None else float(unit) ** 2
    toward = box_mean(toward) if average and toward is not None else toward
    costs = costs.float() if costs.dtype in (torch.float16, torch.bfloat16) else costs
    terms = None if toward is None else [_coupling_terms(toward[a], r, theta) for a, r in enumerate(window.radius)]
    chosen = _choose(costs, window, terms)
    steps = torch.from_numpy(window.table).to(costs.device)[chosen].movedim(-1, 0)
    displacement = steps.to(costs.dtype).contiguous()
    if parabolic_fit:
        displacement += _parabola_offsets(costs, window, chosen, steps, terms)
    return displacement


@torch.no_grad()
def _choose(costs: Tensor, window: Window, terms: list[Tensor] | None) -> Tensor:
    """Return the number of the displacement of least cost at each control point, which has no gradient."""
    best = torch.full_like(costs[0], torch.inf)
    chosen = torch.zeros(costs.shape[1:], dtype=torch.int64, device=costs.device)
    total = torch.empty_like(best)
    for number in window.length_order.tolist():
        if terms is None:
            total = costs[number]
        else:
            a, b, c = (s + r for s, r in zip(window.steps[number], window.radius, strict=True))
            torch.add(terms[0][a], terms[1][b], out=total)
            total.add_(terms[2][c]).add_(costs[number])
        chosen.masked_fill_(total < best, number)
        torch.minimum(best, total, out=best)
    return chosen


def _parabola_offsets(
    costs: Tensor, window: Window, chosen: Tensor, steps: Tensor, terms: list[Tensor] | None
) -> Tensor:
    """Compute the vertex of the parabola through the minimum and its two neighbours, in [-1/2, 1/2] for each axis."""
    middle = costs.gather(0, chosen[None])[0]
    neighbours = torch.from_numpy(window.neighbours).to(costs.device)[chosen]
    offsets = torch.zeros(steps.shape, dtype=costs.dtype, device=costs.device)
    for axis, radius in enumerate(window.radius):
        inside = (neighbours[..., axis, :] >= 0).all(-1)
        sides = []
        for side, step in enumerate((-1, 1)):
            difference = costs.gather(0, neighbours[..., axis, side].clamp_min(0)[None])[0] - middle
            if terms is not None:
                at = steps[axis] + radius
                term = terms[axis].gather(0, (at + step).clamp(0, 2 * radius)[None])[0]
                difference += term - terms[axis].gather(0, at[None])[0]
            sides.append(difference)
        curvature = sides[0] + sides[1]
        vertex = (sides[0] - sides[1]) / (2 * curvature.clamp_min(torch.finfo(costs.dtype).tiny))
        offsets[axis] = torch.where(inside & (curvature > 0), vertex.clamp(-0.5, 0.5), 0.0)
    return offsets


def _coupling_terms(component: Float[Tensor, "i j k"], radius: int, theta: float) -> Float[Tensor, "width i j k"]:
    return torch.stack([(component - d).square() * theta for d in range(-radius, radius + 1)])
