"""The continuous stage: a displacement that a similarity and regularisers are minimised over, level by level."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

import torch

from convexadam._axes import Unit, checked_count, checked_number, checked_unit, per_axis, spacing_in_voxels
from convexadam._typing import Channels, Field, Float, Guide, PerAxis, Tensor, Triple, Volume
from convexadam.continuous.adam import Adam
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.levenberg_marquardt import LevenbergMarquardt
from convexadam.continuous.parametrisation import Displacement, Parametrisation
from convexadam.continuous.problem import Cost, Problem
from convexadam.continuous.regularisers import Diffusion, Regulariser, VolumePreserving
from convexadam.continuous.similarity import Similarity, Ssd
from convexadam.continuous.smoothing import BilateralSmoothing, BoxSmoothing, FieldSmoothing, Smoother, Smoothing
from convexadam.continuous.volume_mask import volume_mask
from convexadam.errors import ConfigError
from convexadam.kernels._precision import full_precision
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_nodes, nodes_to_voxels, pool, voxels_to_nodes
from convexadam.kernels.warp_ssd import evidence_under

_WHOLE = 0.999
"""Share of voxels with evidence from which on a node is whole."""


def _check(value: object, allowed: object, name: str) -> None:
    if not isinstance(value, allowed):  # type: ignore[arg-type]
        kinds = typing.get_args(allowed) or (allowed,)
        names = " or ".join("None" if kind is types.NoneType else kind.__name__ for kind in kinds)
        raise ConfigError(f"{name} is {names}, but {value!r} came")


@final
@dataclass(frozen=True, kw_only=True)
class Level:
    """Nodes at one distance, and how long to work there.

    Attributes
    ----------
    spacing
        Distance of the nodes: one number or one for each axis, in the unit of the `Refinement`.
    iterations
        Steps at most; 0 takes none.
    smoothing, field_smoothing
        In place of those of the `Refinement` and of its parametrisation, which ``None`` keeps.
    one_way
        Refine from fixed to moving alone, even where a registration is symmetric: on the last levels, where the mean of
        both directions would blur what one of them resolves.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    spacing: PerAxis = 2
    iterations: int = 80
    smoothing: Smoothing | None = None
    field_smoothing: FieldSmoothing | None = None
    one_way: bool = False

    def __post_init__(self) -> None:
        per_axis(self.spacing, "spacing", least=1e-3)
        checked_count(self.iterations, "iterations")
        _check(self.smoothing, Smoothing | None, "smoothing")
        _check(self.field_smoothing, FieldSmoothing | None, "field_smoothing")
        _check(self.one_way, bool, "one_way")


