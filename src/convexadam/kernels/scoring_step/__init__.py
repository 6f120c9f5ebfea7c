"""Step of Fisher scoring over the linear transforms of two images, and what follows from the value after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._typing import Float, Tensor
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.mutual_information import MutualInformation

__all__ = ["ScoringState", "judge_step", "propose_step"]


@final
@dataclass(frozen=True, eq=False)
class ScoringState:
    """What a maximisation knows, float64 tensors that `judge_step` overwrites.

    Attributes
    ----------
    placement
        Maps from points to fixed and to moving space, ``[2, 4, 4]``; the transform is ``moving fixed^-1``.
    current
        Mutual information there, with derivatives.
    factor
        By which a step is longer than the information says.
    """

    placement: Float[Tensor, "2 4 4"]
    current: MutualInformation
    factor: Float[Tensor, ""]


def propose_step(
    state: ScoringState, generators: Float[Tensor, "k 4 4"], *, ridge: float, least: float
) -> tuple[Float[Tensor, " k"], Float[Tensor, "2 4 4"]]:
    """Solve ``(information + damping) step = factor gradient``, and move both images by half, in opposite directions.

    The moving image is moved by ``exp(sum_k step_k G_k / 2)``, the fixed one by its inverse. The damping is a diagonal
    of ``ridge`` times each diagonal entry and their mean, plus ``least``.

    Parameters
    ----------
    state
        See `ScoringState`.
    generators
        ``G_k`` of the model, float64, at most 12, with last row 0.
    ridge
        Share of the diagonal, so that a direction without slope is left alone.
    least
        Information added to all parameters.

    Returns
    -------
    The step, and the placement after it.
    """
    module = get_implementation(__name__, generators.new_empty(0, dtype=torch.float32))
    result: tuple[Float[Tensor, " k"], Float[Tensor, "2 4 4"]] = module.propose_step(
        state, generators, ridge=ridge, least=least
    )
    return result


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
    """Accept a step if the value rises, and adapt the factor; changes ``state`` in place.

    After an accepted step the factor is the ratio of information to curvature along it (Barzilai and Borwein, IMA J.
    Numer. Anal. 1988), within ``factors``; a rejected step lowers it by ``fall``.
    """
    module = get_implementation(__name__, generators.new_empty(0, dtype=torch.float32))
    module.judge_step(state, proposed, new, step, generators, factors=factors, fall=fall)
