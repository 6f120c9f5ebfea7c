"""The cost volume of GPUs against torch: interpreted on the CPU, and on a device where there is one."""

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

from convexadam.kernels.cost_volume import reference as in_torch
from convexadam.kernels.cost_volume import triton as fused
from convexadam.kernels.window import Window

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled here")
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no device")
DEVICES = [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=[pytest.mark.gpu, on_device])]
pytestmark = pytest.mark.parametrize("device", DEVICES)

CASES = [  # cells, radius, channels, which weights have gaps
    ((1, 1, 1), (0, 0, 0), 1, (False, False)),
    ((1, 1, 1), (0, 1, 0), 2, (False, False)),
    ((1, 3, 2), (0, 1, 1), 7, (True, False)),
    ((3, 2, 2), (1, 0, 3), 3, (True, True)),  # the radius exceeds the last axis
    pytest.param((1, 7, 5), (0, 1, 2), 12, (True, False), marks=pytest.mark.long),
    pytest.param((1, 7, 5), (0, 1, 2), 12, (False, True), marks=pytest.mark.long),
    pytest.param((5, 2, 3), (1, 0, 3), 7, (False, False), marks=pytest.mark.long),
    pytest.param((5, 2, 3), (1, 0, 3), 7, (True, True), marks=pytest.mark.long),
]


def _fused(fixed: torch.Tensor, moving: torch.Tensor, radius: tuple[int, int, int], **options: Any) -> torch.Tensor:
    return fused.cost_volume(fixed, moving, Window(radius), dtype=fixed.dtype, **options)


def _reference(fixed: torch.Tensor, moving: torch.Tensor, radius: tuple[int, int, int], **options: Any) -> torch.Tensor:
    return in_torch.cost_volume(fixed, moving, Window(radius), dtype=fixed.dtype, **options)


def _pair(cells: tuple[int, int, int], channels: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = (oracles.noise(channels, *cells, seed=s, dtype=torch.float32) for s in (1, 2))
    return fixed.to(device), moving.to(device)


def _weights(cells: tuple[int, int, int], gaps: tuple[bool, bool], device: str) -> dict[str, torch.Tensor]:
    fixed, moving = (oracles.uniform(*cells, seed=s).float() for s in (3, 4))
    fixed[:, : cells[1] // 2] = 0
    moving[..., cells[2] // 2 :] = 0
    given = {"fixed_weight": fixed.to(device), "moving_weight": moving.to(device)}
    return {name: weight for (name, weight), wanted in zip(given.items(), gaps, strict=True) if wanted}


def _few_programs(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Each program takes long in the interpreter; how many there are is not what these tests are about."""
    if device == "cpu":
        monkeypatch.setattr(fused, "_BLOCK_LABELS", 16)
        monkeypatch.setattr(fused, "_ROWS", 8)


@pytest.mark.parametrize(("cells", "radius", "channels", "gaps"), CASES)
def test_small_volumes(monkeypatch: pytest.MonkeyPatch, cells, radius, channels: int, gaps, device: str) -> None:
    _few_programs(monkeypatch, device)
    weights = _weights(cells, gaps, device)
    assert_within_budget(_fused, _reference, *_pair(cells, channels, device), radius, **weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_several_programs_along_each_axis(monkeypatch: pytest.MonkeyPatch, weighted: bool, device: str) -> None:
    cells = (5, 5, 17) if device == "cpu" else (17, 19, 131)
    if device == "cpu":
        monkeypatch.setattr(fused, "_SEGMENT", 4)
        monkeypatch.setattr(fused, "_MAX_ROW", 16)
    weights = _weights(cells, (weighted, weighted), device)
    assert_within_budget(_fused, _reference, *_pair(cells, 2, device), (0, 0, 1), **weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_several_groups_of_displacements(monkeypatch: pytest.MonkeyPatch, weighted: bool, device: str) -> None:
    _few_programs(monkeypatch, device)
    cells, radius = (3, 2, 4), (1, 1, 0)
    options = _weights(cells, (weighted, weighted), device)
    expected = _fused(*_pair(cells, 2, device), radius, **options)
    monkeypatch.setattr(fused, "_MIN_SCRATCH", 1)
    monkeypatch.setattr(fused, "_SCRATCH", 1 / 2)  # four displacements at a time, two of them with weights, of nine
    found = _fused(*_pair(cells, 2, device), radius, **options)
    assert torch.equal(found, expected)


def test_without_any_evidence_costs_are_0(device: str) -> None:
    fixed, moving = _pair((2, 3, 2), 2, device)
    found = _fused(fixed, moving, (0, 0, 1), fixed_weight=torch.zeros_like(fixed[0]))
    assert not found.any()


def test_values_without_weight_do_not_matter(device: str) -> None:
    fixed, moving = _pair((2, 3, 2), 2, device)
    weight = torch.ones_like(fixed[0])
    weight[:, 1:] = 0
    expected = _fused(fixed, moving, (0, 1, 0), fixed_weight=weight)
    fixed[:, :, 1:] = torch.nan
    assert torch.equal(_fused(fixed, moving, (0, 1, 0), fixed_weight=weight), expected)


def test_non_contiguous_features_and_weights(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    _few_programs(monkeypatch, device)
    fixed, moving = (m.transpose(1, 3)[:, :, ::2] for m in _pair((3, 6, 4), 3, device))
    weights = {
        name: weight.permute(2, 1, 0)[:, ::2] for name, weight in _weights((3, 6, 4), (True, True), device).items()
    }
    assert not fixed.is_contiguous()
    assert not weights["fixed_weight"].is_contiguous()
    assert_within_budget(_fused, _reference, fixed, moving, (1, 0, 1), **weights)


def test_the_input_is_left_alone(device: str) -> None:
    inputs = [*_pair((2, 3, 2), 2, device), *_weights((2, 3, 2), (True, True), device).values()]
    before = [t.clone() for t in inputs]
    _fused(inputs[0], inputs[1], (0, 1, 0), fixed_weight=inputs[2], moving_weight=inputs[3])
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("given", [False, True])
def test_powers_of_two_are_exact(monkeypatch: pytest.MonkeyPatch, given: bool, device: str) -> None:
    _few_programs(monkeypatch, device)
    fixed, moving = _pair((2, 3, 4), 3, device)
    unit = torch.tensor(0.25, dtype=torch.float64, device=device) if given else None
    factor = 8.0 * (1.0 if unit is None else 0.25)
    found = _fused(fixed, moving, (0, 1, 1), scale=8.0, unit=unit)
    assert torch.equal(found, _fused(factor * fixed, factor * moving, (0, 1, 1)))
    assert_within_budget(_fused, _reference, fixed, moving, (0, 1, 1), scale=8.0)
