"""The Triton kernel of a damped second-order step against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import math
import os
from typing import Any

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.damped_step import reference
from convexadam.kernels.damped_step.triton import damped_step, judge_step, momentum_step

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (13, 17, 9)]

Shape = tuple[int, int, int]


def _maps(shape: Shape) -> list[torch.Tensor]:
    """Gradient and curvature of each node, and others in the place of their means; some nodes have no curvature."""
    maps = [torch.cat([oracles.noise(3, *shape, seed=s), oracles.uniform(1, *shape, seed=s + 2)]) for s in (0, 1)]
    for each in maps:
        each[3] = (each[3] - 0.2).clamp_min(0)
    return [each.float().to(DEVICE) for each in maps]


def _after(function: Any) -> Any:
    """Run on copies; the means afterwards, and the gain as a share of its terms."""

    def run(slopes: torch.Tensor, means: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        changed = means.clone(memory_format=torch.preserve_format)
        gain = function(slopes, changed, **options)
        g, v = slopes.double(), changed[:3].double()
        terms = (g[:3] * v).abs().sum() + (g[3] * v.square()).sum() / 2
        return changed, gain / terms

    return run


EPS = torch.finfo(torch.float32).eps
FUSED, TORCH = _after(damped_step), _after(reference.damped_step)


@pytest.mark.parametrize("shape", SHAPES)  # the last has more nodes than a program
@pytest.mark.parametrize("longest", [math.inf, 0.5, 2.0])
def test_errs_no_more_than_torch(shape: Shape, longest: float) -> None:
    # steps of up to 8 nodes are rounded three times, the terms of the gain some twelve times
    assert_within_budget(FUSED, TORCH, *_maps(shape), damping=1.0, longest=longest, floor=12 * EPS)


@pytest.mark.parametrize("factor", [2.0**-30, 2.0**20])
def test_the_size_of_the_loss_does_not_matter(factor: float) -> None:
    slopes, means = _maps((5, 7, 6))
    expected, gain = FUSED(slopes, means, damping=0.25, longest=0.5)
    found, other = FUSED(factor * slopes, factor * means, damping=factor * 0.25, longest=0.5)
    # Powers of 2 change no digit.
    assert torch.equal(found[:3], expected[:3])
    assert other == gain


def test_non_contiguous_maps_change_in_place() -> None:
    maps = [m.transpose(1, 3) for m in _maps((4, 5, 6))]
    assert not any(m.is_contiguous() for m in maps)
    assert_within_budget(FUSED, TORCH, *maps, damping=1.0, longest=0.5, floor=12 * EPS)


def test_leaves_the_rest_alone() -> None:
    slopes, means = _maps((3, 4, 5))
    before = slopes.clone(), means.clone()
    damped_step(slopes, means, damping=1.0, longest=0.5)
    assert not torch.equal(means[:3], before[1][:3])
    assert torch.equal(means[3], before[1][3])
    assert torch.equal(slopes, before[0])


def test_damping_and_its_scale_may_be_on_the_device() -> None:
    slopes, means = _maps((5, 7, 6))
    damping, scale = torch.tensor(1.5, dtype=torch.float64, device=DEVICE), torch.tensor(0.5, device=DEVICE)
    expected, found = means.clone(), means.clone()
    gain = damped_step(slopes, expected, damping=0.75, longest=0.5)
    assert damped_step(slopes, found, damping=damping, scale=scale, longest=0.5) == gain
    assert torch.equal(found, expected)


@pytest.mark.parametrize("decrease", [0.9, 0.5, 0.2, 0.0, -0.1, math.nan])
@pytest.mark.parametrize("scale", [2.0, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("before", [0.75, 8.0, 5e5])
def test_judges_as_torch_does(decrease: float, scale: float, dtype: torch.dtype, before: float) -> None:
    numbers = [torch.tensor(v, dtype=dtype, device=DEVICE) for v in (4.0, 4 - 4 * decrease)]
    predicted, steep = torch.tensor(4.0, dtype=torch.float64, device=DEVICE), torch.tensor(scale, device=DEVICE)
    dampings = [torch.tensor(before, dtype=torch.float64, device=DEVICE) for _ in range(2)]
    taken = [
        judge(damping, *numbers, predicted, steep, least=0.5)
        for judge, damping in zip((judge_step, reference.judge_step), dampings, strict=True)
    ]
    assert taken[0].dtype == torch.bool
    assert taken[0] == taken[1]
    assert dampings[0] == dampings[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("longest", [math.inf, 0.5])
def test_momentum_errs_no_more_than_torch(shape: Shape, longest: float) -> None:
    def after(function: Any) -> Any:
        def run(slopes: torch.Tensor, means: torch.Tensor, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            changed, moved = means.clone(), velocity.clone()
            scale = torch.full((), 0.5, dtype=means.dtype, device=means.device)
            taken = function(slopes, changed, moved, momentum=0.4, damping=2.0, scale=scale, longest=longest)
            assert taken
            return changed, moved

        return run

    velocity = oracles.noise(3, *shape, seed=5, dtype=torch.float32).to(DEVICE)
    assert_within_budget(after(momentum_step), after(reference.momentum_step), *_maps(shape), velocity)


@pytest.mark.parametrize("scale", [0.0, math.nan])
def test_without_curvature_no_momentum_is_to_be_taken(scale: float) -> None:
    maps, steep = _maps((3, 4, 5)), torch.tensor(scale, device=DEVICE)
    maps[1][3] += 1  # the interpreter warns of divisions by 0
    velocity = torch.zeros_like(maps[0][:3])
    taken = momentum_step(*maps, velocity, momentum=0.4, damping=1.0, scale=steep, longest=0.5)
    assert taken.dtype == torch.bool
    assert not taken
