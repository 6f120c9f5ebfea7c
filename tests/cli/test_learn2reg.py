"""``convexadam learn2reg``: from a task to the submission and its metrics."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from l2r_task import QUICK, write_task

from convexadam import preset
from convexadam.io import read_learn2reg_voxels
from convexadam.learn2reg import evaluate_fields, make_evaluation_config, read_task

FAST = [word for setting in QUICK for word in ("--set", setting)]
FIRST, SECOND = "disp_0001_0000_0001_0001.npz", "disp_0002_0000_0002_0001.npz"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a task; not to be written to."""
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.mark.usefixtures("files")  # the kernels are compiled
def test_run_validate_submit_and_evaluate(run: Any, task: Path, tmp_path: Path) -> None:
    fields = tmp_path / "fields"
    ran = run("learn2reg", "run", task, "--output-dir", fields, *FAST)
    assert (ran.status, ran.out) == (0, "")
    assert ran.error == f"Phantom: 2 done; fields in {fields}\n"

    ran = run("learn2reg", "validate", task, fields)
    assert (ran.status, ran.error) == (0, f"{fields} is a valid submission: 2 fields of Phantom (val)\n")

    ran = run("learn2reg", "submit", task, fields, tmp_path / "out.zip")
    assert (ran.status, ran.error) == (0, f"wrote {tmp_path / 'out.zip'}: 2 fields of Phantom (val)\n")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [FIRST, SECOND]

    ran = run("learn2reg", "evaluate", task, fields)
    assert (ran.status, ran.error) == (0, "")
    found = json.loads(ran.out)
    wanted = evaluate_fields(make_evaluation_config(read_task(task)), fields)
    assert found["aggregates"]["TRE_lm"] == wanted["aggregates"]["TRE_lm"]
    case = found["cases"]["0001_0000<--0001_0001"]
    assert case["DSC"]["detailed"][2] is None  # label 200 is listed, but absent
    assert case["DSC"]["detailed"][:2] == wanted["cases"]["0001_0000<--0001_0001"]["DSC"]["detailed"][:2]
    assert run("learn2reg", "evaluate", task, fields, "--output", tmp_path / "metrics.json").out == ""
    assert json.loads((tmp_path / "metrics.json").read_text()) == found

    identity = tmp_path / "identity"
    identity.mkdir()
    for name in (FIRST, SECOND):
        np.savez(identity / name, np.zeros((32, 28, 24, 3), np.float16))
    before = json.loads(run("learn2reg", "evaluate", task, identity).out)
    assert found["aggregates"]["TRE_lm"]["mean"] < 0.8 * before["aggregates"]["TRE_lm"]["mean"]
    assert before["aggregates"]["LogJacDetStd"]["mean"] == 0

    whole = read_learn2reg_voxels(fields / SECOND, (32, 28, 24))
    (fields / SECOND).write_bytes((fields / SECOND).read_bytes()[:1000])
    ran = run("learn2reg", "validate", task, fields)
    assert ran.status == 1
    lines = ran.error.splitlines()
    assert len(lines) == 2
    assert SECOND in lines[0]
    assert lines[1] == f"convexadam: {fields} must be a valid submission, got 1 problem"
    assert run("learn2reg", "submit", task, fields, tmp_path / "other.zip").status == 1
    assert not (tmp_path / "other.zip").exists()
    ran = run("learn2reg", "run", task, "--output-dir", fields, *FAST)
    assert ran.error == f"Phantom: 1 done, 1 kept; fields in {fields}\n"
    np.testing.assert_array_equal(read_learn2reg_voxels(fields / SECOND, (32, 28, 24)), whole)


