"""What one registration asks of a GPU, each with a budget that may only go down.

``launches`` are what the host asks for: operations of torch, kernels, and replays of recorded steps, each counted once;
``kernels`` are what the device runs for them, with all that is replayed.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from pretend import DEVICE, PretendedGpu
from settings import make_best

from convexadam import preset, register

BUDGETS = list(csv.DictReader(Path(__file__).with_name("budgets.csv").read_text(encoding="utf-8").splitlines()))

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
    launches = sum(record.operations.values()) + sum(record.launches.values())
    found = {
        "launches": launches,
        "kernels": launches - record.launches["replay"] + record.replayed,
        "waits": sum(record.waits.values()) + sum(record.copies_to_device.values()),
        "bytes_per_voxel": (record.bytes_peak - before) / math.prod(size),
    }
    assert not record.faults()
    for name, value in found.items():
        assert value <= float(budget[name]), f"{name}: {value}, at {record.peak_at}"
        assert value >= SLACK * float(budget[name]), f"lower the budget of {name} to {value}"
