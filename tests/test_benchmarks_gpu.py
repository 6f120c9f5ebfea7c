"""The benchmark of the GPU, on a machine without one, and what it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_benchmark import FOLDER, load_benchmark


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_benchmark("work", monkeypatch)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load_benchmark("run", monkeypatch)


def test_without_a_gpu_says_what_did_not_run(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--sizes", "32x16x8", "--output", str(tmp_path / "gpu.csv")]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "No GPU is at hand" in done.stdout
    for part in ("kernels", "preset default", "preset published", "convexAdam", "comparison with the CPU"):
        assert f"{part} at 32x16x8" in done.stdout
    assert not (tmp_path / "gpu.csv").exists()


def test_counts_of_one_case_by_hand(work: Any) -> None:
    nodes = (2, 3, 4)  # 24
    # rows of 16 half floats from both maps; six floats of field and gradient
    assert work.gradient(nodes) == work.Work(24 * (64 + 24), 24 * (42 * 12 + 86))
    assert work.gradient(nodes, storage=4, weights=2) == work.Work(24 * (128 + 32), 24 * (42 * 12 + 86))
    # six floats more; twelve channels and the weight
    assert work.gradient(nodes, blocks=1) == work.Work(24 * (64 + 48), 24 * (42 * 12 + 86 + 6 * 25))
    # 72 values in and out and 24 weights; three passes of three multiplications and additions, and the weight
    assert work.smoothed(nodes, 3) == work.Work(4 * (144 + 24), 72 * 18 + 72)
    assert work.moved(nodes) == work.Work(4 * 7 * 72, 14 * 72)
    assert work.composed(nodes) == work.Work(4 * 3 * 72, 24 * 91)
    assert work.copied(10) == work.Work(80, 0)
    # 9 displacements, in half precision; twelve channels of two maps
    assert work.compared_over_windows(nodes, 9) == work.Work(24 * (4 * 24 + 2 * 9), 24 * 9 * 49)
    assert work.cheapest(nodes, 9) == work.Work(24 * (2 * 9 + 4 * 6), 5 * 24 * 9)
    # 4 x 5 x 6 voxels in blocks of two: 2 x 2 x 3; two sweeps of 2 + 6 + 2 operations, 3 + 1 more in the second
    assert work.described((4, 5, 6), [(2, 2, 2)]) == work.Work(4 * (240 + 12 * 12), 120 * 12 * (20 + 4))


def test_the_pair_differs_by_a_few_voxels(bench: Any) -> None:
    fixed, moving = bench.pair((40, 36, 33), device="cpu")
    assert fixed.shape == moving.shape == (40, 36, 33)
    assert torch.equal(fixed, bench.pair((40, 36, 33), device="cpu")[0])
    assert 0.05 < (fixed - moving).abs().mean() / fixed.std() < 1
    assert torch.corrcoef(torch.stack([fixed.flatten(), moving.flatten()]))[0, 1] > 0.3


def test_stand_ins_are_classes_of_their_own(bench: Any) -> None:
    module = bench._stand_in("SimpleITK")
    assert isinstance(module.Image, type)
    assert module.Image is module.Image
    assert not isinstance(torch.zeros(1), module.Image)
    assert not hasattr(module, "__path__")


def test_a_part_that_fails_leaves_its_error(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(size: Any) -> Any:
        raise torch.cuda.OutOfMemoryError if size[0] > 8 else ValueError("no such kernel")

    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(bench, "KERNELS", {"first": fails})
    monkeypatch.setattr(bench, "published", lambda *_: {"value": "not installed"})
    options = bench.parsed(["--presets", "--output", "none.csv"])
    found = [list(bench.of_size((n, 8, 8), options, 1e9)) for n in (8, 16)]
    assert [rows[0]["error"] for rows in found] == ["ValueError: no such kernel", "out of memory"]
    assert [rows[1]["value"] for rows in found] == ["not installed"] * 2
