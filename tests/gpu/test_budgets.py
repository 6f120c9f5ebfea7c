"""What one registration asks of a GPU, and what follows it, each with a budget that may only go down.

``launches`` are what the host asks for: operations of torch, kernels, and replays of recorded steps, each counted once;
``kernels`` are what the device runs for them, with all that is replayed.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import DEVICE, PretendedGpu, Record
from settings import make_best
from stubs import run_stub

from convexadam import DisplacementField, Grid, Image, preset, register
from convexadam.features import LabelFeatures
from convexadam.geometry.unfold import unfold
from convexadam.kernels.jacobian.reference import jacobian_determinant


def _read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()))


BUDGETS, STAGES = _read("budgets.csv"), _read("stages.csv")

SLACK = 0.9
"""A budget above what is needed by more than this share has to be lowered."""


@pytest.mark.long
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: f"{budget['preset']} {budget['contrasts']}".strip())
def test_a_registration_stays_within_its_budget(budget: dict[str, str], counted: PretendedGpu) -> None:
    size = (int(budget["size"]),) * 3
    fixed, moving = (torch.rand(size, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(2))
    record = counted.record
    record.start()
    before = record.bytes_alive
    config = make_best(budget["contrasts"]) if budget["contrasts"] else preset(budget["preset"])
    register(fixed, moving, config)
    found = _count(record)
    found["kernels"] = found["launches"] - record.launches["replay"] + record.replayed
    found["bytes_per_voxel"] = (record.bytes_peak - before) / math.prod(size)
    _check(found, budget, record)


def _count(record: Record) -> dict[str, float]:
    return {
        "launches": sum(record.operations.values()) + sum(record.launches.values()),
        "waits": sum(record.waits.values()) + sum(record.copies_to_device.values()),
    }


def _check(found: dict[str, float], budget: dict[str, str], record: Record) -> None:
    assert not record.faults()
    for name, value in found.items():
        assert value <= float(budget[name]), f"{name}: {value}, at {record.peak_at}"
        assert value >= SLACK * float(budget[name]), f"lower the budget of {name} to {value}"


def _repair_folds(shape: tuple[int, int, int]) -> Callable[[], object]:
    """Return the repair of a smooth field with 12 folds of a voxel."""
    generator = torch.Generator().manual_seed(3)
    field = 0.1 * _smooth_field(shape)
    for place in torch.randint(8, min(shape) - 8, (12, 3), generator=generator).tolist():
        field[0, place[0] : place[0] + 2, place[1], place[2]] = torch.tensor([3.0, -3.0])
    on_device = field.to(DEVICE)

    def repair() -> None:
        result = unfold(on_device, Grid(shape))
        assert result.changed_voxels > 0
        assert result.remaining_voxels == 0

    return repair


def _smooth_field(shape: tuple[int, int, int]) -> torch.Tensor:
    coarse = torch.randn(1, 3, 5, 5, 5, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]


def _make_stage(name: str, shape: tuple[int, int, int]) -> Callable[[], object]:
    """Return what one stage does; all that it needs is on the device already."""
    if name == "repair of 12 folds":
        return _repair_folds(shape)
    grid, volume = Grid(shape), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    field = DisplacementField(_smooth_field(shape).to(DEVICE), grid)
    labels = (14 * volume).int().to(DEVICE)
    images = {"warp": Image(volume[None].to(DEVICE), grid), "label warp": Image(labels[None], grid)}
    if name in images:
        return partial(field.warp, images[name])
    if name == "inverse":
        return field.inverse
    segmentations = {f"{side}_segmentation": labels for side in ("fixed", "moving")}
    config = dataclasses.replace(preset("default"), linear=None, features=LabelFeatures())
    return partial(register, volume.to(DEVICE), volume.flip(0).to(DEVICE), config, **segmentations)


def _run_with_determinants(name: str, arguments: dict[str, Any]) -> None:
    """Stand in for a kernel, but for the determinants, which decide what is repaired."""
    if name == "_compute_determinant":
        arguments["out"].copy_(jacobian_determinant(arguments["u"]))
    else:
        run_stub(name, arguments)


@pytest.mark.long
@pytest.mark.parametrize("budget", STAGES, ids=lambda budget: budget["stage"])
def test_a_stage_stays_within_its_budget(budget: dict[str, str], guard: Path) -> None:
    with PretendedGpu(guard, _run_with_determinants) as gpu:
        run = _make_stage(budget["stage"], (int(budget["size"]),) * 3)
        gpu.record.start()
        run()
    _check(_count(gpu.record), budget, gpu.record)
