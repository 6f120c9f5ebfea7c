"""What is minimised on one level: a similarity plus regularisers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import reduce
from typing import Any, final

import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.protocols import DisplacementState, HasCurvature, Objective, Regulariser, SimilarityTerm
from convexadam.continuous.regularisers import Diffusion
from convexadam.continuous.restriction import RestrictedState
from convexadam.kernels.diffusion import diffusion
from convexadam.kernels.recording import recordable

_RESOLUTION = 0.01
"""Control points. Gradients that stand for less are noise to Adam, which would scale them to full steps."""


@final
class RegistrationObjective:
    """Value, gradient and curvature of a similarity plus regularisers; see `convexadam.continuous.Objective`.

    Parameters
    ----------
    term
        The similarity, lower is better.
    regularisers
        Costs of the displacement alone.
    compared
        Both feature maps, or tensors of their device and type, and both weights.
    soft_mask
        Where volume is to be preserved, ``[i, j, k]`` in [0, 1].
    """

    def __init__(
        self,
        term: SimilarityTerm,
        regularisers: Sequence[Regulariser],
        compared: tuple[Tensor, Tensor, Volume | None, Volume | None],
        *,
        soft_mask: Volume | None = None,
    ) -> None:
        self.compared = compared
        self._term, self._soft_mask = term, soft_mask
        self._diffusion, self._others = 0.0, list(regularisers)
        if _fuses_diffusion(term):  # the library's kernels add the gradient of first differences nearly for free
            self._diffusion = sum((r.weight for r in regularisers if isinstance(r, Diffusion)), 0.0)
            self._others = [r for r in regularisers if not isinstance(r, Diffusion)]
        self._fused: dict[str, Any] = {"diffusion": self._diffusion} if self._diffusion else {}

    @property
    def is_recordable(self) -> bool:
        """Whether it is made of the library's components, none of which keeps count on the host."""
        return all(type(part).__module__.startswith("convexadam.") for part in (self._term, *self._others))

    def __call__(self, displacement: Field, *, out: Field) -> tuple[Float[Tensor, ""], Field]:
        """Return the value, and the gradient in ``out``."""
        value, gradient = self._term(displacement, out=out, **self._fused)
        return self._regularise(value, displacement, gradient), gradient

    def gradient(self, displacement: Field, *, out: Field) -> Field:
        """Return the gradient, in ``out``."""
        gradient = self._term.gradient(displacement, out=out, **self._fused)
        for regulariser in self._others:
            regulariser(displacement, add_to=gradient, soft_mask=self._soft_mask)
        return gradient

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"], Float[Tensor, ""]]:
        """Return the value; in ``out`` gradient and mean curvature of each control point; the scale of the latter.

        Regularisers with `HasCurvature` add to the curvature. The scale is the mean over control points for the
        similarity alone, so that a regulariser that is stiff in one place does not change the damping elsewhere.
        """
        value, derivatives = self._term.curvature(displacement, out=out, **self._fused)
        if (share := _share_of_axes(displacement)) != 1:
            derivatives[3].mul_(share)
        total, scale = self._regularise(value, displacement, derivatives[:3]), derivatives[3].mean()
        for regulariser in self._others:
            if isinstance(regulariser, HasCurvature):
                regulariser.curvature(displacement, add_to=derivatives[3], soft_mask=self._soft_mask)
        return total, derivatives, scale

    def least_gradient(self, displacement: Field) -> float | Float[Tensor, ""]:
        """Return the gradient that an error of `_RESOLUTION` control points causes at the mean curvature.

        A fixed number, as usual for Adam's ``eps``, would mean another length for each kind of image. On a GPU it stays
        there.
        """
        mean = mean_curvature(self._term, displacement)
        if mean.is_cuda:
            return (_RESOLUTION * mean).masked_fill_(mean <= 0, 1.0)
        return _RESOLUTION * float(mean) if mean > 0 else 1.0

    def _regularise(self, value: Float[Tensor, ""], displacement: Field, gradient: Field) -> Float[Tensor, ""]:
        """Add the cost of the displacement alone; its gradient is added, except where the similarity added it."""
        costs = [diffusion(displacement, weight=self._diffusion)[0]] if self._diffusion else []
        costs += [
            regulariser(displacement, add_to=gradient, soft_mask=self._soft_mask)[0] for regulariser in self._others
        ]
        return value.double() + reduce(torch.add, [cost.double() for cost in costs]) if costs else value


def is_recordable(objective: Objective, state: DisplacementState, convergence: Convergence) -> bool:
    """Whether the steps of a minimisation are recorded as a CUDA graph.

    Components from outside the library may keep state on the host, which a recording would freeze.
    """
    state = state.inner if isinstance(state, RestrictedState) else state
    known = objective.is_recordable and type(state).__module__.startswith("convexadam.")
    return (
        known and not convergence.monitored and recordable(*objective.compared, iterations=convergence.max_iterations)
    )


def mean_curvature(term: SimilarityTerm, displacement: Field) -> Float[Tensor, ""]:
    """Mean curvature of a similarity over the control points that have any; 0 if none has."""
    curvature = curvature_of_points(term, displacement)
    return curvature.sum() / (curvature > 0).sum().clamp_min(1)


def curvature_of_points(term: SimilarityTerm, displacement: Field) -> Volume:
    """Curvature of a similarity at each control point."""
    curvature, share = term.curvature(displacement)[1][3], _share_of_axes(displacement)
    return curvature if share == 1 else curvature.mul_(share)


def _share_of_axes(displacement: Field) -> float:
    """Return three over the number of axes with several control points: along others there is no curvature."""
    return 3 / (sum(n > 1 for n in displacement.shape[1:]) or 3)


def _fuses_diffusion(term: SimilarityTerm) -> bool:
    return "diffusion" in inspect.signature(term.gradient).parameters
