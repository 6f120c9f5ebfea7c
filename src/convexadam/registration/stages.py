"""A registration stage by stage: what is given, placed, brought to one grid, searched, refined, brought back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from convexadam._typing import Field, Triple, Volume
from convexadam.continuous import Refinement, volume_mask
from convexadam.continuous.guide import PairCost
from convexadam.continuous.problem import mean_curvature
from convexadam.discrete import ConvexSearch, make_inverse_consistent, opposite
from convexadam.errors import InputError
from convexadam.features import reach_of
from convexadam.geometry import Affine, DisplacementField, Grid, Image, Transform, compose
from convexadam.geometry.onto_grid import evidence, hidden, labels_on_grid, on_grid
from convexadam.geometry.resample import linear_part, resample
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_nodes, nodes_to_voxels, pool_weight
from convexadam.kernels.warp import identity_positions, sample_linear, sample_nearest
from convexadam.kernels.warp_ssd import evidence_under
from convexadam.linear import LinearFit
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.finishing import finished
from convexadam.registration.guide import Landmarks
from convexadam.registration.levels import Described, Subject, comparable
from convexadam.registration.prealigned import labels_pulled_onto, prealigned, pulled_onto

BothWays: TypeAlias = tuple[Field, Field | None]
"""Displacements in nodes, fixed to moving and, where it is known, moving to fixed."""

Pair: TypeAlias = tuple[Image | None, Image | None]
"""What there may be of the fixed and of the moving image."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """Both images and what is known beside them, checked; for the meaning see `register`."""

    fixed: Image
    moving: Image
    masks: Pair = (None, None)
    labels: Pair = (None, None)
    keep_volume: Image | None = None
    regions: Image | None = None
    landmarks: Landmarks | None = None
    initial: Transform | None = None


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Where the deformable stages begin, what the linear alignment found, and masks, given or made."""

    start: Transform
    linear: LinearFit | None
    masks: Pair


def placed(given: Given, config: RegistrationConfig) -> Placed:
    """Make masks where none came, and align."""
    masks, make = given.masks, config.foreground
    if make is not None:
        masks = (
            make(given.fixed) if masks[0] is None else masks[0],
            make(given.moving) if masks[1] is None else masks[1],
        )
    start, fit = prealigned(given.fixed, given.moving, masks, config.linear, given.initial)
    return Placed(start=start, linear=fit, masks=masks)


def on_working_grid(given: Given, begun: Placed, config: RegistrationConfig) -> Subject:
    """Bring the images, and all that belongs to them, to one grid."""
    grid, start, masks = config.grid(given.fixed.grid), begun.start, begun.masks
    guide = None
    if given.landmarks is not None and config.landmarks is not None:
        guide = given.landmarks.on_grid(config.landmarks, grid, start, (given.fixed.grid, given.moving.grid))
    margin = reach(config)
    reach_mm = margin * max(grid.spacing_mm)
    fixed, moving = hidden(given.fixed, masks[0], reach_mm), hidden(given.moving, masks[1], reach_mm)
    pulled, seen = pulled_onto(grid, moving, masks[1], start, margin)
    weights = evidence(fixed, masks[0], grid, margin), seen
    if any(weight is not None and not bool((weight > 0).any()) for weight in weights):
        raise InputError(
            "no voxel has evidence: the images, or what the masks leave of them, do not overlap within the box of the "
            "fixed image; check the affines and masks, or bring the images closer first"
        )
    kept, regions = (
        None if image is None else resample(image, grid, background=0).data[0].float()
        for image in (given.keep_volume, given.regions)
    )
    labels = given.labels
    if labels[0] is not None and labels[1] is not None:
        labels = labels_on_grid(labels[0], grid), labels_pulled_onto(grid, labels[1], start)
    return Subject(
        config=config,
        images=(on_grid(fixed, grid), pulled),
        weights=weights,
        labels=labels,
        guide=guide,
        kept=kept,
        regions=regions,
    )


def reach(config: RegistrationConfig) -> int:
    """How many voxels the descriptions look around."""
    return max(map(reach_of, config.compared))


