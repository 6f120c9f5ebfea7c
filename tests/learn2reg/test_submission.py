"""Validation of submissions, and their archive."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from l2r_task import SHAPE, write_description

from convexadam import DisplacementField, FileError, Grid, write_transform
from convexadam.learn2reg import (
    FieldFormat,
    Task,
    check_submission,
    find_submission_problems,
    make_field_name,
    read_task,
    write_submission,
)
from convexadam.learn2reg.submission import write_field

GRID = Grid(SHAPE, np.diag([2.0, 3.0, 4.0, 1.0]))


def fill(folder: Path, task: Task, kind: FieldFormat = "npz") -> Path:
    """Write a field for each pair."""
    generator = torch.Generator().manual_seed(0)
    for pair in task.get_pairs():
        field = DisplacementField.from_voxels(torch.randn(3, *SHAPE, generator=generator), GRID)
        write_field(field, folder / make_field_name(pair, kind), kind, moving=GRID)
    return folder


@pytest.mark.parametrize("kind", ["npz", "nii.gz", "2021"])
def test_written_fields_are_a_valid_submission(kind: FieldFormat, task: Task, tmp_path: Path) -> None:
    fill(tmp_path, task, kind)
    (tmp_path / "run.json").write_text("{}")
    required = None if kind == "nii.gz" else kind
    assert find_submission_problems(tmp_path, task, field_format=required) == []
    names = {
        "npz": ["disp_0001_0000_0001_0001.npz", "disp_0002_0000_0002_0001.npz"],
        "nii.gz": ["disp_0001_0000_0001_0001.nii.gz", "disp_0002_0000_0002_0001.nii.gz"],
        "2021": ["disp_0001_0001.npz", "disp_0002_0002.npz"],
    }[kind]
    assert write_submission(tmp_path, task, tmp_path / "out.zip", field_format=required) == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == names
        assert archive.testzip() is None
        for name in names:
            assert archive.read(name) == (tmp_path / name).read_bytes()


def test_the_layout_of_the_fields(task: Task, tmp_path: Path) -> None:
    field = DisplacementField.from_voxels(torch.randn(3, *SHAPE), GRID)
    voxels = field.to_voxels().numpy()
    write_field(field, tmp_path / "a.npz", "npz", moving=GRID)
    write_field(field, tmp_path / "b.npz", "2021", moving=GRID)
    now, then = (np.load(tmp_path / name)["arr_0"] for name in ("a.npz", "b.npz"))
    assert (now.shape, now.dtype) == ((*SHAPE, 3), np.float16)
    np.testing.assert_allclose(np.moveaxis(now, -1, 0), voxels, rtol=2**-10, atol=1e-3)
    assert (then.shape, then.dtype) == ((3, *(n // 2 for n in SHAPE)), np.float16)


def test_the_short_name_is_for_the_modalities_0_and_1(task: Task, tmp_path: Path) -> None:
    fill(tmp_path, task)
    (tmp_path / "disp_0001_0000_0001_0001.npz").rename(tmp_path / "disp_0001_0001.npz")
    assert find_submission_problems(tmp_path, task) == []
    same = [{side: f"./imagesTr/P_000{n}_0000.nii.gz" for side, n in (("fixed", 1), ("moving", 2))}]
    write_description(tmp_path, registration_val=same)
    other = read_task(tmp_path)
    (tmp_path / "disp_0001_0001.npz").rename(tmp_path / "disp_0001_0002.npz")
    problems = find_submission_problems(tmp_path, other)
    assert problems[0] == "no field of 0001_0000<--0002_0000: disp_0001_0000_0002_0000.npz is missing"
    assert problems[-1] == "disp_0002_0000_0002_0001.npz belongs to no pair of Phantom (val); remove it"
    assert len(problems) == 4  # and the two other files


def test_all_problems_are_listed(task: Task, tmp_path: Path) -> None:
    bad = np.zeros((*SHAPE, 3), np.float16)
    bad[3, 2, 1] = np.nan
    np.savez(tmp_path / "disp_0001_0000_0001_0001.npz", bad)
    np.savez(tmp_path / "disp_0001_0001.npz", np.zeros((3, *SHAPE)))
    np.savez(tmp_path / "disp_2_2.npz", np.zeros((*SHAPE, 3)))
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "more").mkdir()
    problems = find_submission_problems(tmp_path, task)
    wanted = [
        "several fields of 0001_0000<--0001_0001: disp_0001_0000_0001_0001.npz, disp_0001_0001.npz",
        "NaN or Inf",
        "components first",
        "no field of 0002_0000<--0002_0001: disp_0002_0000_0002_0001.npz is missing",
        "disp_2_2.npz belongs to no pair",
        "metrics.json belongs to no pair",
        "more belongs to no pair",
    ]
    assert len(problems) == len(wanted)
    assert all(part in problem for part, problem in zip(wanted, problems, strict=True))
    with pytest.raises(FileError, match="7 problems") as raised:
        check_submission(tmp_path, task)
    assert all(problem in str(raised.value) for problem in problems)
    with pytest.raises(FileError, match="7 problems"):
        write_submission(tmp_path, task, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


BROKEN: dict[str, tuple[Any, str]] = {
    "shape": (np.zeros((*SHAPE[::-1], 3)), "its shape must be"),
    "whole numbers": (np.zeros((*SHAPE, 3), np.int16), "its type must be float16, float32 or float64, got int16"),
    "infinite": (np.full((*SHAPE, 3), np.inf), "NaN or Inf"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_field(name: str, task: Task, tmp_path: Path) -> None:
    values, message = BROKEN[name]
    fill(tmp_path, task)
    np.savez(tmp_path / "disp_0002_0000_0002_0001.npz", values)
    (problem,) = find_submission_problems(tmp_path, task)
    assert message in problem
    assert "disp_0002_0000_0002_0001.npz" in problem


def test_fields_of_another_format(task: Task, tmp_path: Path) -> None:
    fill(tmp_path, task)
    for pair, kind in zip(task.get_pairs(), ("half", "type"), strict=True):
        shape = (3, *SHAPE) if kind == "half" else (3, *(n // 2 for n in SHAPE))
        dtype = np.float16 if kind == "half" else np.float32
        np.savez(tmp_path / make_field_name(pair, "2021"), np.zeros(shape, dtype))
    first, second, *extra = find_submission_problems(tmp_path, task, field_format="2021")
    assert "its shape must be (3, 16, 14, 12) (components first), got (3, 32, 28, 24)" in first
    assert "its type must be float16, got float32" in second
    assert len(extra) == 2
    assert "no field of" in find_submission_problems(tmp_path, task, field_format="nii.gz")[0]


def test_damaged_files_and_no_folder(task: Task, tmp_path: Path) -> None:
    fill(tmp_path, task)
    path = tmp_path / "disp_0001_0000_0001_0001.npz"
    path.write_bytes(path.read_bytes()[:2000])
    (problem,) = find_submission_problems(tmp_path, task)
    assert "damaged" in problem
    with pytest.raises(FileError, match="folder must exist"):
        find_submission_problems(tmp_path / "none", task)
    with pytest.raises(FileError, match=r"must have the extension \.zip"):
        write_submission(tmp_path, task, tmp_path / "out.tar")


def test_the_same_fields_give_the_same_archive(task: Task, tmp_path: Path) -> None:
    (tmp_path / "fields").mkdir()
    fill(tmp_path / "fields", task)
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / "fields", task, tmp_path / name)
        for path in (tmp_path / "fields").iterdir():
            path.touch()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "fields"]


def test_fields_of_other_programs_are_refused(task: Task, tmp_path: Path) -> None:
    fill(tmp_path, task)
    (tmp_path / "disp_0001_0000_0001_0001.npz").unlink()
    field = DisplacementField.from_voxels(torch.zeros(3, *SHAPE), GRID)
    write_transform(field, tmp_path / "disp_0001_0000_0001_0001.nii.gz", format="itk")
    (problem,) = find_submission_problems(tmp_path, task)
    assert "its shape must be (32, 28, 24, 3), got (32, 28, 24, 1, 3)" in problem
