"""Pre-alignment by fits to displacements that the coupled-convex search finds, coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, final, get_args

import numpy as np

from convexadam._axes import checked_count, checked_number
from convexadam.errors import ConfigError
from convexadam.features import Features, MindSSC, Precomputed, check_no_class
from convexadam.geometry import Affine, Grid, Image
from convexadam.linear.fit import Model, trimmed_fit
from convexadam.linear.level import LinearLevel
from convexadam.linear.starts import centre_of_box

Start: TypeAlias = Literal["best", "header", "boxes", "contents"]

_MODELS: tuple[Model, ...] = ("rigid", "similarity", "affine")

_STILL = 0.05
"""Motion in cells below which another fit would change little."""

_MOST = 8.0
"""Change of volume beyond which a transform cannot be meant."""

_FAR, _NEAR = 6, 4
"""Reach of the search in cells, on the coarsest level and on the others."""


@final
@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A linear transform, and how good it is.

    Attributes
    ----------
    transform
        From fixed to moving space.
    model
        What it is; ``None`` where the start was as good, and is returned.
    difference_before, difference_after
        Feature difference of the start and of ``transform``, on the finest level that was looked at: about 1 for images
        that have nothing to do with each other, 0 for equal ones.
    residual_mm
        Root mean square distance between ``transform`` and the displacements that it was fitted to (those that
        count as inliers); 0 where none were.
    """

    transform: Affine
    model: Model | None
    difference_before: float
    difference_after: float
    residual_mm: float