def searched_throughout(subject: Subject, levels: list[Described]) -> tuple[Described, BothWays | None]:
    """Search on all levels, each of which is let go once it is done; without a search, nothing has moved yet.

    Returns the last level and displacements in its nodes; none where an image has no contrast to go by.

    Raises
    ------
    InputError
        If nothing with evidence in one image meets anything in the other, where they lie or as found.
    """
    grid, fields, level = subject.grid, None, levels[0]
    if not comparable(level):
        return level, None
    for search in subject.config.searches:
        before, level = level.spacing, levels.pop(0)
        start = None if fields is None else on_level(fields, before, level.spacing, grid.shape)
        fields = searched(search, level, start, grid)
    still = level.still()
    if not _met(level, still) and not (fields and _met(level, fields[0])):
        raise InputError(
            "nothing within the fixed mask meets anything within the moving mask, within the reach of the search: "
            "they do not overlap; check the masks and affines, or bring the images closer first"
        )
    return level, fields or (still, None)


def _met(level: Described, displacement: Field) -> bool:
    """Whether anything with evidence in the fixed image meets any in the moving one."""
    return bool((evidence_under(displacement, *level.weights) > 0).any())


def searched(search: ConvexSearch, level: Described, start: BothWays | None, grid: Grid) -> BothWays:
    """Displacements in cells, from a start in cells."""
    _, radius = search.nodes(grid.shape, grid.spacing_mm)
    fixed, moving = level.weights
    pairs = level.pairs, level.swapped().pairs
    return search.on_cells(*level.features, radius, fixed_weight=fixed, moving_weight=moving, start=start, pairs=pairs)


def refined_throughout(
    subject: Subject,
    start: BothWays,
    before: Triple,
    levels: Callable[[int], Described] | None = None,
    *,
    marks: tuple[int, ...] = (),
) -> tuple[Described, list[BothWays]]:
    """Refine on all levels, twice where what changes volume is to be found first.

    Returns the last level and displacements in its nodes, from a start in nodes ``before`` voxels apart: those in the
    end or, of the one run, those after each of ``marks`` iterations on the last level. ``levels`` describes a level, by
    number; ``None`` does it anew.
    """
    config, shape, levels = subject.config, subject.grid.shape, levels or subject.refined
    assert config.continuous is not None
    if subject.kept is None and config.continuous.keeps_conspicuous:
        free = dataclasses.replace(config, continuous=config.continuous.free())
        level, [(found, _)] = refined_throughout(dataclasses.replace(subject, config=free), start, before, levels)
        mask = volume_mask(found, mask=level.weights[0])[None]
        subject = dataclasses.replace(subject, kept=nodes_to_voxels(mask, level.spacing, shape)[0])
    fields, last = [start], len(config.continuous.levels) - 1
    for number in range(last + 1):
        level = levels(number)
        kept = pool_weight(subject.kept, level.spacing)
        begin = on_level(fields[0], before, level.spacing, shape)
        fields = refined(config, number, level, begin, kept, marks=marks if number == last else ())
        before = level.spacing
    return level, fields


def refined(
    config: RegistrationConfig,
    number: int,
    level: Described,
    start: BothWays,
    kept: Volume | None = None,
    *,
    marks: tuple[int, ...] = (),
) -> list[BothWays]:
    """Displacements in nodes of a level, from a start in nodes; inverse of each other if the settings ask for it.

    What is known of the fixed image alone, the moving image sees through the start. For ``marks`` see
    `refined_throughout`.
    """
    refine = config.continuous
    assert refine is not None

    def one_way(seen: Described, begin: Field, kept: Volume | None) -> list[Field]:
        passed: dict[int, Field] = {}
        fixed, moving = seen.weights
        end = refine.on_nodes(
            *seen.features,
            level=number,
            start=begin,
            fixed_weight=fixed,
            moving_weight=moving,
            costs=_guiding(refine, seen, begin),
            guide=seen.edges[0],
            soft_mask=kept,
            marks=marks,
            passed=passed.__setitem__,
        )
        return [passed.get(mark, end) for mark in marks] or [end]

    forward, backward = start
    if not config.symmetric or refine.levels[number].one_way:
        return [(end, None) for end in one_way(level, forward, kept)]
    backward = opposite(forward) if backward is None else backward
    swapped, kept_there = level.swapped(), None
    edges_of_fixed = level.edges[0] if level.edges[1] is None else None
    if kept is not None or edges_of_fixed is not None:
        seen = identity_positions(level.shape, like=backward) + backward
        kept_there = None if kept is None else sample_linear(kept[None], seen)[0]
        if edges_of_fixed is not None:
            swapped = dataclasses.replace(swapped, edges=(sample_nearest(edges_of_fixed, seen), None))
    there, back = one_way(level, forward, kept), one_way(swapped, backward, kept_there)
    return [make_inverse_consistent(*both) for both in zip(there, back, strict=True)]


