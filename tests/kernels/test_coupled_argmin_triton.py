"""The coupled argmin of GPUs against torch: interpreted on the CPU, and on a device where there is one."""

from __future__ import annotations

import os
from typing import Any

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported
pytest.importorskip("triton")

from convexadam.kernels.coupled_argmin import reference as in_torch
from convexadam.kernels.coupled_argmin import triton as in_triton
from convexadam.kernels.window import Window

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled here")
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no device")
DEVICES = [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=[pytest.mark.gpu, on_device])]
pytestmark = pytest.mark.parametrize("device", DEVICES)

CASES = [  # cells, radius
    ((1, 1, 1), (0, 0, 0)),
    ((1, 1, 1), (1, 1, 1)),
    ((1, 7, 5), (0, 2, 1)),
    ((13, 17, 9), (1, 2, 1)),  # 45 displacements: no multiple of those in flight
]


class _OnBox:
    """An implementation that takes costs ``[di, dj, dk, i, j, k]`` of a box."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def coupled_argmin(self, costs: torch.Tensor, **options: Any) -> torch.Tensor:
        window = Window((costs.shape[0] // 2, costs.shape[1] // 2, costs.shape[2] // 2))
        return self._module.coupled_argmin(costs.flatten(0, 2), window, **options)


reference, fused = _OnBox(in_torch), _OnBox(in_triton)


def _costs(cells: tuple[int, int, int], radius: tuple[int, int, int], device: str) -> torch.Tensor:
    return oracles.noise(*(2 * r + 1 for r in radius), *cells, seed=1, dtype=torch.float32).to(device)


def _toward(cells: tuple[int, int, int], device: str) -> torch.Tensor:
    return oracles.noise(3, *cells, seed=2, dtype=torch.float32).to(device)


def _cost_of(chosen: torch.Tensor, costs: torch.Tensor, toward: torch.Tensor | None, theta: float) -> torch.Tensor:
    """Sum of both terms in float64 at whole-numbered displacements."""
    index = [chosen[a].long() + n // 2 for a, n in enumerate(costs.shape[:3])]
    cells = torch.meshgrid(*(torch.arange(n, device=costs.device) for n in costs.shape[3:]), indexing="ij")
    found = costs.double()[(*index, *cells)]
    return found if toward is None else found + theta * (chosen.double() - toward.double()).square().sum(0)


@pytest.mark.parametrize(("cells", "radius"), CASES)
@pytest.mark.parametrize("theta", [None, 0.003, 1.0])
def test_no_other_displacement_costs_less(cells, radius, theta: float | None, device: str) -> None:
    costs = _costs(cells, radius, device)
    toward = None if theta is None else _toward(cells, device)
    found = fused.coupled_argmin(costs, toward=toward, theta=theta or 0.0)
    assert found.dtype == torch.float32
    assert found.shape == (3, *cells)
    assert torch.equal(found, found.round())
    exact = reference.coupled_argmin(
        costs.double(), toward=None if toward is None else toward.double(), theta=theta or 0.0
    )
    excess = _cost_of(found, costs, toward, theta or 0.0) - _cost_of(exact, costs, toward, theta or 0.0)
    # Two sums within their rounding of each other: four numbers of at most 30 each, half an eps of each, for both.
    assert float(excess.max()) <= 4 * 30 * torch.finfo(torch.float32).eps
    assert float(excess.min()) >= -1e-12


@pytest.mark.parametrize(("cells", "radius"), [((1, 1, 1), (0, 0, 0)), ((1, 7, 5), (0, 2, 1)), ((5, 6, 7), (2, 1, 3))])
@pytest.mark.parametrize("coupled", [False, True])
def test_parabola(cells, radius, coupled: bool, device: str) -> None:
    # A bowl around a random displacement: curvatures of about 2, so that no quotient magnifies errors.
    steps = torch.meshgrid(*(torch.arange(-r, r + 1.0, device=device) for r in radius), indexing="ij")
    centre = 2 * _toward(cells, device)
    bowl = sum((s.reshape(*s.shape, 1, 1, 1) - centre[a]) ** 2 for a, s in enumerate(steps))
    costs = bowl + 0.1 * _costs(cells, radius, device)
    options = {"toward": _toward(cells, device).flip(1), "theta": 0.3} if coupled else {}
    assert_within_budget(fused.coupled_argmin, reference.coupled_argmin, costs, parabolic_fit=True, **options)


@pytest.mark.parametrize("cells", [(1, 1, 1), (1, 7, 5), (5, 3, 9)])
def test_an_averaged_field_errs_no_more_than_torch(cells: tuple[int, int, int], device: str) -> None:
    # a bowl around the mean of the field in a window of one axis, on which the pull alone depends
    toward = _toward(cells, device)
    costs = _costs(cells, (2, 2, 2), device) / 1000
    options = {"toward": toward, "theta": 100.0, "parabolic_fit": True}
    found = fused.coupled_argmin(costs, average=True, **options)
    assert_within_budget(fused.coupled_argmin, reference.coupled_argmin, costs, average=True, **options)
    if cells != (1, 1, 1):
        assert (found - fused.coupled_argmin(costs, **options)).abs().max() > 0.1


@pytest.mark.parametrize("coupled", [False, True])
def test_of_equal_costs_the_same_one_wins_as_in_torch(coupled: bool, device: str) -> None:
    # Small whole numbers and halves: every sum is exact, ties are everywhere.
    costs = _costs((3, 5, 13), (2, 1, 2), device).round().clamp(-1, 1)
    toward = _toward((3, 5, 13), device).round() if coupled else None
    found = fused.coupled_argmin(costs, toward=toward, theta=0.5)
    assert torch.equal(found, reference.coupled_argmin(costs, toward=toward, theta=0.5))


@pytest.mark.parametrize("parabolic_fit", [False, True])
def test_without_any_difference_nothing_moves(parabolic_fit: bool, device: str) -> None:
    costs = torch.ones(3, 5, 3, 2, 3, 4, device=device)
    assert not fused.coupled_argmin(costs, parabolic_fit=parabolic_fit).any()


def test_parabola_at_the_edge_of_the_window_stays_there(device: str) -> None:
    costs = torch.zeros(3, 3, 3, 1, 1, 2, device=device)
    costs[2, 1, 0] = -1
    costs[2, 0, 0] = -0.5
    found = fused.coupled_argmin(costs, parabolic_fit=True)
    torch.testing.assert_close(found, reference.coupled_argmin(costs, parabolic_fit=True))
    assert found[:, 0, 0, 0].tolist() == pytest.approx([1, -1 / 6, -1])


def test_non_contiguous_costs_and_field(device: str) -> None:
    costs = _costs((6, 14, 7), (1, 1, 2), device)[..., ::2, :].transpose(3, 5)
    toward = _toward((7, 7, 6), device).transpose(2, 3)
    costs = costs.permute(0, 1, 2, 3, 5, 4)  # [.., 7, 6, 7]
    assert not costs.is_contiguous()
    found = fused.coupled_argmin(costs, toward=toward, theta=0.1)
    assert torch.equal(found, fused.coupled_argmin(costs.contiguous(), toward=toward.contiguous(), theta=0.1))
    assert torch.equal(found, reference.coupled_argmin(costs, toward=toward, theta=0.1))


def test_the_input_is_left_alone(device: str) -> None:
    costs, toward = _costs((2, 3, 4), (1, 1, 1), device), _toward((2, 3, 4), device)
    before = costs.clone(), toward.clone()
    fused.coupled_argmin(costs, toward=toward, theta=0.1, parabolic_fit=True)
    assert torch.equal(costs, before[0])
    assert torch.equal(toward, before[1])


def test_a_unit_on_the_device_errs_no_more_than_torch(device: str) -> None:
    window, shape = Window((1, 1, 1)), (4, 3, 5)
    costs, toward = (
        oracles.uniform(27, *shape).float().to(device),
        oracles.noise(3, *shape, dtype=torch.float32).to(device),
    )
    unit = torch.tensor(2.0, dtype=torch.float64, device=device)
    found = in_triton.coupled_argmin(costs, window, toward=toward, theta=0.25, unit=unit)
    assert torch.equal(found, in_triton.coupled_argmin(costs, window, toward=toward, theta=1.0))
    assert torch.equal(found, in_torch.coupled_argmin(costs, window, toward=toward, theta=1.0))
