"""Iterated fits to the displacements of a search on one level, decided on the device."""

from __future__ import annotations

import itertools
from types import TracebackType
from typing import final

import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Volume
from convexadam.kernels.recording import recordable, repeat
from convexadam.kernels.trimmed_fit import MODELS, fit_displacements
from convexadam.linear.level import DissimilarityMap, LinearLevel

_CONVERGED = 0.05
"""Largest displacement by an update, in units of the control point spacing, at which the fits have converged."""

_MAX_VOLUME_CHANGE = 8.0
"""Change of volume, as a factor, beyond which a fit is rejected: it is a fit to noise."""


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
    can_record
        Whether the features are known not to wait for the device.
    """

    def __init__(self, level: LinearLevel, *, inlier_fraction: float, iterations: int, can_record: bool) -> None:
        self.level, self._inlier_fraction, self._iterations = level, inlier_fraction, iterations
        like = level.control_affine
        self._matrix = torch.eye(4, dtype=like.dtype, device=like.device)
        self._model = torch.zeros((), dtype=torch.int32, device=like.device)
        self._active = torch.ones((), dtype=torch.bool, device=like.device)
        self._identity = self._matrix.clone()
        self.models = torch.arange(len(MODELS), dtype=torch.int32, device=like.device)
        record = can_record and recordable(level.fixed, level.structure)
        self._steps = repeat(self._step, itertools.count(), record_on=like.device if record else None)

    def __enter__(self) -> LevelFitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._steps.close()

    def fit(self, matrix: Float[Tensor, "4 4"], model: Shaped[Tensor, ""]) -> Float[Tensor, "4 4"]:
        """Return a transform after some fits of a model, by its number in `MODELS`; 4x4, mm RAS+."""
        self._load(matrix, model)
        for _ in range(self._iterations):
            next(self._steps)
            if not matrix.is_cuda and not self._active:
                break
        return self._matrix.clone()

    def measure(self, matrix: Float[Tensor, "4 4"]) -> DissimilarityMap:
        """Return the dissimilarity with a transform."""
        if not matrix.is_cuda:
            return self.level.compute_dissimilarity(*self.level.extract_moving_features(matrix))
        self._load(matrix, self.models[0])
        next(self._steps)
        return DissimilarityMap(values=self._map.values.clone(), weight=self._map.weight.clone())

    def find_matches(self, matrix: Float[Tensor, "4 4"]) -> tuple[Field, Volume]:
        """Return displacements of the control points after resampling with a transform, and their weights in a fit."""
        if not matrix.is_cuda:
            return self.level.find_matches(*self.level.extract_moving_features(matrix))
        self._load(matrix, self.models[0])
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

    def _load(self, matrix: Float[Tensor, "4 4"], model: Shaped[Tensor, ""]) -> None:
        self._matrix.copy_(matrix)
        self._model.copy_(model)
        self._active.fill_(True)

    def _step(self) -> None:
        """Fit once, and replace the matrix; on a GPU, also measure with the matrix before."""
        level, matrix = self.level, self._matrix
        moving, weight = level.extract_moving_features(matrix)
        if matrix.is_cuda:
            self._map = level.compute_dissimilarity(moving, weight)
        self._disp, self._weights = level.find_matches(moving, weight)
        update = self.fit_to((self._disp, self._weights), self._model, self._identity)
        fitted = matrix @ update
        accepted = self._active & is_plausible(fitted)
        longest_mm = (level.corners_mm @ (update - self._identity).T).norm(dim=1).max()
        matrix.copy_(torch.where(accepted, fitted, matrix))
        self._active.copy_(accepted & (longest_mm >= _CONVERGED * level.spacing_mm))


def is_plausible(matrix: Float[Tensor, "4 4"]) -> Shaped[Tensor, ""]:
    """Whether a transform changes volume by a moderate factor."""
    a, b, c = matrix[:3, :3].unbind(1)
    volume: Tensor = torch.linalg.cross(a, b) @ c
    return torch.logical_and(volume > 1 / _MAX_VOLUME_CHANGE, volume < _MAX_VOLUME_CHANGE)