def _guiding(refine: Refinement, level: Described, start: Field) -> list[PairCost]:
    """Landmarks as costs, on the scale of the similarity as the level begins."""
    pairs = level.pairs
    if pairs is None:
        return []
    comparison = refine.similarity.begin(*level.features, start, level.weights)
    return [PairCost(pairs, start, curvature=mean_curvature(comparison, start))]


def on_level(fields: BothWays, before: Triple, after: Triple, shape: Triple) -> BothWays:
    """Bring displacements in nodes from one spacing to another."""
    if before == after:
        return fields
    forward, backward = (
        None if f is None else in_nodes(nodes_to_nodes(in_voxels(f, before), before, after, shape), after)
        for f in fields
    )
    assert forward is not None
    return forward, backward


def in_mm(refine: Refinement | None, nodes: Field, spacing: Triple, grid: Grid) -> DisplacementField:
    """Return the transform on the voxels of the grid, from displacements in nodes."""
    nodes_mm = linear_part(grid.affine, in_voxels(nodes, spacing))  # while they are few
    if refine is not None:
        return DisplacementField(refine.on_voxels(nodes_mm, spacing, grid.shape), grid)
    return DisplacementField(nodes_to_voxels(nodes_mm, spacing, grid.shape), grid)


def ended(
    given: Given,
    begun: Placed,
    config: RegistrationConfig,
    grid: Grid,
    spacing: Triple,
    fields: BothWays,
) -> tuple[DisplacementField, Transform | None, dict[str, float]]:
    """Bring displacements in nodes back to the images: the transform, its inverse if asked for, and figures of both."""
    fold_free = _fold_free(config)
    transform, figures = finished(
        _on_fixed(given, begun, config, grid, spacing, fields[0]), given.fixed.grid, fold_free=fold_free
    )
    if given.landmarks is not None:
        figures |= given.landmarks.described(transform)
    inverse: Transform | None = None
    if config.symmetric and fields[1] is None:  # the last levels were one-way
        inverse = transform.inverse(given.moving)
    elif config.symmetric and fields[1] is not None:
        fixed = given.fixed.grid
        back = in_mm(config.continuous, fields[1], spacing, grid).resample_onto(fixed).disp_mm
        inverse, _ = finished(back, fixed, fold_free=fold_free)
        if not (isinstance(begun.start, Affine) and begun.start.is_identity):
            inverse = compose(begun.start.inverse(), inverse)
    return transform, inverse, figures


def transform_alone(
    given: Given, begun: Placed, config: RegistrationConfig, grid: Grid, spacing: Triple, field: Field
) -> DisplacementField:
    """Return the transform of `ended` without the rest, which takes as long."""
    disp_mm = _on_fixed(given, begun, config, grid, spacing, field)
    if not _fold_free(config):
        return DisplacementField(disp_mm, given.fixed.grid)
    return finished(disp_mm, given.fixed.grid, fold_free=True)[0]


def _fold_free(config: RegistrationConfig) -> bool:
    return config.continuous is not None and config.continuous.parametrisation.fold_free


def _on_fixed(
    given: Given, begun: Placed, config: RegistrationConfig, grid: Grid, spacing: Triple, nodes: Field
) -> Field:
    """Displacements in mm on the fixed image's grid, from linear start and displacements in nodes."""
    disp_mm = in_mm(config.continuous, nodes, spacing, grid).resample_onto(given.fixed.grid).disp_mm
    return begun.start.after(given.fixed.grid, disp_mm, disp_mm)