@final
@dataclass(frozen=True, kw_only=True)
class LinearAlignment:
    """Rigid, similarity or affine alignment, robust to what does not follow it and to different contrasts.

    On each level, coarse to fine, both images are described, the coupled-convex search finds a displacement for each
    cell, and a trimmed least-squares fit to those of the structured cells updates the transform; the moving image is
    then resampled with it, and described anew. Where the coarsest level does not show the ``gain``, the start is kept
    without a look at the finer ones.

    Attributes
    ----------
    model
        ``"rigid"`` (6 numbers), ``"similarity"`` (7) or ``"affine"`` (12).
    start
        Where to begin: ``"header"`` (where the files say that the images lie), ``"boxes"`` (centres of the fields of
        view on each other), ``"contents"`` (centres of mass) or ``"best"`` (tries all three). An initial transform
        takes the place of all of them.
    features
        What is compared; ``None`` takes MIND-SSC of radius and dilation 1 for images of one channel, and the channels
        as they are for others.
    voxels
        Cubic voxels of each level, about; none is finer than the fixed image.
    rounds
        Fits on each level.
    gain
        Share by which a transform has to lower the feature difference to be preferred to the start: what little is
        left, the deformable stages do better, and an image that is not resampled stays sharp.
    richer_gain
        The same for a richer model to be preferred to a simpler one.
    keep
        Share of the structured cells that the fit trusts; the rest may move otherwise.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    model: Model = "affine"
    start: Start = "best"
    features: Features | None = None
    voxels: tuple[int, ...] = (50_000, 400_000)
    rounds: int = 3
    gain: float = 0.35
    richer_gain: float = 0.25
    keep: float = 0.5

    def __post_init__(self) -> None:
        for name, allowed in (("model", get_args(Model)), ("start", get_args(Start))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is one of {', '.join(allowed)}, but {getattr(self, name)!r} came")
        check_no_class(self.features, "features")
        if self.features is not None and not callable(self.features):
            raise ConfigError(f"features describe single images here, which {self.features!r} does not")
        if not isinstance(self.voxels, tuple) or not self.voxels:
            raise ConfigError(
                f"voxels has a number for each level, such as (50_000, 400_000), but {self.voxels!r} came"
            )
        for number in self.voxels:
            checked_count(number, "voxels", least=1)
        checked_count(self.rounds, "rounds", least=1)
        checked_number(self.keep, "keep", above=True)
        checked_number(self.gain, "gain")
        checked_number(self.richer_gain, "richer_gain")
        if self.keep > 1:
            raise ConfigError(f"keep is a share of at most 1, but {self.keep} came")

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
            Weight of evidence, 0 or 1 (whole numbers) or in [0, 1], on any grids.
        initial
            Where to begin, from fixed to moving space; ``None`` leaves that to ``start``.

        Returns
        -------
        The transform from fixed to moving space. Where nothing better was found it is the start: ``initial``, or the
        identity.
        """
        masks, features = (fixed_mask, moving_mask), self.features
        if features is None:
            features = MindSSC(radius=1, dilation=1) if fixed.data.shape[0] == 1 else Precomputed()
        coarse, *finer = (
            partial(LinearLevel.of, fixed, moving, features, number, radius=_NEAR if n else _FAR, masks=masks)
            for n, number in enumerate(self.voxels)
        )
        level = coarse()
        given = Affine() if initial is None else initial
        starts = [given] if initial is not None else self._starts(level, fixed.grid, moving.grid)
        model: Model = "rigid" if self.model == "rigid" else "similarity"
        fitted = [self._fitted(level, start.matrix, model) for start in starts]
        seen, matrix = min(((level.seen(one), one) for one in fitted), key=lambda found: found[0].difference())
        before = level.seen(given.matrix)
        if not seen.better_than(before, self.gain):  # nor will it be on the finer levels
            difference = before.difference()
            return LinearFit(
                transform=given,
                model=None,
                difference_before=difference,
                difference_after=difference,
                residual_mm=0.0,
            )
        for make in finer:
            level = make()
            matrix = self._fitted(level, matrix, self.model)
        return self._simplest(level, given, matrix)

    def _fitted(self, level: LinearLevel, matrix: np.ndarray, model: Model) -> np.ndarray:
        for _ in range(self.rounds):
            points, targets, weights = level.matches(matrix)
            if not weights.any():
                break
            update, _ = trimmed_fit(points, targets, weights, model=model, keep=self.keep)
            if not 1 / _MOST < np.linalg.det((matrix @ update)[:3, :3]) < _MOST:  # fitted to noise
                break
            matrix = matrix @ update
            motion = points @ (update[:3, :3] - np.eye(3)).T + update[:3, 3]
            if np.linalg.norm(motion, axis=1).max() < _STILL * level.cell_mm:
                break
        return matrix

    def _simplest(self, level: LinearLevel, start: Affine, matrix: np.ndarray) -> LinearFit:
        """Choose the start, or the simplest model that no richer one is much better than."""
        before = best = level.seen(start.matrix)
        chosen, name, residual = start.matrix, None, 0.0
        points, targets, weights = level.matches(matrix)
        there = targets @ matrix[:3, :3].T + matrix[:3, 3]
        for model in _MODELS[: _MODELS.index(self.model) + 1] if weights.any() else ():
            found, rest = trimmed_fit(points, there, weights, model=model, keep=self.keep)
            if not 1 / _MOST < np.linalg.det(found[:3, :3]) < _MOST:
                continue
            seen = level.seen(found)
            if seen.better_than(best, self.gain if name is None else self.richer_gain):
                chosen, name, residual, best = found, model, rest, seen
        if name is not None and name != self.model:  # so far fitted to what the richest model had left
            chosen = self._fitted(level, chosen, name)
            best = level.seen(chosen)
        return LinearFit(
            transform=start if name is None else Affine(chosen),
            model=name,
            difference_before=before.difference(),
            difference_after=best.difference(),
            residual_mm=residual,
        )

    def _starts(self, level: LinearLevel, fixed: Grid, moving: Grid) -> list[Affine]:
        shifts = [np.zeros(3)] if self.start in ("best", "header") else []
        if self.start in ("best", "boxes"):
            shifts.append(centre_of_box(moving.canonical()) - centre_of_box(fixed.canonical()))
        if self.start in ("best", "contents"):
            shifts.append(level.contents_mm)
        found: list[Affine] = []
        for shift in shifts:
            matrix = np.eye(4)
            matrix[:3, 3] = shift
            if all(np.abs(matrix - other.matrix).max() > level.cell_mm for other in found):
                found.append(Affine(matrix))
        return found
