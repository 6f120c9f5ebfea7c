"""The cost volume of the CPU against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.cost_volume import cost_volume, reference
from convexadam.kernels.window import Window

WINDOWS = [Window((0, 0, 0)), Window((1, 2, 1)), Window((0, 0, 3)), Window((2, 3, 1), ball=True)]
HALF_EPS = 2.0**-11
"""Half of the distance between two neighbours in float16, relative."""


def _pair(channels: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(channels, *shape, seed=1), noise(channels, *shape, seed=2)


def _weights(shape: Shape, given: str) -> dict[str, torch.Tensor | None]:
    return {
        "fixed_weight": gaps(*shape, seed=3) if given in ("fixed", "both") else None,
        "moving_weight": gaps(*shape, seed=5) if given in ("moving", "both") else None,
    }


def _reference(fixed: torch.Tensor, moving: torch.Tensor, window: Window, **weights: Any) -> torch.Tensor:
    return reference.cost_volume(fixed, moving, window, dtype=fixed.dtype, **weights)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "window", "given"),
    pairwise([1, 3], SHAPES, WINDOWS, ["none", "fixed", "moving", "both"]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, window: Window, given: str) -> None:
    assert_within_budget(on_cpu(cost_volume), _reference, *_pair(3, shape), window, **_weights(shape, given))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("channels", [1, 12, 17])
def test_any_number_of_channels(channels: int) -> None:
    shape, window = (6, 9, 8), Window((1, 2, 2))
    assert_within_budget(on_cpu(cost_volume), _reference, *_pair(channels, shape), window, **_weights(shape, "both"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (4, 1, 2)])
@pytest.mark.parametrize("window", [Window((5, 5, 5)), Window((1, 7, 0)), Window((0, 2, 9), ball=True)], ids=str)
def test_windows_larger_than_the_volume(shape: Shape, window: Window) -> None:
    assert_within_budget(on_cpu(cost_volume), _reference, *_pair(3, shape), window, **_weights(shape, "both"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("ball", [False, True])
def test_of_a_usual_size(ball: bool) -> None:
    shape, window = (20, 24, 26), Window((3, 3, 3), ball=ball)
    assert_within_budget(on_cpu(cost_volume), _reference, *_pair(12, shape), window, **_weights(shape, "both"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "given", "factor"),
    pairwise([1, 3], SHAPES, ["none", "both"], [1e-3, 1.0, 30.0]),
    indirect=["threads"],
)
def test_half_precision_is_that_of_single_precision_rounded(shape: Shape, given: str, factor: float) -> None:
    fixed, moving = (factor * features for features in _pair(3, shape))
    weights = _weights(shape, given)
    plain = on_cpu(cost_volume)(fixed, moving, WINDOWS[1], **weights)
    found = on_cpu(cost_volume)(fixed, moving, WINDOWS[1], **weights, dtype=torch.float16)
    assert found.dtype == torch.float16
    # A cost without evidence is a mean of rounded numbers, and rounded again. The least number above 0 is 2^-24.
    allowed = 2 * HALF_EPS * plain + 2.0**-24
    assert bool(((found.float() - plain).abs() <= allowed).all())
    if given == "none" and min(shape) > 4:  # all displacements have evidence somewhere near
        assert bool(((found.float() - plain).abs() <= HALF_EPS * plain + 2.0**-25).all())


def test_costs_beyond_half_precision_are_its_largest() -> None:
    fixed, moving = _pair(12, (5, 7, 6))
    found = on_cpu(cost_volume)(500 * fixed, 500 * moving, WINDOWS[1], dtype=torch.float16)
    plain = on_cpu(cost_volume)(500 * fixed, 500 * moving, WINDOWS[1])
    assert plain.min() > 65504
    assert found.unique().tolist() == [65504]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_evidence_a_displacement_costs_the_mean_of_the_others(dtype: torch.dtype) -> None:
    # 9 cells in a row: from the last one, displacements of 3 and more find nothing within two cells.
    fixed, moving = noise(3, 9, 1, 1, seed=1), noise(3, 9, 1, 1, seed=2)
    window = Window((6, 0, 0))
    costs = on_cpu(cost_volume)(fixed, moving, window, dtype=dtype)[:, -1, 0, 0].double()
    known = [step[0] <= 2 for step in window.steps]
    mean = costs[known].mean()
    assert 0 < sum(known) < len(known)
    torch.testing.assert_close(costs[[not k for k in known]], mean.expand(4), rtol=4 * HALF_EPS, atol=0)
    assert costs[known].std() > 0.01 * mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("which", ["fixed_weight", "moving_weight"])
def test_no_evidence_at_all_costs_nothing(dtype: torch.dtype, which: str) -> None:
    shape = (4, 5, 6)
    found = on_cpu(cost_volume)(*_pair(3, shape), WINDOWS[1], dtype=dtype, **{which: torch.zeros(shape)})
    assert not found.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equal_features_cost_nothing_where_they_lie(dtype: torch.dtype) -> None:
    fixed, _ = _pair(12, (5, 7, 6))
    window = WINDOWS[1]
    found = on_cpu(cost_volume)(fixed, fixed, window, dtype=dtype)
    still = window.steps.index((0, 0, 0))
    assert not found[still].any()
    assert bool((found[[n for n in range(len(window.steps)) if n != still]] > 0).all())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_non_contiguous_inputs(dtype: torch.dtype) -> None:
    shape = (7, 9, 8)
    fixed, moving = (scattered(features) for features in _pair(3, shape))
    weights = {name: scattered(w) for name, w in _weights(shape, "both").items() if w is not None}
    assert not any(t.is_contiguous() for t in (fixed, moving, *weights.values()))
    found = on_cpu(cost_volume)(fixed, moving, WINDOWS[1], **weights, dtype=dtype)
    plain = on_cpu(cost_volume)(*_pair(3, shape), WINDOWS[1], **_weights(shape, "both"), dtype=dtype)
    assert torch.equal(found, plain)


def test_the_inputs_are_left_alone() -> None:
    shape = (3, 4, 5)
    given = [*_pair(2, shape), gaps(*shape, seed=3), gaps(*shape, seed=5)]
    before = [t.clone() for t in given]
    on_cpu(cost_volume)(*given[:2], WINDOWS[1], fixed_weight=given[2], moving_weight=given[3])
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_features_in_another_order_of_memory() -> None:
    shape, window = (6, 5, 8), Window((1, 2, 1))
    pair, weights = _pair(4, shape), _weights(shape, "both")
    other = [features[None].to(memory_format=torch.channels_last_3d)[0] for features in pair]
    strange = [features.contiguous(memory_format=torch.channels_last) for features in pair]
    expected = on_cpu(cost_volume)(*pair, window, **weights)
    assert torch.equal(on_cpu(cost_volume)(*other, window, **weights), expected)
    assert torch.equal(on_cpu(cost_volume)(*strange, window, **weights), expected)
