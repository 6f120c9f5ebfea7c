"""A step of Fisher scoring in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convexadam._typing import Float, Tensor

if TYPE_CHECKING:
    from convexadam.kernels.mutual_information import MutualInformation
    from convexadam.kernels.scoring_step import ScoringState


def propose_step(
    state: ScoringState, generators: Float[Tensor, "k 4 4"], *, ridge: float, least: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, "2 4 4"]]:
    """See the package."""
    entries = _entries(generators)
    gradient, information = entries @ state.current.gradient.flatten(), entries @ state.current.information @ entries.T
    diagonal = information.diagonal()
    damping = torch.diag(ridge * (diagonal + diagonal.mean()) + least)
    step = state.factor * torch.linalg.solve_ex(information + damping, gradient)[0]
    half = torch.linalg.matrix_exp((step[:, None, None] * generators).sum(0) / 2)
    return step, torch.stack([state.placement[0] @ torch.linalg.inv(half), state.placement[1] @ half])


def judge_step(
    state: ScoringState,
    proposed: Float[Tensor, "2 4 4"],
    new: MutualInformation,
    step: Float[Tensor, " k"],
    generators: Float[Tensor, "k 4 4"],
    *,
    factors: tuple[float, float],
    fall: float,
) -> None:
    """See the package."""
    entries, current = _entries(generators), state.current
    gradient, information = entries @ current.gradient.flatten(), entries @ current.information @ entries.T
    accept = new.value > current.value
    # the curvature along the step, of which the information is an estimate
    change = step @ (gradient - entries @ new.gradient.flatten())
    ratio = torch.where(change > 0, (step @ (information @ step)) / change, factors[1])
    state.factor.copy_(torch.where(accept, ratio.clamp(*factors), state.factor * fall))
    state.placement.copy_(torch.where(accept, proposed, state.placement))
    for old, value in zip(current, new, strict=True):
        old.copy_(torch.where(accept, value, old))


def _entries(generators: Float[Tensor, "k 4 4"]) -> Float[Tensor, "k 12"]:
    return generators[:, :3].reshape(len(generators), 12)
