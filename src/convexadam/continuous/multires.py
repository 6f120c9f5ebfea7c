"""The continuous stage: minimise a similarity plus regularisers over a displacement, coarse to fine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import cast, final

from convexadam._arguments import check_arguments
from convexadam._axes import Unit, check_triple, check_unit, check_whole_voxels, spacing_in_voxels
from convexadam._checks import check_axis_weights, check_component, check_count, check_number, show
from convexadam._typing import AxisWeights, Channels, Field, Float, Guide, Tensor, Triple, Volume
from convexadam.continuous.adam import Adam
from convexadam.continuous.contrasts import DifferentContrasts, have_one_contrast
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.level import Level
from convexadam.continuous.objective import RegistrationObjective, curvature_of_points, mean_curvature
from convexadam.continuous.packing import pack_level, pool_level
from convexadam.continuous.parametrisation import Additive, total_smoothing_of
from convexadam.continuous.protocols import (
    HasTotalSmoothing,
    MaskedRegulariser,
    Optimiser,
    Parametrisation,
    Regulariser,
    Similarity,
)
from convexadam.continuous.regularisers import Diffusion
from convexadam.continuous.restriction import restrict
from convexadam.continuous.similarity import Ssd
from convexadam.continuous.smoothing import AdaptiveSmoothing, BilateralSmoothing, BoxSmoothing, Smoother, Smoothing
from convexadam.continuous.snapshot import Iterations, Snapshot, pair_up, select, swap, take_last
from convexadam.continuous.volume_mask import volume_mask
from convexadam.errors import ConfigError
from convexadam.geometry.tensors import check_allocation
from convexadam.kernels._precision import full_precision
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.inverse_consistency import MOST_ITERATIONS, estimate_inverse
from convexadam.kernels.landmarks import LandmarkCost
from convexadam.kernels.resize import control_points_to_voxels, pool_weight, scale_to_voxels
from convexadam.kernels.warp_ssd import overlap_weight, tensor_of


@final
@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Minimise a similarity plus regularisers over a smooth displacement, coarse to fine.

    With the defaults, ``E(u) = mean_x sum_c (M_c(x + u(x)) - F_c(x))^2 + weight / 3 sum_a mean_x |d_a u|^2`` with ``u``
    in control points.

    Attributes
    ----------
    levels
        Spacing and iterations, coarse to fine; each level starts from the result of the one before.
    unit
        ``"voxel"`` or ``"mm"``, of the levels' spacing.
    similarity
        How features are compared: `Ssd`, `Lncc`, a `WeightedSum` of them, or any `Similarity`.
    regularisers
        Costs of the displacement alone: `Diffusion`, `Bending`, `VolumePreserving`, or any `Regulariser`. The default
        weight of 1.25 suits squared differences of the 12 channels of `MindSSC`; other features need another weight.
    optimiser
        `Adam`, `LevenbergMarquardt`, or any `Optimiser`.
    update_smoothing
        ``B``, in control points: of the field (`Additive`) or of each update (the others); ``None`` for none. For
        `LevenbergMarquardt` the window of the local least-squares problem.
    parametrisation
        How updates become a displacement: `Additive` (published), `Compositional`, `StationaryVelocity`, or your own.
    tolerance
        A level ends early once five iterations lower the value by less than this share of it; 0 runs all of them.
    inverse_consistency
        Iterations that make both directions inverse of each other at the end of a symmetric level.
    final_smoothing
        Applied once to the displacement at full resolution (in voxels); ``None`` for none.
    different_contrasts
        Levels and similarity for images that turn out to have different contrasts; ``None`` for the same.

    Raises
    ------
    ConfigError
        If a setting is out of range or of the wrong type.

    Notes
    -----
    Siebert, Hansen, Heinrich, "ConvexAdam", IEEE TMI 2024. The displacement after the last step is returned.

    Examples
    --------
    >>> refinement = Refinement(levels=(Level(spacing=4, iterations=40), Level(spacing=2, iterations=20)))
    """

    levels: tuple[Level, ...] = (Level(),)
    unit: Unit = "voxel"
    similarity: Similarity = field(default_factory=Ssd)
    regularisers: tuple[Regulariser, ...] = (Diffusion(weight=1.25),)
    optimiser: Optimiser = field(default_factory=Adam)
    update_smoothing: Smoothing | None = field(default_factory=BoxSmoothing)
    parametrisation: Parametrisation = field(default_factory=Additive)
    tolerance: float = 0.0
    inverse_consistency: int = 15
    final_smoothing: Smoothing | None = None
    different_contrasts: DifferentContrasts | None = None

    def __post_init__(self) -> None:
        check_unit(self.unit)
        check_number(self.tolerance, "tolerance")
        check_count(self.inverse_consistency, "inverse_consistency", most=MOST_ITERATIONS)
        if not isinstance(self.levels, tuple) or not self.levels:
            raise ConfigError(
                f"levels must be a tuple of at least one Level, got {show(self.levels)}; write (Level(spacing=2),) for "
                "one"
            )
        if not isinstance(self.regularisers, tuple):
            raise ConfigError(
                f"regularisers must be a tuple, got {show(self.regularisers)}; write (Diffusion(weight=0.2),) for one"
            )
        for level in self.levels:
            check_component(level, Level, "each of levels")
            check_whole_voxels(level.spacing, "spacing", self.unit)
        forward_only = [level.forward_only for level in self.levels]
        if forward_only != sorted(forward_only):
            raise ConfigError(
                f"forward_only must not be followed by levels without it, got {forward_only}; "
                "after a forward-only level there is no backward field to continue from"
            )
        for regulariser in self.regularisers:
            check_component(regulariser, Regulariser, "each of regularisers")
        for name, allowed in (
            ("similarity", Similarity),
            ("optimiser", Optimiser),
            ("update_smoothing", Smoothing | None),
            ("final_smoothing", Smoothing | None),
            ("parametrisation", Parametrisation),
            ("different_contrasts", DifferentContrasts | None),
        ):
            check_component(getattr(self, name), allowed, name)
        if self.different_contrasts is not None:
            self.different_contrasts.check_levels(self.levels)
            self._for_different_contrasts(self.different_contrasts)  # checks its levels

    @full_precision
    @check_arguments
    def __call__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        start: Field | None = None,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        guide: Guide | None = None,
        soft_mask: Volume | None = None,
        voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        restrict_deformation: AxisWeights = (1.0, 1.0, 1.0),
    ) -> Field:
        """Refine a displacement from fixed to moving.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of one shape, at full resolution.
        start
            Displacement ``[3, i, j, k]`` in voxels to begin with; ``None`` for zero.
        fixed_weight, moving_weight
            Weight of each voxel, ``[i, j, k]``, not negative; ``None`` for 1 everywhere.
        guide
            What a `BilateralSmoothing` preserves the edges of, ``[c, i, j, k]`` on the voxels of ``fixed``.
        soft_mask
            Where `VolumePreserving` acts, ``[i, j, k]`` in [0, 1]; ``None`` leaves that to its ``region``.
        voxel_mm
            Size of a voxel; only used where ``unit`` is ``"mm"``.
        restrict_deformation
            Factor, in [0, 1], of the updates along each axis; 0 forbids them.

        Returns
        -------
        Displacement ``[3, i, j, k]`` in voxels, at full resolution.
        """
        check_axis_weights(restrict_deformation, "restrict_deformation")
        shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        spacings = self.control_point_spacings(shape, voxel_mm)

        def extract(number: int) -> FeatureLevel:
            maps, weights = (fixed, moving), (fixed_weight, moving_weight)
            return pool_level(maps, weights, guide, spacings[number], restrict_deformation)

        coarse = [n // s for n, s in zip(shape, spacings[0], strict=True)]
        forward, spacing = (fixed.new_zeros((3, *coarse)), spacings[0]) if start is None else (start, (1, 1, 1))
        initial = ForwardBackward(forward=forward, spacing=spacing)
        fields = take_last(self.refine(extract, initial, shape, soft_mask=soft_mask)).fields
        return self.upsample(scale_to_voxels(fields.forward, fields.spacing), fields.spacing, shape)

    @check_arguments
    def control_point_spacings(
        self, shape: Triple, voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Triple, ...]:
        """Spacing of each level's control points in voxels, for a volume of ``shape`` with voxels of ``voxel_mm``."""
        return tuple(spacing_in_voxels(level.spacing, self.unit, voxel_mm, shape) for level in self.levels)

    @check_arguments
    def refine(
        self,
        extract: Callable[[int], FeatureLevel],
        start: ForwardBackward,
        shape: Triple,
        *,
        symmetric: bool = False,
        soft_mask: Volume | None = None,
        iterations: Iterations = (),
    ) -> Iterator[Snapshot]:
        """Refine coarse to fine: the one loop over levels, for `register` and all who watch it.

        Parameters
        ----------
        extract
            Returns the features of a level, by its number.
        start
            Displacements to begin with, at any spacing.
        shape
            Of the working grid, in voxels.
        symmetric
            Refine forward and backward, and make them inverse of each other at the end of each level that is not
            ``forward_only``.
        soft_mask
            Where `VolumePreserving` acts, ``[i, j, k]`` in [0, 1] on the working grid.
        iterations
            Of the last level, after which to yield as well.

        Yields
        ------
        Snapshot
            At the beginning (iteration 0, with the displacements of the level before) and the end of each level and,
            on the last one, after each of ``iterations`` that it reaches.
        """
        chosen = self
        if self.different_contrasts is not None:
            chosen, extract = self._choose(self.different_contrasts, extract, start, shape)
        if soft_mask is None and chosen.estimates_volume_mask:
            soft_mask = chosen._estimate_volume_mask(extract, start, shape, symmetric=symmetric)
        kept, last = [start], len(chosen.levels) - 1
        del start  # a level releases the displacements of the one before, which are kept nowhere else
        for number in range(last + 1):
            here = iterations if number == last else ()
            run = chosen._run_level(number, extract, kept.pop(), shape, soft_mask, here, symmetric=symmetric)
            kept.append((yield from run))

    @full_precision
    @check_arguments
    def refine_level(
        self, features: FeatureLevel, start: Field | None = None, *, level: int = 0, soft_mask: Volume | None = None
    ) -> Field:
        """Refine a displacement on the control points of one level, from fixed to moving.

        Parameters
        ----------
        features
            Of the control points.
        start
            Displacement ``[3, i, j, k]`` in control points; ``None`` for zero.
        level
            Which of ``levels``.
        soft_mask
            Where `VolumePreserving` acts, ``[i, j, k]`` in [0, 1]; ``None`` for everywhere.

        Returns
        -------
        Displacement ``[3, i, j, k]`` in control points, after the last step.
        """
        self._get_level(level)
        start = features.zero_displacement() if start is None else start
        return take_last(self._minimise(level, features, start, soft_mask))[1]

    @check_arguments
    def upsample(self, displacement: Field, spacing: Triple, shape: Triple) -> Float[Tensor, "3 a b d"]:
        """Interpolate at the voxels of a volume of ``shape``, with `final_smoothing`; of any unit, which is kept."""
        check_allocation((3, *check_triple(shape, "shape")), "the displacements")
        fine = control_points_to_voxels(displacement, check_triple(spacing, "spacing"), shape)
        return fine if self.final_smoothing is None else Smoother(self.final_smoothing, fine)(fine)

    @property
    def preserves_volume(self) -> bool:
        """Whether a regulariser acts within a soft mask."""
        return any(isinstance(r, MaskedRegulariser) for r in self.regularisers)

    @property
    def estimates_volume_mask(self) -> bool:
        """Whether, without a soft mask, one is estimated by a first refinement."""
        return any(isinstance(r, MaskedRegulariser) and r.region == "auto" for r in self.regularisers)

    @check_arguments
    def needs_guide(self, level: int = 0) -> bool:
        """Whether the smoothing of a level needs a guide."""
        return isinstance(total_smoothing_of(self._parametrisation_of(self._get_level(level))), BilateralSmoothing)

    def _for_different_contrasts(self, other: DifferentContrasts) -> Refinement:
        return dataclasses.replace(self, levels=other.levels, similarity=other.similarity, different_contrasts=None)

    def _choose(
        self, other: DifferentContrasts, extract: Callable[[int], FeatureLevel], start: ForwardBackward, shape: Triple
    ) -> tuple[Refinement, Callable[[int], FeatureLevel]]:
        """Return the settings for the contrasts of the images, and the extraction, begun with the first level."""
        level = extract(0)
        one = have_one_contrast(level, start.resample(level.spacing, shape).forward, other)
        chosen = dataclasses.replace(self, different_contrasts=None) if one else self._for_different_contrasts(other)
        first = [level]
        return chosen, lambda number: first.pop() if number == 0 and first else extract(number)

    def _run_level(
        self,
        number: int,
        extract: Callable[[int], FeatureLevel],
        fields: ForwardBackward,
        shape: Triple,
        soft_mask: Volume | None,
        iterations: Iterations,
        *,
        symmetric: bool,
    ) -> Generator[Snapshot, None, ForwardBackward]:
        """Refine on one level, and return its displacements, which are all that it leaves in memory."""
        extracted, forward_only = [extract(number)], self.levels[number].forward_only or not symmetric
        fields = dataclasses.replace(fields, backward=None) if forward_only else fields
        fields = fields.resample(extracted[0].spacing, shape)
        similarity, features = pack_level(self.similarity, extracted, fields.forward)
        mask, same = pool_weight(soft_mask, features.spacing), dataclasses.replace(self, similarity=similarity)
        yield Snapshot(level=number, iteration=0, fields=fields, features=features)
        refine = same._refine_forward if forward_only else same._refine_both
        steps = refine(number, features, fields, mask, iterations)
        del fields  # the steps begin with a copy
        for iteration, fields in steps:
            yield Snapshot(level=number, iteration=iteration, fields=fields, features=features)
        return fields

    def _get_level(self, number: int) -> Level:
        check_count(number, "level", most=len(self.levels) - 1)
        return self.levels[number]

    def _refine_forward(
        self, number: int, features: FeatureLevel, start: ForwardBackward, mask: Volume | None, iterations: Iterations
    ) -> Iterator[tuple[int, ForwardBackward]]:
        """Yield the iterations asked for and the last one, with displacements of their own memory."""
        steps = select(self._minimise(number, features, start.forward, mask), iterations)
        del start
        for iteration, forward in steps:
            yield iteration, ForwardBackward(forward=forward, spacing=features.spacing)

    def _refine_both(
        self, number: int, features: FeatureLevel, start: ForwardBackward, mask: Volume | None, iterations: Iterations
    ) -> Iterator[tuple[int, ForwardBackward]]:
        """Do as `_refine_forward`, in both directions: one after the other, which takes the memory of one."""
        backward_start = estimate_inverse(start.forward) if start.backward is None else start.backward
        reverse, reverse_mask = swap(features, backward_start, mask)
        starts = [backward_start, start.forward]
        del start, backward_start  # each is released once its steps have begun
        forward = list(select(self._minimise(number, features, starts.pop(), mask), iterations))
        backward = list(select(self._minimise(number, reverse, starts.pop(), reverse_mask), iterations))
        yield from pair_up(forward, backward, iterations, features.spacing, consistency=self.inverse_consistency)

    def _minimise(
        self, number: int, features: FeatureLevel, start: Field, soft_mask: Volume | None
    ) -> Iterator[tuple[int, Field]]:
        """Yield the number of each iteration, from 0, and the displacement, whose memory the next one overwrites."""
        level = self.levels[number]
        smoothing = level.update_smoothing or self.update_smoothing
        fixed, moving = cast("tuple[Channels, Channels]", (features.fixed, features.moving))  # or as it takes them
        term, regularisers = self.similarity.prepare(fixed, moving, start, features.weights), list(self.regularisers)
        if features.landmarks is not None:
            scale = float(mean_curvature(term, start))
            regularisers.append(LandmarkCost(features.landmarks, start, curvature=scale))
        compared = (tensor_of(features.fixed), tensor_of(features.moving), *features.weights)
        free_objective = RegistrationObjective(term, regularisers, compared, soft_mask=soft_mask)
        model, guide = self._parametrisation_of(level), features.fixed_guide
        if isinstance(total_smoothing_of(model), AdaptiveSmoothing):
            guide = curvature_of_points(term, start)[None]
        free_state = model.initialise(start, smoothing, overlap_weight(start, *features.weights), guide)
        del guide
        objective, state = restrict(free_objective, free_state, features.restrict_deformation)
        del start
        yield 0, state.displacement
        convergence = Convergence(level.iterations, self.tolerance)
        for iteration in self.optimiser.minimise(objective, state, convergence, smoothing):
            yield iteration, state.displacement

    def _estimate_volume_mask(
        self, extract: Callable[[int], FeatureLevel], start: ForwardBackward, shape: Triple, *, symmetric: bool
    ) -> Volume:
        """Refine without the masked regularisers, and find where volume changes unlike elsewhere (`volume_mask`)."""
        others = tuple(r for r in self.regularisers if not isinstance(r, MaskedRegulariser))
        free = dataclasses.replace(self, regularisers=others)
        last = take_last(free.refine(extract, start, shape, symmetric=symmetric))
        mask = volume_mask(last.fields.forward, mask=last.features.fixed_weight)
        return control_points_to_voxels(mask[None], last.fields.spacing, shape)[0]

    def _parametrisation_of(self, level: Level) -> Parametrisation:
        if level.total_smoothing is None or not isinstance(self.parametrisation, HasTotalSmoothing):
            return self.parametrisation
        return self.parametrisation.with_total_smoothing(level.total_smoothing)
