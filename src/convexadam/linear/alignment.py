"""Linear alignment: least-squares fits to the displacements of a coupled-convex search, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, final, get_args

import numpy as np

from convexadam._checks import check_choice, check_count, check_number
from convexadam.errors import ConfigError
from convexadam.features import Features, MindSSC, Precomputed, check_extractor
from convexadam.geometry import Affine, Grid, Image
from convexadam.linear.centres import geometric_centre
from convexadam.linear.fit import Model, fit_trimmed
from convexadam.linear.level import LinearLevel

Init: TypeAlias = Literal["best", "header", "geometry", "moments"]

_MODELS: tuple[Model, ...] = get_args(Model)
"""From the simplest to the richest."""

_CONVERGED = 0.05
"""Largest displacement by an update, in units of the control point spacing, at which the fits have converged."""

_MAX_VOLUME_CHANGE = 8.0
"""Change of volume, as a factor, beyond which a fit is rejected: it is a fit to noise."""

_COARSE_RADIUS, _FINE_RADIUS = 6, 4
"""Search radius in control points, on the coarsest level and on the others."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LinearFit:
    """Result of a linear alignment.

    Attributes
    ----------
    transform
        From fixed to moving space.
    model
        Model of ``transform``; ``None`` if the initial transform was kept.
    dissimilarity_before, dissimilarity_after
        Mean squared feature difference with the initial transform and with ``transform``, on the finest level that was
        computed: 0 for equal images, about 1 for unrelated ones.
    residual_mm
        Root mean square distance between ``transform`` and the displacements of the inliers that it was fitted to; 0
        if the initial transform was kept.
    """

    transform: Affine
    model: Model | None
    dissimilarity_before: float
    dissimilarity_after: float
    residual_mm: float


