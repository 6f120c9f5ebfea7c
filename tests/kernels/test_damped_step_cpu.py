"""The damped second-order step of the CPU against torch in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, is_vectorised, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.damped_step import cpu, damped_step, reference


def _maps(shape: Shape) -> list[torch.Tensor]:
    """Gradient and curvature of each node, and others in the place of their means; some nodes have no curvature."""
    maps = [torch.cat([noise(3, *shape, seed=s), oracles.uniform(1, *shape, seed=s + 2).float()]) for s in (0, 1)]
    for each in maps:
        each[3] = (each[3] - 0.2).clamp_min(0)
    return maps


def _after(function: Any) -> Any:
    """Run on copies that lie in memory alike; the means afterwards, and the gain as a share of its terms."""

    def run(slopes: torch.Tensor, means: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        changed = means.clone() if means.is_contiguous() else scattered(means)
        gain = function(slopes, changed, **options)
        gain = gain[1] if isinstance(gain, tuple) else gain
        g, v = (m.double().contiguous() for m in (slopes, changed[:3]))  # sums depend on strides
        terms = (g[:3] * v).abs().sum() + (g[3] * v.square()).sum() / 2
        return changed, gain / terms

    return run


EPS = torch.finfo(torch.float32).eps
FUSED, TORCH = _after(on_cpu(damped_step)), _after(reference.damped_step)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "longest"), pairwise([1, 3], [*SHAPES, NODES], [math.inf, 0.5, 2.0]), indirect=["threads"]
)
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


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
def test_non_contiguous_maps_change_in_place(which: tuple[int, ...]) -> None:
    maps = [scattered(m) if n in which else m for n, m in enumerate(_maps((5, 7, 6)))]
    assert [n for n, m in enumerate(maps) if not m.is_contiguous()] == list(which)
    options: dict[str, Any] = {"damping": 1.0, "longest": 0.5}
    assert_within_budget(FUSED, TORCH, *maps, **options, floor=12 * EPS)
    expected = FUSED(*_maps((5, 7, 6)), **options)
    assert all(torch.equal(a, b) for a, b in zip(FUSED(*maps, **options), expected, strict=True))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "longest"), pairwise([1, 3], [*SHAPES, NODES], [math.inf, 0.5]), indirect=["threads"]
)
def test_momentum_errs_no_more_than_torch(shape: Shape, longest: float) -> None:
    def after(function: Any, copy: Any = torch.clone) -> Any:
        def run(slopes: torch.Tensor, means: torch.Tensor, velocity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            changed, moved = copy(means), copy(velocity)
            scale = torch.full((), 0.5, dtype=means.dtype)
            assert function(slopes, changed, moved, momentum=0.4, damping=2.0, scale=scale, longest=longest)
            assert torch.equal(changed[:3], moved)
            return changed, moved

        return run

    maps = *_maps(shape), noise(3, *shape, seed=5)
    assert_within_budget(after(cpu.momentum_step), after(reference.momentum_step), *maps)
    contiguous, other = (after(cpu.momentum_step, copy)(*maps) for copy in (torch.clone, scattered))
    assert all(torch.equal(a, b) for a, b in zip(contiguous, other, strict=True))


def test_leaves_the_rest_alone() -> None:
    slopes, means = _maps((3, 4, 5))
    before = slopes.clone(), means.clone()
    step, _ = on_cpu(damped_step)(slopes, means, damping=1.0)
    assert step.data_ptr() == means.data_ptr()
    assert not torch.equal(step, before[1][:3])
    assert torch.equal(means[3], before[1][3])
    assert torch.equal(slopes, before[0])


def test_the_loop_is_vectorised() -> None:
    slopes, means, velocity = np.ones((3, 4, 4096), np.float32)
    assert is_vectorised(cpu._compute_step, 0, 4096, slopes, means, velocity[:3], *np.ones(3, np.float32))