@final
@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Minimise a similarity plus regularisers over a displacement that smoothing keeps smooth; coarse levels first.

    With the defaults, ``E(u) = mean_x sum_c (M_c(x + u(x)) - F_c(x))^2 + weight / 3 sum_a mean_x |d_a u|^2`` with ``u``
    in nodes.

    Attributes
    ----------
    levels
        Where to work, and how long; the result of one is the start of the next.
    unit
        ``"voxel"`` or ``"mm"``, of the levels' spacing.
    similarity
        `Ssd`, `Lncc`, `MutualInformation` or a `WeightedSum` of them, of the features.
    regularisers
        What the displacement costs by itself: `Diffusion`, `Bending`, `VolumePreserving`; none leaves smoothing as the
        only regularisation. 1.25 fits squared differences of the 12 channels of `MindSSC`; features on another scale
        need another weight.
    optimiser
        `Adam` or `LevenbergMarquardt`.
    smoothing
        ``B``: of the whole field (`Displacement`) or of each step (`Compositional`, `StationaryVelocity`), in nodes;
        ``None`` for none. With `LevenbergMarquardt` the window that a step is the best for.
    parametrisation
        How steps become a displacement: `Displacement` as published, `Compositional` or `StationaryVelocity`, which
        hardly fold.
    tolerance
        A level ends early once five iterations lower the value by less than this share of it; 0 runs all of them. The
        first five always run.
    final_smoothing
        Applied once to the finished field at full resolution (in voxels); ``None`` for none.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen, Heinrich, "ConvexAdam: Self-configuring dual-optimisation-based 3D multitask medical image
    registration", IEEE TMI 2024. The field of the last step is returned.
    """

    levels: tuple[Level, ...] = (Level(),)
    unit: Unit = "voxel"
    similarity: Similarity = field(default_factory=Ssd)
    regularisers: tuple[Regulariser, ...] = (Diffusion(weight=1.25),)
    optimiser: Adam | LevenbergMarquardt = field(default_factory=Adam)
    smoothing: Smoothing | None = field(default_factory=BoxSmoothing)
    parametrisation: Parametrisation = field(default_factory=Displacement)
    tolerance: float = 0.0
    final_smoothing: Smoothing | None = None

    def __post_init__(self) -> None:
        checked_unit(self.unit)
        checked_number(self.tolerance, "tolerance")
        if not isinstance(self.levels, tuple) or not self.levels or not isinstance(self.regularisers, tuple):
            raise ConfigError(
                f"levels is a tuple of at least one Level and regularisers a tuple, but {self.levels!r} and "
                f"{self.regularisers!r} came; a single one is written (Level(spacing=2),)"
            )
        for level in self.levels:
            _check(level, Level, "each of levels")
            spacing = per_axis(level.spacing, "spacing", least=1.0 if self.unit == "voxel" else 1e-3)
            if self.unit == "voxel" and any(v != int(v) for v in spacing):
                raise ConfigError(
                    f"spacing is a whole number where the unit is 'voxel', but {level.spacing!r} came; "
                    "round it, or set unit='mm'"
                )
        ways = [level.one_way for level in self.levels]
        if ways != sorted(ways):
            raise ConfigError("levels that are one_way come last: after one, there is no backward field to go on from")
        for regulariser in self.regularisers:
            _check(regulariser, Regulariser, "each of regularisers")
        for name, allowed in (
            ("similarity", Similarity),
            ("optimiser", Adam | LevenbergMarquardt),
            ("smoothing", Smoothing | None),
            ("final_smoothing", Smoothing | None),
            ("parametrisation", Parametrisation),
        ):
            _check(getattr(self, name), allowed, name)

    @full_precision
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
    ) -> Field:
        """Refine a field that maps fixed to moving.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of one shape, at full resolution.
        start
            Displacements ``[3, i, j, k]`` in voxels to begin with; ``None`` for zero.
        fixed_weight, moving_weight
            Evidence of each voxel, ``[i, j, k]``, not negative; 1 where ``None``.
        guide
            What a `BilateralSmoothing` finds edges in, ``[c, i, j, k]`` on the voxels of ``fixed``.
        soft_mask
            Where `VolumePreserving` keeps the volume, ``[i, j, k]`` in [0, 1]; ``None`` leaves that to its ``where``.
        voxel_mm
            Size of a voxel; only used where ``unit`` is ``"mm"``.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in voxels, at full resolution.
        """
        shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        spacings = self.nodes(shape, voxel_mm)
        if soft_mask is None and self.keeps_conspicuous:
            weights = {"fixed_weight": fixed_weight, "moving_weight": moving_weight}
            free = self.free()(fixed, moving, start=start, **weights, guide=guide, voxel_mm=voxel_mm)
            evident = None if fixed_weight is None else pool(fixed_weight[None], spacings[-1])[0]
            found = volume_mask(in_nodes(voxels_to_nodes(free, spacings[-1]), spacings[-1]), mask=evident)
            soft_mask = nodes_to_voxels(found[None], spacings[-1], shape)[0]
        before, nodes = (1, 1, 1), start
        for number, spacing in enumerate(spacings):
            if nodes is not None and number == 0:
                nodes = in_nodes(voxels_to_nodes(nodes, spacing), spacing)
            elif nodes is not None:
                nodes = in_nodes(nodes_to_nodes(in_voxels(nodes, before), before, spacing, shape), spacing)
            nodes = self.on_nodes(
                pool(fixed, spacing, weight=fixed_weight),
                pool(moving, spacing, weight=moving_weight),
                level=number,
                start=nodes,
                fixed_weight=None if fixed_weight is None else whole_nodes(fixed_weight, spacing),
                moving_weight=None if moving_weight is None else whole_nodes(moving_weight, spacing),
                guide=None if guide is None else pool(guide, spacing),
                soft_mask=None if soft_mask is None else pool(soft_mask[None], spacing)[0],
            )
            before = spacing
        assert nodes is not None  # there is at least one level
        return self.on_voxels(in_voxels(nodes, before), before, shape)

    def nodes(self, shape: Triple, voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> tuple[Triple, ...]:
        """Distance of each level's nodes in voxels, for a volume of ``shape`` with voxels of ``voxel_mm``."""
        return tuple(spacing_in_voxels(level.spacing, self.unit, voxel_mm, shape) for level in self.levels)

    @full_precision
    def on_nodes(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        level: int = 0,
        start: Field | None = None,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        costs: Sequence[Cost] = (),
        soft_mask: Volume | None = None,
        guide: Guide | None = None,
        marks: tuple[int, ...] = (),
        passed: Callable[[int, Field], None] | None = None,
    ) -> Field:
        """Refine a field on the nodes of one level.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of the nodes, pooled.
        level
            Which of ``levels``.
        start
            Displacements ``[3, i, j, k]`` in nodes to begin with; ``None`` for zero.
        fixed_weight, moving_weight
            Evidence of each node (see `whole_nodes`); 1 where ``None``.
        costs
            More that the displacement costs, besides ``regularisers``.
        soft_mask
            Where `VolumePreserving` keeps the volume, ``[i, j, k]`` in [0, 1]; ``None`` for everywhere.
        guide
            What a `BilateralSmoothing` finds edges in, ``[c, i, j, k]``, of the fixed image.
        passed
            Called with each number of ``marks`` and the displacements after as many iterations, which it may keep; not
            called for those that a tolerance leaves out.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in nodes, after the last step.
        """
        here = self.levels[level]
        start = fixed.new_zeros((3, *fixed.shape[1:])) if start is None else start
        weights = fixed_weight, moving_weight
        problem = Problem(
            self.similarity.begin(fixed, moving, start, weights),
            [*self.regularisers, *costs],
            (fixed, moving, *weights),
            soft_mask=soft_mask,
        )
        smoothing = here.smoothing or self.smoothing
        motion = self._parametrised(here).begin(start, smoothing, evidence_under(start, *weights), guide)

        def pass_on(count: int) -> None:
            if passed is not None:
                passed(count, motion.displacement.clone())

        if 0 in marks:
            pass_on(0)
        until = Convergence(here.iterations, self.tolerance, marks=marks, passed=pass_on)
        self.optimiser.minimise(problem, motion, until, smoothing)
        return motion.displacement

    def on_voxels(self, nodes: Field, spacing: Triple, shape: Triple) -> Float[Tensor, "3 a b d"]:
        """Bring displacements of any unit from nodes to the voxels of a volume of ``shape``, with `final_smoothing`."""
        fine = nodes_to_voxels(nodes, spacing, shape)
        return fine if self.final_smoothing is None else Smoother(self.final_smoothing, fine)(fine)

    @property
    def keeps_volume(self) -> bool:
        """Whether changes of volume cost."""
        return any(isinstance(r, VolumePreserving) for r in self.regularisers)

    @property
    def keeps_conspicuous(self) -> bool:
        """Whether, without a soft mask, one is estimated by what the refinement that is `free` does."""
        return any(isinstance(r, VolumePreserving) and r.where == "conspicuous" for r in self.regularisers)

    def free(self) -> Refinement:
        """Return the refinement without `VolumePreserving`."""
        kept = tuple(r for r in self.regularisers if not isinstance(r, VolumePreserving))
        return dataclasses.replace(self, regularisers=kept)

    def guided(self, level: int = 0) -> bool:
        """Whether a level needs a guide."""
        here = self._parametrised(self.levels[level])
        return not isinstance(here, Displacement) and isinstance(here.field_smoothing, BilateralSmoothing)

    def _parametrised(self, level: Level) -> Parametrisation:
        if level.field_smoothing is None or isinstance(self.parametrisation, Displacement):
            return self.parametrisation
        return dataclasses.replace(self.parametrisation, field_smoothing=level.field_smoothing)


def whole_nodes(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """Evidence of each node: none where only a part of its voxels has some, since their mean lies off the node.

    Where a mask is so thin that no node is whole, the parts have to do.
    """
    pooled, share = (pool(w[None], spacing)[0] for w in (weight, (weight > 0).to(weight.dtype)))
    whole = torch.where(share > _WHOLE, pooled, 0.0)
    return whole if bool((whole > 0).any()) else pooled