def test_an_evaluation_configuration(run: Any, task: Path, tmp_path: Path) -> None:
    pairs = json.loads((task / "Phantom_dataset.json").read_text())["registration_val"]
    config = {
        "task_name": "Other",
        "evaluation_methods": [{"name": "TRE", "metric": "tre", "dest": "landmarks"}],
        "expected_shape": [32, 28, 24, 3],
        "eval_pairs": pairs[1:],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.savez(tmp_path / SECOND, np.zeros((32, 28, 24, 3), np.float16))
    ran = run("learn2reg", "evaluate", task, tmp_path, "--evaluation-config", tmp_path / "config.json")
    found = json.loads(ran.out)
    assert found["name"] == "Other"
    assert list(found["cases"]) == ["0002_0000<--0002_0001"]
    assert list(found["aggregates"]) == ["TRE"]


@pytest.mark.usefixtures("files")
def test_settings_of_a_task_and_of_a_file(run: Any, task: Path, tmp_path: Path) -> None:
    fast = ("--set", "continuous.levels.0.iterations=2", "--split", "train", "--quiet")
    ran = run("learn2reg", "run", task, "--output-dir", tmp_path / "a", "--task", "Hippocampus", *fast)
    assert (ran.status, ran.out, ran.error) == (0, "", "")
    settings = json.loads((tmp_path / "a/run.json").read_text())["arguments"]["settings"]
    assert 'type = "NativeGrid"' in settings
    assert "iterations = 2" in settings
    preset("published").save(tmp_path / "settings.toml")
    ran = run("learn2reg", "run", task, "--output-dir", tmp_path / "b", "--config", tmp_path / "settings.toml", *fast)
    assert ran.status == 0
    labels = ("--task", "OASIS", "--segmentation-dir", task / "labelsTr")
    ran = run("learn2reg", "run", task, "--output-dir", tmp_path / "c", *labels, *fast)
    assert ran.status == 0
    assert (tmp_path / "c" / FIRST).is_file()


@pytest.mark.usefixtures("files")
def test_a_pair_that_fails(run: Any, task: Path, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    for path in (task / "imagesTr").iterdir():
        if path.name != "Phantom_0002_0001.nii.gz":
            (tmp_path / "imagesTr" / path.name).symlink_to(path)
    (tmp_path / "dataset.json").write_bytes((task / "Phantom_dataset.json").read_bytes())
    ran = run("learn2reg", "run", tmp_path, "--output-dir", tmp_path / "fields", *FAST)
    assert ran.status == 1
    summary, error = ran.error.splitlines()
    assert summary == f"Phantom: 1 done, 1 failed; fields in {tmp_path / 'fields'}"
    assert error.startswith("convexadam: 1 of 2 pairs failed; 0002_0000<--0002_0001: FileError: there is no file")
    assert (tmp_path / "fields" / FIRST).is_file()


FAILURES: dict[str, tuple[list[str], str]] = {
    "no task": (["run", "none", "--output-dir", "OUT"], "there is no file none"),
    "no labels": (["run", "TASK", "--output-dir", "OUT", "--task", "OASIS"], "give --segmentation-dir"),
    "no pairs": (["run", "TASK", "--output-dir", "OUT", "--split", "test"], "lists none as 'registration_test'"),
    "a file": (["run", "TASK", "--output-dir", "TASK/Phantom_dataset.json"], "is a file"),
    "no fields": (["evaluate", "TASK", "OUT"], "must contain one field of 0001_0000<--0001_0001"),
    "no folder": (["validate", "TASK", "OUT"], "folder must exist"),
    "no archive": (["submit", "TASK", "OUT", "OUT.tar"], "must have the extension .zip"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_errors_are_one_line(name: str, run: Any, task: Path, tmp_path: Path) -> None:
    arguments, message = FAILURES[name]
    places = {"TASK": str(task), "OUT": str(tmp_path / "out")}
    for word, place in places.items():
        arguments = [argument.replace(word, place) for argument in arguments]
    ran = run("learn2reg", *arguments)
    assert (ran.status, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert ran.error.startswith("convexadam: ")
    assert message in ran.error


WRONG_USE: dict[str, tuple[list[str], str]] = {
    "no command": ([], "run"),
    "an unknown command": (["train"], "train"),
    "a task and a preset": (
        ["run", "x", "--output-dir", "y", "--task", "NLST", "--preset", "default"],
        "settings must come from one of --task, --preset, --config, got",
    ),
    "an unknown task": (["run", "x", "--output-dir", "y", "--task", "Lung"], "Lung"),
    "an unknown format": (["validate", "x", "y", "--format", "mha"], "mha"),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use(name: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG_USE[name]
    ran = run("learn2reg", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in " ".join(ran.error.split())
    assert "Traceback" not in ran.error
    assert not list(tmp_path.iterdir())


def test_help(run: Any) -> None:
    ran = run("learn2reg", "--help")
    assert ran.status == 0
    for command in ("run", "evaluate", "validate", "submit"):
        assert command in ran.out
        found = run("learn2reg", command, "--help")
        assert found.status == 0
        assert "--split {val,test,train}" in found.out
