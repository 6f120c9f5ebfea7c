"""The prediction of `benchmarks/gpu`: how it counts machine code, and which kernels its table has."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend import DEVICE, PretendedGpu

from convexadam import preset, register

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "benchmarks" / "results" / "gpu_predicted.csv"

LOOPS = """
.L_x_0:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
.L_x_2:
        /*0020*/                   MUFU.EX2 R4, R4 ;
        /*0030*/              @!P0 BRA `(.L_x_2) ;
        /*0040*/              @P1  BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
        /*0060*/                   NOP ;
"""


def _load(name: str) -> Any:
    pytest.importorskip("triton")
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", ROOT / "benchmarks" / "gpu" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_instructions_in_loops_count_as_often_as_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _load("machine_code")
    monkeypatch.setitem(module.TRIPS, "package._kernel", lambda arguments: [3, arguments["n"]])
    found = module.count(LOOPS, "package._kernel", {"n": 5})
    assert found.instructions == 1 + 3 * (1 + 5 * 2 + 1) + 1
    assert found.memory == 3 * 4  # 16 bytes of each thread take four cycles
    assert found.special == 15


def test_a_loop_of_unknown_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="TRIPS must have 2 loops"):
        _load("machine_code").count(LOOPS, "package._other", {})


def test_the_slowest_part_of_the_device_counts() -> None:
    module = _load("predict")
    programs = 3 * module.MULTIPROCESSORS - 1  # three rounds
    event = module.Event("stage", "package._kernel", 4_300_000, programs)
    counts = {"instructions": 700_000, "memory": 10, "special": 0, "warps": 4}
    assert module.predict_seconds(event, None) == pytest.approx(2e-6)  # the least
    assert module.predict_seconds(event, counts) == pytest.approx(3 * 4 * 1e6 / 4 / 1.75e9)
    assert module.predict_seconds(event, {**counts, "special": 250_000}) == pytest.approx(3 * 4 * 2e6 / 4 / 1.75e9)
    assert module.predict_seconds(event, {**counts, "memory": 10**6}) == pytest.approx(3 * 4 * 1e6 / 1.75e9)
    big = module.Event("stage", "package._kernel", 43 * 10**9, programs)
    assert module.predict_seconds(big, counts) == pytest.approx(0.01)


@pytest.mark.long
@pytest.mark.parametrize("name", ["published", "default"])
def test_the_table_is_of_the_kernels_that_there_are(counted: PretendedGpu, name: str) -> None:
    counted.record.start()
    fixed, moving = (torch.rand(48, 52, 56, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(2))
    register(fixed, moving, preset(name))
    with TABLE.open(encoding="utf-8", newline="") as file:
        written = {row["kernel"] for row in csv.DictReader(file) if row["preset"] == name}
    assert written - {"torch"} == set(counted.record.launches) - {"replay"}, "run benchmarks/gpu/predict.py"
