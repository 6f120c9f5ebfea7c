"""The benchmark of pairs, on tiny pairs and without other tools."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam.data import phantom_pair
from convexadam.geometry import DisplacementField, Image
from convexadam.io import write_image, write_landmarks, write_learn2reg

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "pairs" / "run.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("pair_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # the script adds its own folder
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def write_pair(folder: Path, *, outside: bool = True) -> Any:
    """A phantom with labels and landmarks; the values below air are those of CT files."""
    pair = phantom_pair((24, 22, 20), displacement_mm=20.0, noise=0.0)
    folder.mkdir()
    for side, image, labels, points in (
        ("fixed", pair.fixed, pair.fixed_labels, pair.fixed_landmarks_mm),
        ("moving", pair.moving, pair.moving_labels, pair.moving_landmarks_mm),
    ):
        data = image.data.clone()
        data[:, 0] = -2048
        write_image(Image(data, image.grid), folder / f"{side}.nii.gz")
        write_image(labels, folder / f"{side}_label.nii.gz")
        write_landmarks(image.grid.to_voxels(points), folder / f"{side}_landmarks.csv")
        if outside:
            write_landmarks(image.grid.to_voxels(points[:2]), folder / f"{side}_landmarks_outside.csv")
    return pair


def test_finds_pairs_of_any_name(bench: Any, tmp_path: Path) -> None:
    for name in ("b", "a", "no_moving"):
        (tmp_path / name).mkdir()
        for side in ("fixed", "moving")[: 1 if name == "no_moving" else 2]:
            (tmp_path / name / f"{side}.nii.gz").touch()
    assert list(bench.find_pairs(tmp_path)) == ["a", "b"]
    assert list(bench.find_pairs(tmp_path / "a")) == ["a"]  # the pair itself


def test_values_below_air_are_clipped(bench: Any, tmp_path: Path) -> None:
    values = torch.tensor([-2048, -1001, -1000, 7], dtype=torch.int16).reshape(1, 1, 1, 4)
    image = Image.from_array(values)
    write_image(image, tmp_path / "ct.nii.gz")
    found = bench.read_volume(tmp_path / "ct.nii.gz").data
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == [-1000, -1000, -1000, 7]


def test_judges_the_true_field_as_right(bench: Any, tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "phantom")
    (tmp_path / "phantom" / "eval_labels.txt").write_text("1\n2\n")
    truth = bench.read_truth(tmp_path / "phantom", pair.fixed.grid, pair.moving.grid)
    write_learn2reg(DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid), tmp_path / "field.nii.gz")
    found = bench.judge(tmp_path / "field.nii.gz", truth)
    assert set(found) == set(bench.METRICS)
    assert truth.scored["labels"] == [1, 2]
    assert found["tre_before_mm"] > 3
    assert found["tre_mm"] < 0.3 * found["tre_before_mm"]
    assert found["tre_outside_mm"] < 0.3 * found["tre_before_mm"]
    assert found["folded_percent"] == 0


def test_rows_take_the_place_of_the_same_pair_and_tool(bench: Any, tmp_path: Path) -> None:
    def row(pair: str, tool: str, dice: str) -> dict[str, str]:
        return dict.fromkeys(bench.COLUMNS, "") | {"pair": pair, "tool": tool, "dice": dice}

    path = tmp_path / "new" / "pairs.csv"
    bench.harness.write_rows(path, bench.COLUMNS, [row("b", "y", "1"), row("a", "y", "2")])
    old = bench.harness.read_rows(path, bench.COLUMNS)
    merged = bench.harness.merged_rows(old, [row("b", "y", "3"), row("a", "x", "4")], bench.KEY)
    assert [(r["pair"], r["tool"], r["dice"]) for r in merged] == [("a", "x", "4"), ("a", "y", "2"), ("b", "y", "3")]
    assert [p.name for p in path.parent.iterdir()] == ["pairs.csv"]


def test_a_file_with_other_columns_is_left_alone(bench: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "other.csv").write_text("name,value\n")
    write_pair(tmp_path / "phantom")
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--data", str(tmp_path), "--output", str(tmp_path / "other.csv")])
    assert "other columns" in capsys.readouterr().err
    assert (tmp_path / "other.csv").read_text() == "name,value\n"


def test_verdicts_know_which_direction_is_better(bench: Any) -> None:
    def row(tool: str, **values: str) -> dict[str, str]:
        return dict.fromkeys(bench.COLUMNS, "") | {"pair": "p", "tool": tool, "folded_percent": "0"} | values

    ours, peer = row(bench.our_name("default"), dice="0.77", tre_mm="1.1"), row(bench.PEER, dice="0.7", tre_mm="1")
    found = bench.verdicts([ours, peer], ["default", "published"])
    assert [(line[2], line[5], line[6]) for line in found] == [
        ("dice", "+10.0 %", "better"),
        ("tre_mm", "+10.0 %", "worse"),
    ]
    assert bench.verdicts([ours], ["default"]) == []
    assert bench.verdicts([ours, row(bench.PEER, error="failed")], ["default"]) == []


def test_a_worker_that_fails_tells_its_last_line(bench: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", f"raise ValueError('cannot read {tmp_path}/fixed.npy')"]
    with pytest.raises(RuntimeError, match=r"^ValueError: cannot read fixed\.npy$"):
        bench.harness.run_worker(command, {}, tmp_path, {})


def test_peak_memory_is_that_of_the_worker_alone(bench: Any) -> None:
    block = np.ones(2**25)  # 268 MB in this process, which the one that it starts must not count
    code = "import sys; sys.path.insert(0, sys.argv[1]); import harness; print(harness.peak_mb())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(SCRIPT.parents[1])], capture_output=True, text=True, check=True
    )
    here = bench.harness.peak_mb()
    if here is None:
        pytest.skip("this system does not tell the peak memory")
    assert here > block.nbytes / 1e6
    assert 1 < float(done.stdout) < 100


@pytest.mark.slow
def test_runs_pairs_and_survives_one_that_fails(bench: Any, tmp_path: Path, capsys: Any) -> None:
    data, output = tmp_path / "data", tmp_path / "results" / "pairs.csv"
    data.mkdir()
    pair = write_pair(data / "phantom")
    (data / "broken").mkdir()
    write_image(pair.fixed, data / "broken" / "fixed.nii.gz")
    write_image(Image(pair.moving.data * float("nan"), pair.moving.grid), data / "broken" / "moving.nii.gz")
    options = ["--data", str(data), "--output", str(output), "--threads", "1", "--presets", "published"]
    threads = torch.get_num_threads()
    try:
        assert bench.main(options) == 1
        good, bad = sorted(bench.harness.read_rows(output, bench.COLUMNS), key=lambda row: bool(row["error"]))
        assert bench.main([*options, "--pairs", "phantom"]) == 0  # replaces its own row and keeps the other
    finally:
        torch.set_num_threads(threads)
    again = bench.harness.read_rows(output, bench.COLUMNS)
    assert [row["pair"] for row in again] == ["broken", "phantom"]
    assert again[0] == bad
    assert {name: again[1][name] for name in bench.METRICS} == {name: good[name] for name in bench.METRICS}
    assert (good["pair"], good["tool"], good["threads"]) == ("phantom", "convexadam-torch published", "1")
    assert all(good[name] for name in bench.COLUMNS if name not in ("error", "peak_mb"))
    assert float(good["tre_mm"]) < float(good["tre_before_mm"])
    assert "NaN" in bad["error"]
    assert str(tmp_path) not in output.read_text()
    printed = capsys.readouterr()
    assert "tre_mm" in printed.out
    assert "phantom: convexadam-torch published" in printed.err
