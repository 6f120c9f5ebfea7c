"""Iterated fits to the displacements of a search on one level, decided on the device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import final

import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Volume
from convexadam.kernels._device import send_constant
from convexadam.kernels.linear_choice import Candidate, apply_update
from convexadam.kernels.recording import recordable, repeat
from convexadam.kernels.trimmed_fit import MODELS, fit_displacements
from convexadam.linear.level import LinearLevel

_CONVERGED, _NEAR = 0.05, 0.5
"""Largest displacement by an update, in units of the control point spacing, at which the fits have converged, and at
which they are near enough for a refinement."""

_ALIGNED = 4
"""Numbers of 32 bits by which others lie apart: kernels are compiled anew for addresses that 16 bytes do not divide."""


@final
class LevelFitter:
    """Fits on one level, each to the matches that the search finds with the transform of the one before.

    On a GPU all of it is one step, which is recorded, and in which nothing waits: what the host would not compute is
    computed nevertheless. A context manager, because the recording owns memory.

    Parameters
    ----------
    level
        The images.
    inlier_fraction
        See `LinearAlignment`.
    iterations
        Largest number of fits.
    is_refined
        Whether a refinement by mutual information follows.
    can_record
        Whether the features are known not to wait for the device.
    """

    def __init__(
        self, level: LinearLevel, *, inlier_fraction: float, iterations: int, is_refined: bool, can_record: bool
    ) -> None:
        self.level, self._inlier_fraction, self._iterations = level, inlier_fraction, iterations
        self._close = (_NEAR if is_refined else _CONVERGED) * level.spacing_mm
        like = level.control_affine
        self._matrix = torch.empty_like(like)
        self._start: Tensor | None = None
        """Where the dissimilarity is known, on a CPU."""
        self._model = torch.empty((), dtype=torch.int32, device=like.device)
        self._active = torch.ones((), dtype=torch.bool, device=like.device)
        self._identity = send_constant(torch.eye(4, dtype=like.dtype, device="cpu"), like)
        numbers = torch.tensor([*range(len(MODELS)), -1], dtype=torch.int32, device="cpu")
        sent = send_constant(numbers[:, None].repeat(1, _ALIGNED), self._model)
        self._numbers, self.none = sent[:-1], sent[-1, 0]
        self.models = self.number_models()
        record = can_record and recordable(level.fixed, level.structure)
        self._steps = repeat(self._step, itertools.count(), record_on=like.device if record else None)

    def __enter__(self) -> LevelFitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.close()

    def number_models(self, usable: Shaped[Tensor, ""] | None = None) -> list[Shaped[Tensor, ""]]:
        """Return the numbers of the `MODELS` on the device; all -1 if no fit is usable."""
        numbers = self._numbers if usable is None else torch.where(usable, self._numbers, self.none)
        return list(numbers[:, 0].unbind())

    def fit(
        self, matrix: Float[Tensor, "4 4"], model: Shaped[Tensor, ""], known: Sequence[Float[Tensor, "4 4"]] = ()
    ) -> Float[Tensor, "4 4"]:
        """Return a transform after some fits of a model, by its number in `MODELS`; 4x4, mm RAS+.

        It stops early at a transform that is close to one of those ``known``, from other starts.
        """
        self._matrix.copy_(matrix)
        self._model.copy_(model)
        self._active.fill_(True)
        for _ in range(self._iterations):
            next(self._steps)
            if not matrix.is_cuda and not (self._active and all(self._is_far(other) for other in known)):
                break
        return self._matrix.clone()

    def _is_far(self, other: Float[Tensor, "4 4"]) -> bool:
        moved = self.level.corners_mm @ (self._matrix - other).T
        return bool(moved.norm(dim=1).max() > self._close)

    def measure(self, matrix: Float[Tensor, "4 4"], model: Shaped[Tensor, ""]) -> Candidate:
        """Return how unlike the images are with a transform; on a GPU, in memory that the next step overwrites."""
        if matrix.is_cuda:
            self._matrix.copy_(matrix)
            next(self._steps)
        elif self._start is None or not torch.equal(matrix, self._start):
            self._start = matrix
            self._dissimilarity = self.level.compute_dissimilarity(*self.level.extract_moving_features(matrix))
        values, weight = self._dissimilarity
        return Candidate(values=values, weight=weight, matrix=matrix, model=model)

    def find_matches(self, matrix: Float[Tensor, "4 4"]) -> tuple[Field, Volume]:
        """Return displacements of the control points after resampling with a transform, and their weights in a fit."""
        if not matrix.is_cuda:
            return self.level.find_matches(*self.level.extract_moving_features(matrix))
        self._matrix.copy_(matrix)
        next(self._steps)
        return self._disp.clone(), self._weights.clone()

    def fit_to(
        self, matches: tuple[Field, Volume], model: Shaped[Tensor, ""], target_map: Float[Tensor, "4 4"]
    ) -> Float[Tensor, "4 4"]:
        """Fit a transform to matches, which are points of the image that was resampled with ``target_map``."""
        fraction = self._inlier_fraction
        fit = fit_displacements(
            *matches, self.level.control_affine, model=model, inlier_fraction=fraction, target_map=target_map
        )
        return self.level.restriction.project(fit, target_map)

    def _step(self) -> None:
        """Fit once, and replace the matrix; on a GPU, also measure with the matrix before."""
        level, matrix = self.level, self._matrix
        moving, weight = level.extract_moving_features(matrix)
        if matrix.is_cuda:
            self._dissimilarity = level.compute_dissimilarity(moving, weight)
        elif self._start is None:
            self._start, self._dissimilarity = matrix.clone(), level.compute_dissimilarity(moving, weight)
        self._disp, self._weights = level.find_matches(moving, weight)
        update = self.fit_to((self._disp, self._weights), self._model, self._identity)
        apply_update(matrix, self._active, update, level.corners_mm, close=self._close)
