"""The loop over levels, `Refinement.refine`: its snapshots, and both directions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.continuous import (
    Adam,
    BilateralSmoothing,
    Compositional,
    Diffusion,
    Level,
    LevenbergMarquardt,
    Refinement,
    Snapshot,
    StationaryVelocity,
    VolumePreserving,
    volume_mask,
)
from convexadam.discrete import estimate_inverse, make_inverse_consistent
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.resize import pool

SHAPE = (12, 10, 8)
OPTIMISERS: list[Any] = [Adam(learning_rate=0.1), LevenbergMarquardt()]
PARAMETRISATIONS: list[Any] = [Compositional(), StationaryVelocity()]
LEVELS = (Level(spacing=2, iterations=3), Level(spacing=1, iterations=7))


def _maps() -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(2, *SHAPE), oracles.noise(2, *SHAPE, seed=1)


def _extractor(spacings: list[int], calls: list[int] | None = None, **options: Any) -> Callable[[int], FeatureLevel]:
    """Features of each level, pooled from voxels."""

    def extract(number: int) -> FeatureLevel:
        if calls is not None:
            calls.append(number)
        spacing = (spacings[number],) * 3
        fixed, moving = (pool(m, spacing) for m in _maps())
        return FeatureLevel(fixed=fixed, moving=moving, spacing=spacing, **options)

    return extract


def _start() -> ForwardBackward:
    return ForwardBackward(forward=oracles.uniform(3, 6, 5, 4, seed=2, low=-0.5, high=0.5), spacing=(2, 2, 2))


def _refine(refinement: Refinement, **options: Any) -> list[Snapshot]:
    extract = _extractor([int(level.spacing) for level in refinement.levels])  # type: ignore[arg-type]
    return list(refinement.refine(extract, _start(), SHAPE, **options))


def _with_iterations(refinement: Refinement, iterations: int) -> Refinement:
    last = dataclasses.replace(refinement.levels[-1], iterations=iterations)
    return dataclasses.replace(refinement, levels=(*refinement.levels[:-1], last))


def _assert_equal(found: ForwardBackward, expected: ForwardBackward) -> None:
    assert found.spacing == expected.spacing
    assert torch.equal(found.forward, expected.forward)
    assert (found.backward is None) == (expected.backward is None)
    if found.backward is not None:
        assert expected.backward is not None
        assert torch.equal(found.backward, expected.backward)


# Snapshots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_each_level_yields_its_beginning_and_its_end(symmetric: bool) -> None:
    snapshots = _refine(Refinement(levels=LEVELS), symmetric=symmetric)
    assert [(s.level, s.iteration) for s in snapshots] == [(0, 0), (0, 3), (1, 0), (1, 7)]
    assert [s.fields.spacing for s in snapshots] == [s.features.spacing for s in snapshots]
    # a level begins with the displacements of the one before, in its own control points
    _assert_equal(snapshots[0].fields, _start())
    _assert_equal(snapshots[2].fields, snapshots[1].fields.resample((1, 1, 1), SHAPE))
    assert (snapshots[-1].fields.backward is not None) == symmetric


@pytest.mark.parametrize(
    ("symmetric", "optimiser", "parametrisation", "tolerance"),
    pairwise([False, True], OPTIMISERS, PARAMETRISATIONS, [0.0, 1e-3]),
)
def test_a_snapshot_equals_the_result_of_as_many_iterations(
    symmetric: bool, optimiser: Any, parametrisation: Any, tolerance: float
) -> None:
    refinement = Refinement(
        levels=LEVELS, optimiser=optimiser, parametrisation=parametrisation, tolerance=tolerance, regularisers=()
    )
    snapshots = _refine(refinement, symmetric=symmetric, iterations=(4, 1, 7, 0))
    assert [(s.level, s.iteration) for s in snapshots[2:]] == [(1, 0), (1, 0), (1, 1), (1, 4), (1, 7)]
    for snapshot in snapshots[3:]:
        alone = _refine(_with_iterations(refinement, snapshot.iteration), symmetric=symmetric)[-1]
        _assert_equal(snapshot.fields, alone.fields)
    fields = [s.fields.forward for s in snapshots[3:]]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(fields))


def test_iteration_0_is_smoothed_by_an_additive_parametrisation() -> None:
    """It smooths its displacement before the first step, so that a run without iterations is not its start."""
    first, zero, *_ = _refine(Refinement(levels=LEVELS[1:]), iterations=(0,))
    assert first.iteration == zero.iteration == 0
    assert not torch.equal(first.fields.forward, zero.fields.forward)
    _assert_equal(zero.fields, _refine(Refinement(levels=(Level(spacing=1, iterations=0),)))[-1].fields)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_tolerance_ends_the_snapshots(symmetric: bool, optimiser: Any) -> None:
    refinement = Refinement(levels=(Level(spacing=1, iterations=40),), optimiser=optimiser, tolerance=0.1)
    snapshots = _refine(refinement, symmetric=symmetric, iterations=(2, 6, 38, 40))
    end = snapshots[-1].iteration
    assert 6 <= end < 38
    assert end % 5 == 1
    assert [s.iteration for s in snapshots] == sorted({0, 2, 6, end})
    for snapshot in snapshots[1:]:
        alone = _refine(_with_iterations(refinement, snapshot.iteration), symmetric=symmetric)[-1]
        _assert_equal(snapshot.fields, alone.fields)


def test_a_direction_that_converged_before_the_other_keeps_its_last_displacement() -> None:
    # one image is smooth and one is not, so that the directions converge after different numbers of iterations
    fixed, moving = _maps()
    fixed = torch.from_numpy(oracles.smooth(fixed.numpy(), (0.25, 0.5, 0.25)))
    level = FeatureLevel(fixed=fixed, moving=moving)
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=60),), optimiser=OPTIMISERS[0], tolerance=0.02, regularisers=()
    )
    start = ForwardBackward(forward=level.zero_displacement(), backward=level.zero_displacement())

    def count(features: FeatureLevel) -> int:
        return list(refinement.refine(lambda _: features, start, SHAPE))[-1].iteration

    counts = count(level), count(level.swap())
    assert counts[0] != counts[1]
    snapshots = list(refinement.refine(lambda _: level, start, SHAPE, symmetric=True, iterations=(min(counts),)))
    assert [s.iteration for s in snapshots] == [0, min(counts), max(counts)]
    directions = [refinement.refine_level(features) for features in (level, level.swap())]
    forward, backward = make_inverse_consistent(*directions)
    _assert_equal(snapshots[-1].fields, ForwardBackward(forward=forward, backward=backward))


def test_snapshots_have_their_own_memory() -> None:
    snapshots = _refine(Refinement(levels=LEVELS), iterations=(1, 2, 3))
    copies = [s.fields.forward.clone() for s in snapshots]
    addresses = {s.fields.forward.data_ptr() for s in snapshots}
    assert len(addresses) == len(snapshots)
    assert all(torch.equal(s.fields.forward, copy) for s, copy in zip(snapshots, copies, strict=True))
    assert not torch.equal(copies[-1], copies[-2])


def test_features_of_a_level_are_extracted_once_and_not_before_they_are_needed() -> None:
    calls: list[int] = []
    steps = Refinement(levels=LEVELS).refine(_extractor([2, 1], calls), _start(), SHAPE)
    assert calls == []
    for number, expected in enumerate(([0], [0], [0, 1], [0, 1])):
        next(steps)
        assert calls == expected, number


# One loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_call_and_the_loop_give_the_same(optimiser: Any) -> None:
    refinement = Refinement(levels=LEVELS, optimiser=optimiser, parametrisation=Compositional())
    fields = _refine(refinement)[-1].fields
    start = ForwardBackward(forward=_start().forward * 2, spacing=(2, 2, 2))  # in voxels
    fixed, moving = _maps()
    # a start on voxels that pools to the start on control points
    voxels = start.forward.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = refinement(fixed, moving, start=voxels)
    alone = list(refinement.refine(_extractor([2, 1]), ForwardBackward(forward=voxels), SHAPE))[-1].fields
    assert torch.equal(found, alone.forward)
    assert found.shape == fields.forward.shape


def test_one_level_of_the_loop_is_refine_level() -> None:
    refinement = Refinement(levels=LEVELS, parametrisation=Compositional())
    snapshots = _refine(refinement)
    for number in (0, 1):
        begin, end = snapshots[2 * number], snapshots[2 * number + 1]
        found = refinement.refine_level(begin.features, begin.fields.forward, level=number)
        assert torch.equal(found, end.fields.forward)


# Both directions --------------------------------------------------------------------------------------------------


def test_both_directions_are_refined_and_made_inverse_consistent() -> None:
    refinement = Refinement(levels=(Level(spacing=1, iterations=4),), parametrisation=Compositional())
    fixed, moving = _maps()
    level = FeatureLevel(fixed=fixed, moving=moving)
    forward, backward = (oracles.uniform(3, *SHAPE, seed=s, low=-0.5, high=0.5) for s in (3, 4))
    for start in (ForwardBackward(forward=forward, backward=backward), ForwardBackward(forward=forward)):
        found = list(refinement.refine(lambda _: level, start, SHAPE, symmetric=True))[-1].fields
        reverse = estimate_inverse(forward) if start.backward is None else start.backward
        refined = refinement.refine_level(level, forward), refinement.refine_level(level.swap(), reverse)
        u, v = make_inverse_consistent(*refined)
        _assert_equal(found, ForwardBackward(forward=u, backward=v))


def test_a_forward_only_level_has_no_backward_field() -> None:
    levels = (LEVELS[0], dataclasses.replace(LEVELS[1], forward_only=True))
    snapshots = _refine(Refinement(levels=levels), symmetric=True)
    assert [s.fields.backward is None for s in snapshots] == [True, False, True, True]


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_guide_of_the_fixed_image_alone_is_resampled_for_the_backward_direction(symmetric: bool) -> None:
    guide = (torch.arange(SHAPE[0]) < 6).double().reshape(1, -1, 1, 1).expand(1, *SHAPE).contiguous()
    shift = torch.zeros(3, *SHAPE, dtype=torch.float64)
    shift[0] = 2.0
    fixed, moving = _maps()
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=2),),
        parametrisation=Compositional(total_smoothing=BilateralSmoothing(sigma_guide=0.01)),
    )
    start = ForwardBackward(forward=shift, backward=-shift)

    def refine(fixed_guide: torch.Tensor, moving_guide: torch.Tensor | None) -> ForwardBackward:
        level = FeatureLevel(fixed=fixed, moving=moving, fixed_guide=fixed_guide, moving_guide=moving_guide)
        return list(refinement.refine(lambda _: level, start, SHAPE, symmetric=symmetric))[-1].fields

    # the moving image is displaced by 2: x in the moving image is x - 2 in the fixed one, clamped to the first plane
    shifted = torch.cat([guide[:, :1], guide[:, :1], guide[:, :-2]], dim=1)
    _assert_equal(refine(guide, None), refine(guide, shifted))
    assert torch.equal(refine(guide, None).forward, refine(guide, guide).forward) != symmetric


# Volume mask ------------------------------------------------------------------------------------------------------

LARGE = (24, 20, 16)
HALF = (12, 10, 8)
AUTO = VolumePreserving(region="auto", weight=5.0)


def _shrunken_ball() -> ForwardBackward:
    """Waves, and a ball around the middle that shrinks, on control points of two voxels."""
    offsets = torch.from_numpy(oracles.indices(HALF)) - torch.tensor([6.0, 5.0, 4.0]).reshape(3, 1, 1, 1)
    fading = (2 - offsets.norm(dim=0) / 2.5).clamp(0, 1)
    waves = 0.1 * torch.stack([torch.sin(offsets[(a + 1) % 3] / 2 + a) for a in range(3)])
    return ForwardBackward(forward=waves - 0.4 * offsets * fading.square() * (3 - 2 * fading), spacing=(2, 2, 2))


def _preserving(*regularisers: Any) -> Refinement:
    """A few short steps, which keep most of the start."""
    return Refinement(
        levels=(Level(spacing=2, iterations=4),),
        regularisers=regularisers,
        optimiser=Adam(learning_rate=0.01),
        parametrisation=Compositional(),
    )


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_estimated_volume_mask_is_that_of_a_first_refinement_without_the_masked_regularisers(
    symmetric: bool,
) -> None:
    level = FeatureLevel(fixed=oracles.noise(2, *HALF), moving=oracles.noise(2, *HALF, seed=1), spacing=(2, 2, 2))

    def refine(refinement: Refinement, soft_mask: torch.Tensor | None = None) -> ForwardBackward:
        steps = refinement.refine(lambda _: level, _shrunken_ball(), LARGE, symmetric=symmetric, soft_mask=soft_mask)
        return list(steps)[-1].fields

    diffusion = Diffusion(weight=0.1)
    first = refine(_preserving(diffusion))
    mask = volume_mask(first.forward)
    assert 0 < float(mask.mean()) < 0.5
    on_voxels = torch.from_numpy(oracles.control_points_to_voxels(mask[None].numpy(), (2, 2, 2), LARGE))[0]
    found = refine(_preserving(diffusion, AUTO))
    expected = refine(_preserving(diffusion, VolumePreserving(weight=5.0)), on_voxels)
    torch.testing.assert_close(found.forward, expected.forward, rtol=0, atol=1e-9)
    assert not torch.equal(found.forward, first.forward)


class RecordedMask:
    """A regulariser of another package that keeps the soft masks it is given."""

    def __init__(self) -> None:
        self.masks: list[torch.Tensor | None] = []

    def __call__(self, displacement: torch.Tensor, *, add_to: Any = None, soft_mask: Any = None) -> Any:
        self.masks.append(soft_mask)
        return displacement.new_zeros(()), torch.zeros_like(displacement) if add_to is None else add_to


def test_partly_covered_control_points_are_not_part_of_an_estimated_volume_mask() -> None:
    fixed, moving = oracles.noise(2, *LARGE), oracles.noise(2, *LARGE, seed=1)
    weight = torch.ones(LARGE, dtype=torch.float64)
    weight[:11] = 0  # of the control points 5 only one half
    recorded = RecordedMask()
    start = _shrunken_ball()
    on_voxels = torch.from_numpy(oracles.control_points_to_voxels(2 * start.forward.numpy(), (2, 2, 2), LARGE))
    _preserving(AUTO, recorded)(fixed, moving, start=on_voxels, fixed_weight=weight)
    assert recorded.masks[0] is None  # in the first refinement
    mask = recorded.masks[-1]
    assert mask is not None
    assert mask.shape == HALF
    # pooled from the voxels, to which the mask was interpolated: of control point 6 at most a quarter reaches 5
    complete = volume_mask(start.forward, mask=(torch.arange(12) >= 6).double().reshape(12, 1, 1).expand(HALF))
    assert bool(complete[6].max() > 0.5)
    assert not mask[:5].any()
    assert float(mask[5].max()) <= 0.25
    assert float(mask[6].max()) > 0.5
