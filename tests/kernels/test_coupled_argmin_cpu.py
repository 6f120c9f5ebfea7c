"""The coupled argmin of the CPU against torch in float64: what is compared are the costs of what is chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import SHAPES, Shape, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.coupled_argmin import coupled_argmin, reference
from convexadam.kernels.window import Window

WINDOWS = [Window((0, 0, 0)), Window((1, 2, 1)), Window((0, 3, 0)), Window((2, 3, 1), ball=True)]
DTYPES = [torch.float32, torch.float16]


def _costs(window: Window, shape: Shape, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return noise(len(window.steps), *shape, seed=1).square().to(dtype)


def _toward(shape: Shape) -> torch.Tensor:
    return 1.5 * noise(3, *shape, seed=2)


def _sum_at(chosen: torch.Tensor, costs: torch.Tensor, window: Window, pull: dict[str, Any]) -> torch.Tensor:
    """Both terms in float64 at whole displacements, ``[i, j, k]``."""
    numbers = torch.zeros(chosen.shape[1:], dtype=torch.int64) - 1
    for number, step in enumerate(window.steps):
        numbers[(chosen == torch.tensor(step).reshape(3, 1, 1, 1)).all(0)] = number
    assert bool((numbers >= 0).all())  # nothing beside the window is chosen
    found = costs.double().gather(0, numbers[None])[0]
    if pull:
        found += pull["theta"] * (chosen.double() - pull["toward"].double()).square().sum(0)
    return found


def _lowest(costs: torch.Tensor, window: Window, pull: dict[str, Any]) -> torch.Tensor:
    """Least sum of both terms in float64, ``[i, j, k]``."""
    steps = torch.tensor(window.steps).reshape(-1, 3, 1, 1, 1)
    total = costs.double()
    if pull:
        total = total + pull["theta"] * (steps - pull["toward"].double()).square().sum(1)
    return total.amin(0)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "window", "theta", "dtype"),
    pairwise([1, 3], SHAPES, WINDOWS, [None, 0.0, 0.3, 50.0], DTYPES),
    indirect=["threads"],
)
def test_the_cheapest_is_chosen(shape: Shape, window: Window, theta: float | None, dtype: torch.dtype) -> None:
    costs = _costs(window, shape, dtype)
    pull: dict[str, Any] = {} if theta is None else {"toward": _toward(shape), "theta": theta}
    found = on_cpu(coupled_argmin)(costs, window, **pull)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    lowest = _lowest(costs, window, pull)
    # Four terms, the largest of them at most the sum; three of them squared differences of rounded numbers.
    allowed = 2 * 8 * torch.finfo(torch.float32).eps * lowest
    assert bool((_sum_at(found, costs, window, pull) <= lowest + allowed).all())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "window", "theta", "dtype"),
    pairwise([1, 3], SHAPES, WINDOWS, [None, 0.3], DTYPES),
    indirect=["threads"],
)
def test_parabolas_err_no_more_than_those_of_torch(
    shape: Shape, window: Window, theta: float | None, dtype: torch.dtype
) -> None:
    costs = _costs(window, shape, dtype)
    if dtype == torch.float16:  # in 16 bits costs tie, and the pull alone decides
        costs += 1e-3 * torch.arange(len(window.steps)).reshape(-1, 1, 1, 1).half()
    pull: dict[str, Any] = {} if theta is None else {"toward": _toward(shape), "theta": theta}
    assert_within_budget(on_cpu(coupled_argmin), reference.coupled_argmin, costs, window, **pull, parabolic_fit=True)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("theta", [None, 0.3])
def test_of_a_usual_size(theta: float | None) -> None:
    shape, window = (20, 24, 26), Window((3, 3, 3), ball=True)
    pull: dict[str, Any] = {} if theta is None else {"toward": _toward(shape), "theta": theta}
    costs = _costs(window, shape)
    assert_within_budget(on_cpu(coupled_argmin), reference.coupled_argmin, costs, window, **pull, parabolic_fit=True)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equal_costs_the_smallest_displacement_wins(window: Window, dtype: torch.dtype) -> None:
    shape = (3, 10, 11)
    costs = torch.ones(len(window.steps), *shape, dtype=dtype)
    assert not on_cpu(coupled_argmin)(costs, window).any()
    costs[window.steps.index((0, 0, 0))] = 2
    found = on_cpu(coupled_argmin)(costs, window)
    assert torch.equal(found, reference.coupled_argmin(costs, window))
    assert bool((found.abs().sum(0) == (len(window.steps) > 1)).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_costs_tie_as_those_of_torch_do(dtype: torch.dtype) -> None:
    window, shape = Window((1, 2, 1)), (5, 7, 6)
    costs = (3 * _costs(window, shape)).round().to(dtype)
    found = on_cpu(coupled_argmin)(costs, window)
    assert torch.equal(found, reference.coupled_argmin(costs, window))
    pull = {"toward": _toward(shape).round(), "theta": 2.0}
    assert torch.equal(on_cpu(coupled_argmin)(costs, window, **pull), reference.coupled_argmin(costs, window, **pull))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [2.0**-12, 1.0, 2.0**12])
def test_the_size_of_costs_does_not_matter(dtype: torch.dtype, factor: float) -> None:
    window, shape = WINDOWS[3], (5, 7, 6)
    costs = (0.5 + _costs(window, shape).clamp(0, 10)).to(dtype)  # within the range of 16 bits, whatever the factor
    pull = {"toward": _toward(shape), "parabolic_fit": True}
    expected = on_cpu(coupled_argmin)(costs, window, theta=0.3, **pull)
    found = on_cpu(coupled_argmin)(factor * costs.float(), window, theta=factor * 0.3, **pull)
    assert torch.equal(found, expected)  # powers of 2 change no digit


@pytest.mark.parametrize("value", [2.0**-24, 3 * 2.0**-24, 2.0**-14, 1.0, 65504.0])
def test_half_precision_is_read_to_the_last_bit(value: float) -> None:
    window = Window((1, 0, 0))
    costs = torch.full((3, 2, 3, 4), 65504.0, dtype=torch.float16)
    costs[0] = value
    costs[1] = torch.nextafter(torch.tensor(value).half(), torch.tensor(torch.inf).half()).clamp_max(65504)
    found = on_cpu(coupled_argmin)(costs, window)
    assert torch.equal(found, reference.coupled_argmin(costs.double(), window).float())
    flat = on_cpu(coupled_argmin)(costs, window, parabolic_fit=True)
    torch.testing.assert_close(flat, reference.coupled_argmin(costs, window, parabolic_fit=True))


def test_bfloat16_is_compared_in_float32() -> None:
    window = WINDOWS[1]
    costs = _costs(window, (4, 5, 6), torch.bfloat16)
    found = on_cpu(coupled_argmin)(costs, window, parabolic_fit=True)
    assert torch.equal(found, on_cpu(coupled_argmin)(costs.float(), window, parabolic_fit=True))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_contiguous_inputs(dtype: torch.dtype) -> None:
    window, shape = WINDOWS[3], (7, 9, 8)
    costs, toward = _costs(window, shape, dtype), _toward(shape)
    expected = on_cpu(coupled_argmin)(costs, window, toward=toward, theta=0.3, parabolic_fit=True)
    strided = scattered(costs), scattered(toward)
    assert not any(t.is_contiguous() for t in strided)
    found = on_cpu(coupled_argmin)(strided[0], window, toward=strided[1], theta=0.3, parabolic_fit=True)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inputs_are_left_alone(dtype: torch.dtype) -> None:
    window = WINDOWS[1]
    costs, toward = _costs(window, (3, 4, 5), dtype), _toward((3, 4, 5))
    before = costs.clone(), toward.clone()
    on_cpu(coupled_argmin)(costs, window, toward=toward, theta=0.5, parabolic_fit=True)
    assert torch.equal(costs, before[0])
    assert torch.equal(toward, before[1])
