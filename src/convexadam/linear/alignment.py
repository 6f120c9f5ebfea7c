"""Linear alignment: least-squares fits to the displacements of a search, and a refinement by mutual information."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_axis_weights, check_choice, check_count, check_number
from convexadam._typing import AxisWeights, Float, Tensor
from convexadam.errors import ConfigError, InputError
from convexadam.features import Features, MindSSC, Precomputed, check_extractor
from convexadam.geometry import Affine, Grid, Image
from convexadam.kernels._device import read_numbers
from convexadam.kernels.linear_choice import is_plausible, keep_better
from convexadam.kernels.trimmed_fit import MODELS, Model
from convexadam.linear.centres import geometric_centre
from convexadam.linear.fitting import LevelFitter
from convexadam.linear.level import SPACING, LinearLevel
from convexadam.linear.refinement import refine_transform
from convexadam.linear.restriction import Restriction

Init: TypeAlias = Literal["best", "header", "geometry", "moments"]

_COARSE_RADIUS, _FINE_RADIUS = 6, 4
"""Largest search radius in control points on the coarsest level, and that on the others."""

_LARGEST_MOTION = 1 / 3
"""Largest motion that the search on the coarsest level looks for, as a share of the side of an image."""


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
        searched: 0 for equal images, about 1 for unrelated ones.
    mutual_information_before, mutual_information_after
        Mutual information in nats, at the resolution of the images, with the transform that the refinement was to
        improve on and with ``transform``; ``None`` if it did not run.

    Examples
    --------
    >>> import torch
    >>> from convexadam import register
    >>> volume = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> fit = register(volume, volume).linear
    >>> fit.dissimilarity_after <= fit.dissimilarity_before
    True
    """

    transform: Affine
    model: Model | None
    dissimilarity_before: float
    dissimilarity_after: float
    mutual_information_before: float | None = None
    mutual_information_after: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether a transform was found that is better than the initial one."""
        return self.model is not None


@final
@dataclass(frozen=True, kw_only=True)
class LinearAlignment:
    """Rigid, similarity or affine alignment, robust to local deformation and to different contrasts.

    On each level, coarse to fine: features of both images are extracted, the coupled-convex search finds a displacement
    for each control point, and a trimmed least-squares fit to those with enough structure updates the transform; the
    moving image is resampled with it and the next iteration follows.

    Before deformable stages (``refine=False``) this is all: if the coarsest level does not show the
    ``min_improvement``, the initial transform is kept and the finer levels are skipped. Alone, only the coarsest level
    is searched; from what it finds and from the initial transform, mutual information is maximised coarse to fine to
    the resolution of the images (see `convexadam.linear.refinement`), for the ``model`` as given. The result is
    accepted if the likelihood of the samples rises by more than the number of parameters.

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
        Approximate number of voxels of each level of the search; no level is finer than the fixed image.
    iterations
        Largest number of fits on each level.
    min_improvement
        Share by which the dissimilarity has to decrease for the initial transform to be replaced before deformable
        stages, which correct small misalignments themselves: an image that is not resampled stays sharp.
    min_model_improvement
        Share by which the dissimilarity has to decrease for a richer model to be preferred to a simpler one before
        deformable stages.
    inlier_fraction
        Share of the control points with structure that the fit uses; the others count as outliers.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> import torch
    >>> from convexadam import RegistrationConfig, register
    >>> from convexadam.linear import LinearAlignment
    >>> volume = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> config = RegistrationConfig(linear=LinearAlignment(model="rigid"))
    >>> bool(register(volume, volume, config).transform.disp_mm.abs().max() < 0.1)
    True
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

    @check_arguments
    def __call__(
        self,
        fixed: Image,
        moving: Image,
        *,
        fixed_mask: Image | None = None,
        moving_mask: Image | None = None,
        initial: Affine | None = None,
        refine: bool = True,
        restrict_deformation: AxisWeights = (1.0, 1.0, 1.0),
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
        refine
            Refine to the resolution of the images; ``False`` leaves that to deformable stages.
        restrict_deformation
            Weights of motion along the axes of the fixed image that are closest to R, A, S: along those of weight 0
            points stay where ``initial`` maps them. A rotation that is left without one of its axes is a shear.

        Returns
        -------
        The transform from fixed to moving space; ``initial`` or the identity if no better one is found.

        Raises
        ------
        ConfigError
            If the features of the two images differ in their number of channels.
        InputError
            If one image has more channels than the other one, and a refinement was asked for.
        """
        check_axis_weights(restrict_deformation, "restrict_deformation")
        restriction = Restriction(grid=fixed.grid, weights=restrict_deformation)
        fit = self._align((fixed, moving), (fixed_mask, moving_mask), initial, restriction, refine=refine)
        if restriction.is_free or not fit.accepted:
            return fit
        start = None if initial is None else torch.from_numpy(initial.matrix.copy())
        exact = restriction.project(torch.from_numpy(fit.transform.matrix.copy()), start)
        return replace(fit, transform=Affine(exact.numpy()))

    def _align(
        self,
        images: tuple[Image, Image],
        masks: tuple[Image | None, Image | None],
        initial: Affine | None,
        restriction: Restriction,
        *,
        refine: bool,
    ) -> LinearFit:
        fixed, moving = images
        if refine and len(fixed.data) != len(moving.data):
            raise InputError(
                "fixed and moving must have as many channels for their mutual information, got "
                f"{len(fixed.data)} and {len(moving.data)}; pass one channel of each"
            )
        features = self.features
        if features is None:
            features = MindSSC(radius=1, dilation=1) if fixed.data.shape[0] == 1 else Precomputed()
        prepare_coarse, *prepare_finer = (
            partial(
                LinearLevel.prepare,
                fixed,
                moving,
                features,
                voxels,
                radius=_FINE_RADIUS if n else _choose_coarse_radius(voxels),
                masks=masks,
                restriction=restriction,
            )
            for n, voxels in enumerate(self.voxels_per_level)
        )
        level = prepare_coarse()
        fallback = Affine() if initial is None else initial
        candidates = [fallback] if initial is not None else self._make_candidates(level, fixed.grid, moving.grid)
        model: Model = "rigid" if self.model == "rigid" else "similarity"
        with self._make_fitter(level, is_refined=refine) as fitter:
            number = fitter.models[MODELS.index(model)]
            fits: list[Tensor] = []
            for candidate in candidates:
                fits.append(fitter.fit(level.send(candidate.matrix), number, known=fits if refine else ()))
            if refine:
                return self._refine(fitter, (fixed, moving), masks, fallback, fits)
            chosen = fitter.measure(level.send(fallback.matrix), fitter.none).clone()
            before, best = chosen.mean, fitter.measure(fits[0], number)
            for n, matrix in enumerate(fits[1:]):
                best = best.clone() if n == 0 else best
                keep_better(best, fitter.measure(matrix, number), min_improvement=(0.0, 0.0), by_mean=True)
            keep_better(chosen, best, min_improvement=(self.min_improvement, 0.0))
            found = read_numbers({"before": before, "model": chosen.model})
        if found["model"] < 0:  # nor would it on the finer levels
            return LinearFit(
                transform=fallback,
                model=None,
                dissimilarity_before=found["before"],
                dissimilarity_after=found["before"],
            )
        matrix = best.matrix
        for prepare in prepare_finer:
            level = prepare()
            with self._make_fitter(level) as fitter:
                matrix = fitter.fit(matrix, fitter.models[MODELS.index(self.model)])
                if prepare is prepare_finer[-1]:
                    return self._select_model(fitter, fallback, matrix)
        with self._make_fitter(level) as fitter:
            return self._select_model(fitter, fallback, matrix)

    def _make_fitter(self, level: LinearLevel, *, is_refined: bool = False) -> LevelFitter:
        return LevelFitter(
            level,
            inlier_fraction=self.inlier_fraction,
            iterations=self.iterations,
            is_refined=is_refined,
            can_record=self.features is None,
        )

    def _refine(
        self,
        fitter: LevelFitter,
        images: tuple[Image, Image],
        masks: tuple[Image | None, Image | None],
        fallback: Affine,
        fits: list[Tensor],
    ) -> LinearFit:
        """Refine the fits and the initial transform, and accept the best result if it is better than the latter."""
        level = fitter.level
        starts = [fallback.matrix, *torch.stack(fits).cpu().numpy()]
        refined = refine_transform(
            images, masks, starts, model=self.model, coarsest_mm=level.side_mm, restriction=level.restriction
        )
        accepted = refined.is_significant and bool(
            is_plausible(torch.from_numpy(np.linalg.solve(fallback.matrix, refined.matrix)))
        )
        measured = {"before": fallback.matrix, **({"after": refined.matrix} if accepted else {})}
        found = read_numbers(
            {name: fitter.measure(level.send(matrix), fitter.none).mean for name, matrix in measured.items()}
        )
        return LinearFit(
            transform=Affine(refined.matrix) if accepted else fallback,
            model=self.model if accepted else None,
            dissimilarity_before=found["before"],
            dissimilarity_after=found["after"] if accepted else found["before"],
            mutual_information_before=refined.before,
            mutual_information_after=refined.after if accepted else refined.before,
        )

    def _select_model(self, fitter: LevelFitter, fallback: Affine, matrix: Float[Tensor, "4 4"]) -> LinearFit:
        """Choose the initial transform, or the simplest model that no richer one improves on by enough."""
        best = fitter.measure(fitter.level.send(fallback.matrix), fitter.none).clone()
        before, richest = best.mean, MODELS.index(self.model)
        matches = fitter.find_matches(matrix)
        usable = fitter.number_models(matches[1].any())
        for model, number in list(zip(fitter.models, usable, strict=True))[: richest + 1]:
            fit = fitter.fit_to(matches, model, matrix)
            if not matrix.is_cuda and (number < 0 or not is_plausible(fit)):
                continue
            keep_better(
                best, fitter.measure(fit, number), min_improvement=(self.min_improvement, self.min_model_improvement)
            )
        best_matrix, after = best.matrix, best.mean
        is_simpler = (best.model >= 0) & (best.model != richest)
        if matrix.is_cuda or is_simpler:
            # a simpler model was fitted to displacements found with the richest one: iterate with its own
            fit = fitter.fit(best.matrix, best.model.clamp_min(0))
            after = torch.where(is_simpler, fitter.measure(fit, best.model).mean, after)
            best_matrix = torch.where(is_simpler, fit, best_matrix)
        numbers = torch.stack([before, after, best.model.double()])
        *entries, unlike_before, unlike_after, chosen = torch.cat([best_matrix.flatten(), numbers]).tolist()
        return LinearFit(
            transform=fallback if chosen < 0 else Affine(np.array(entries).reshape(4, 4)),
            model=None if chosen < 0 else MODELS[int(chosen)],
            dissimilarity_before=unlike_before,
            dissimilarity_after=unlike_after,
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
            matrix = level.restriction.project(torch.from_numpy(matrix)).numpy()
            if all(np.abs(matrix - candidate.matrix).max() > level.spacing_mm for candidate in candidates):
                candidates.append(Affine(matrix))
        return candidates


def _choose_coarse_radius(voxels: int) -> int:
    """Return the search radius on the coarsest level in control points, for as many voxels."""
    side: float = voxels ** (1 / 3)
    return min(_COARSE_RADIUS, round(_LARGEST_MOTION * side / SPACING))
