"""The benchmark of the GPU, rehearsed on the pretended one: every part of it runs, and writes its rows."""

from __future__ import annotations

import ast
import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_benchmark import load_benchmark
from pretend import DEVICE, PretendedGpu


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load_benchmark("run", monkeypatch)
    monkeypatch.setattr(module, "BUFFER", 2**10)
    for name, value in {
        "is_available": lambda: True,
        "get_device_name": lambda: "pretended",
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "max_memory_allocated": lambda: 10**6,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return module


@pytest.mark.long
def test_every_part_writes_its_rows(counted: PretendedGpu, bench: Any, tmp_path: Path) -> None:
    with torch.cuda.device(DEVICE):  # the benchmark takes the current device
        bench.main(["--sizes", "32x28x24", "26x24x22", "--repeats", "5", "--output", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "gpu.csv").read_text(encoding="utf-8").splitlines()))
    # the stand-ins compute nothing, so that the fields cannot agree
    failed = {row["name"]: row["error"] for row in rows if row["error"] and row["what"] != "agreement"}
    assert failed == {}
    assert {row["size"] for row in rows} == {"32x28x24", "26x24x22"}
    for what in ("kernel", "register", "published", "agreement"):
        assert any(row["what"] == what for row in rows), what
    stages = {row["name"] for row in rows if row["what"] == "register"}
    assert {"default", "default: discrete", "published: continuous"} <= stages
    assert counted.record.faults() == []


def test_the_tests_on_a_gpu_need_few_packages() -> None:
    tests = Path(__file__).parents[1]
    run = [*tests.glob("kernels/test_*_triton.py"), tests / "gpu" / "test_device.py", *tests.glob("*/conftest.py")]
    waiting = [tests / "conftest.py", *(path for path in run if path.parent.name in ("gpu", "kernels"))]
    read, imported = set(), set()
    while waiting:
        path = waiting.pop()
        read.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names}:
                helpers = {tests / f"{name}.py", path.parent / f"{name}.py"} - read
                waiting += [helper for helper in helpers if helper.is_file()]
                imported.add(name)
    helpers_read = {path.stem for path in read}
    assert "oracles" in helpers_read
    others = imported - set(sys.stdlib_module_names) - helpers_read - {"convexadam"}
    assert others <= {"torch", "triton", "numpy", "numba", "scipy", "jaxtyping", "pytest", "hypothesis"}