@final
@dataclass(frozen=True, kw_only=True)
class LinearAlignment:
    """Rigid, similarity or affine alignment, robust to local deformation and to different contrasts.

    On each level, coarse to fine: features of both images are extracted, the coupled-convex search finds a displacement
    for each control point, and a trimmed least-squares fit to those with enough structure updates the transform; the
    moving image is resampled with it and the next iteration follows. If the coarsest level does not show the
    ``min_improvement``, the initial transform is kept and the finer levels are skipped.

    Attributes
    ----------
    model
        Richest model: ``"rigid"`` (6 parameters), ``"similarity"`` (7) or ``"affine"`` (12).
    init
        Initial transform: ``"header"`` (identity in world coordinates), ``"geometry"`` (aligns the centres of the
        fields of view), ``"moments"`` (aligns the centres of mass) or ``"best"`` (tries all three). Ignored if an
        initial transform is given.
    features
        Feature extractor; ``None`` selects MIND-SSC of radius and dilation 1 for images of one channel, and the
        channels themselves for others.
    voxels_per_level
        Approximate number of voxels of each level; no level is finer than the fixed image.
    iterations
        Largest number of fits on each level.
    min_improvement
        Share by which the dissimilarity has to decrease for the initial transform to be replaced. Small misalignments
        are left to the deformable stages, and an image that is not resampled stays sharp.
    min_model_improvement
        Share by which the dissimilarity has to decrease for a richer model to be preferred to a simpler one.
    inlier_fraction
        Share of the control points with structure that the fit uses; the others count as outliers.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    model: Model = "affine"
    init: Init = "best"
    features: Features | None = None
    voxels_per_level: tuple[int, ...] = (50_000, 400_000)
    iterations: int = 3
    min_improvement: float = 0.35
    min_model_improvement: float = 0.25
    inlier_fraction: float = 0.5

    def __post_init__(self) -> None:
        check_choice(self.model, "model", get_args(Model))
        check_choice(self.init, "init", get_args(Init))
        if self.features is not None:
            check_extractor(self.features, "features", pairs=False)
        if not isinstance(self.voxels_per_level, tuple) or not self.voxels_per_level:
            raise ConfigError(
                f"voxels_per_level must be a tuple with a number for each level, got {self.voxels_per_level!r}; "
                "write for example (50_000, 400_000)"
            )
        for number in self.voxels_per_level:
            check_count(number, "voxels_per_level", least=1)
        check_count(self.iterations, "iterations", least=1)
        check_number(self.inlier_fraction, "inlier_fraction", above=True)
        check_number(self.min_improvement, "min_improvement")
        check_number(self.min_model_improvement, "min_model_improvement")
        if self.inlier_fraction > 1:
            raise ConfigError(
                f"inlier_fraction must be at most 1, got {self.inlier_fraction}; 1 uses all control points"
            )

    def __call__(
        self,
        fixed: Image,
        moving: Image,
        *,
        fixed_mask: Image | None = None,
        moving_mask: Image | None = None,
        initial: Affine | None = None,
    ) -> LinearFit:
        """Align two images.

        Parameters
        ----------
        fixed, moving
            ``[c, i, j, k]`` on any grids.
        fixed_mask, moving_mask
            Weight of each voxel, 0 or 1 (integers) or in [0, 1], on any grids.
        initial
            Initial transform from fixed to moving space; ``None`` computes it as ``init`` says.

        Returns
        -------
        The transform from fixed to moving space; ``initial`` or the identity if no better one is found.
        """
        masks, features = (fixed_mask, moving_mask), self.features
        if features is None:
            features = MindSSC(radius=1, dilation=1) if fixed.data.shape[0] == 1 else Precomputed()
        prepare_coarse, *prepare_finer = (
            partial(
                LinearLevel.prepare,
                fixed,
                moving,
                features,
                voxels,
                radius=_FINE_RADIUS if n else _COARSE_RADIUS,
                masks=masks,
            )
            for n, voxels in enumerate(self.voxels_per_level)
        )
        level = prepare_coarse()
        fallback = Affine() if initial is None else initial
        candidates = [fallback] if initial is not None else self._make_candidates(level, fixed.grid, moving.grid)
        model: Model = "rigid" if self.model == "rigid" else "similarity"
        fits = [self._fit(level, candidate.matrix, model) for candidate in candidates]
        best, matrix = min(((level.compute_dissimilarity(fit), fit) for fit in fits), key=lambda pair: pair[0].mean)
        before = level.compute_dissimilarity(fallback.matrix)
        if not best.improves_on(before, self.min_improvement):  # nor would it on the finer levels
            return LinearFit(
                transform=fallback,
                model=None,
                dissimilarity_before=before.mean,
                dissimilarity_after=before.mean,
                residual_mm=0.0,
            )
        for prepare in prepare_finer:
            level = prepare()
            matrix = self._fit(level, matrix, self.model)
        return self._select_model(level, fallback, matrix)

    def _fit(self, level: LinearLevel, matrix: np.ndarray, model: Model) -> np.ndarray:
        for _ in range(self.iterations):
            points, targets, weights = level.find_matches(matrix)
            if not weights.any():
                break
            update, _ = fit_trimmed(points, targets, weights, model=model, inlier_fraction=self.inlier_fraction)
            if not _is_plausible(matrix @ update):
                break
            matrix = matrix @ update
            disp_mm = points @ (update[:3, :3] - np.eye(3)).T + update[:3, 3]
            if np.linalg.norm(disp_mm, axis=1).max() < _CONVERGED * level.spacing_mm:
                break
        return matrix

    def _select_model(self, level: LinearLevel, fallback: Affine, matrix: np.ndarray) -> LinearFit:
        """Choose the initial transform, or the simplest model that no richer one improves on by enough."""
        before = best = level.compute_dissimilarity(fallback.matrix)
        best_matrix, best_model, best_residual_mm = fallback.matrix, None, 0.0
        points, targets, weights = level.find_matches(matrix)
        moving_points = targets @ matrix[:3, :3].T + matrix[:3, 3]
        for model in _MODELS[: _MODELS.index(self.model) + 1] if weights.any() else ():
            fit, residual_mm = fit_trimmed(
                points, moving_points, weights, model=model, inlier_fraction=self.inlier_fraction
            )
            if not _is_plausible(fit):
                continue
            dissimilarity = level.compute_dissimilarity(fit)
            required = self.min_improvement if best_model is None else self.min_model_improvement
            if dissimilarity.improves_on(best, required):
                best, best_matrix, best_model, best_residual_mm = dissimilarity, fit, model, residual_mm
        if best_model is not None and best_model != self.model:
            # a simpler model was fitted to displacements found with the richest one: iterate with its own
            best_matrix = self._fit(level, best_matrix, best_model)
            best = level.compute_dissimilarity(best_matrix)
        return LinearFit(
            transform=fallback if best_model is None else Affine(best_matrix),
            model=best_model,
            dissimilarity_before=before.mean,
            dissimilarity_after=best.mean,
            residual_mm=best_residual_mm,
        )

    def _make_candidates(self, level: LinearLevel, fixed: Grid, moving: Grid) -> list[Affine]:
        """Return the initial transforms of ``init``, without those that nearly coincide."""
        translations_mm = [np.zeros(3)] if self.init in ("best", "header") else []
        if self.init in ("best", "geometry"):
            translations_mm.append(geometric_centre(moving.canonical()) - geometric_centre(fixed.canonical()))
        if self.init in ("best", "moments"):
            translations_mm.append(level.centre_offset_mm)
        candidates: list[Affine] = []
        for translation_mm in translations_mm:
            matrix = np.eye(4)
            matrix[:3, 3] = translation_mm
            if all(np.abs(matrix - candidate.matrix).max() > level.spacing_mm for candidate in candidates):
                candidates.append(Affine(matrix))
        return candidates


def _is_plausible(matrix: np.ndarray) -> bool:
    return bool(1 / _MAX_VOLUME_CHANGE < np.linalg.det(matrix[:3, :3]) < _MAX_VOLUME_CHANGE)
