"""Runs over all pairs of a task: fields that are written, kept, replaced and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from l2r_task import QUICK, SHAPE, write_description

from convexadam import ConfigError, FileError, Grid, Image, preset, read_image, register, write_image
from convexadam.features import LabelFeatures
from convexadam.io import read_learn2reg_voxels
from convexadam.learn2reg import Outcome, Task, find_submission_problems, read_task, run_task

CONFIG = preset().with_settings(*QUICK)
LABELS = CONFIG.with_settings('features={type="LabelFeatures"}')
FIRST, SECOND = "disp_0001_0000_0001_0001.npz", "disp_0002_0000_0002_0001.npz"


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


@pytest.fixture(scope="module")
def done(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be written to."""
    folder = tmp_path_factory.mktemp("run") / "fields"
    assert statuses(run_task(task, CONFIG, folder)) == ["done", "done"]
    return folder


@pytest.fixture
def again(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(done, tmp_path / "fields"))


def test_fields_are_those_of_register(task: Task, done: Path) -> None:
    assert {path.name for path in done.iterdir()} == {FIRST, SECOND, "run.json"}
    assert find_submission_problems(done, task) == []
    for pair, name in zip(task.get_pairs(), (FIRST, SECOND), strict=True):
        wanted = register(pair.fixed.path, pair.moving.path, CONFIG).transform.to_voxels().numpy()
        assert np.abs(wanted).max() > 0.5
        np.testing.assert_allclose(read_learn2reg_voxels(done / name, SHAPE), wanted, rtol=2**-10, atol=1e-4)


def test_the_record(task: Task, done: Path) -> None:
    record = json.loads((done / "run.json").read_text())
    assert record["arguments"]["settings"] == CONFIG.to_toml()
    assert (record["arguments"]["task"], record["arguments"]["split"], record["arguments"]["format"]) == (
        "Phantom",
        "val",
        "npz",
    )
    assert list(record["pairs"]) == [pair.title for pair in task.get_pairs()]
    for said in record["pairs"].values():
        assert said["status"] == "done"
        assert said["seconds"] > 0
        assert said["folded_percent"] == 0


def test_fields_of_an_earlier_run_are_kept(task: Task, again: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in again.iterdir()}
    outcomes = run_task(task, CONFIG, again)
    assert statuses(outcomes) == ["kept", "kept"]
    assert outcomes[0].seconds
    assert {path.name: path.stat().st_mtime_ns for path in again.iterdir()} == before


@pytest.mark.parametrize("how", ["deleted", "cut", "other shape"])
def test_lost_fields_are_replaced(how: str, task: Task, done: Path, again: Path) -> None:
    path = again / SECOND
    whole = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        np.savez(path, np.zeros((4, 4, 4, 3), np.float16))
    calls: list[tuple[str, float]] = []
    outcomes = run_task(task, CONFIG, again, progress=lambda stage, share: calls.append((stage, share)))
    assert statuses(outcomes) == ["kept", "done"]
    np.testing.assert_array_equal(read_learn2reg_voxels(path, SHAPE), read_learn2reg_voxels(done / SECOND, SHAPE))
    assert calls[0] == ("2/2 linear", 0.5)
    assert ("2/2 discrete", 0.75) in calls  # half of its stages are done
    assert calls[-1] == ("done", 1.0)
    assert [share for _, share in calls] == sorted(share for _, share in calls)


def test_failed_pairs_are_repeated_even_if_there_is_a_field(task: Task, again: Path) -> None:
    record = json.loads((again / "run.json").read_text())
    record["pairs"][task.get_pairs()[0].title] = {"status": "failed", "error": "it broke"}
    (again / "run.json").write_text(json.dumps(record))
    assert statuses(run_task(task, CONFIG, again)) == ["done", "kept"]


def test_an_invalid_field_is_removed(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> None:
        assert path.is_file()
        raise FileError("it holds NaN")

    monkeypatch.setattr("convexadam.learn2reg.run.check_field", refuse)
    (outcome,) = run_task(task, CONFIG, tmp_path, split="train")
    assert (outcome.status, outcome.error) == ("failed", "FileError: it holds NaN")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_images_on_grids_that_differ(folder: Path, task: Task, done: Path, tmp_path: Path) -> None:
    """The field is in voxels of both: a moving image whose header is shifted together with its content."""
    for part in ("imagesTr", "fields"):
        (tmp_path / part).mkdir()
    (pair,) = task.get_pairs("train")
    shutil.copy(pair.fixed.path, tmp_path / "imagesTr")
    moving = read_image(pair.moving.path)
    shifted = moving.grid.affine.copy()
    shifted[:3, 3] -= 2 * shifted[:3, 0]  # the array gets two planes in front
    padded = torch.nn.functional.pad(moving.data, (0, 0, 0, 0, 2, 0), value=float(moving.data.min()))[:, :-2]
    write_image(Image(padded, Grid(SHAPE, shifted)), tmp_path / "imagesTr" / pair.moving.path.name)
    write_description(tmp_path)
    assert statuses(run_task(read_task(tmp_path), CONFIG, tmp_path / "fields", split="train")) == ["done"]
    apart = read_learn2reg_voxels(tmp_path / "fields" / FIRST, SHAPE) - read_learn2reg_voxels(done / FIRST, SHAPE)
    assert np.median(apart[0]) == pytest.approx(2, abs=0.1)
    assert np.abs(np.median(apart[1:], axis=(1, 2, 3))).max() < 0.1


def test_other_settings_need_another_folder(task: Task, again: Path) -> None:
    other = CONFIG.with_settings("discrete.radius=3")
    for options, named in (
        ({"config": other}, "settings"),
        ({"split": "train"}, "split"),
        ({"field_format": "nii.gz"}, "format"),
        ({"masks": True}, "masks"),
    ):
        with pytest.raises(
            ConfigError, match=rf"^{named} must be as in the run .*; choose another folder, or --overwrite"
        ):
            run_task(task, **{"config": CONFIG, "folder": again, **options})
    outcomes = run_task(task, other, again, field_format="nii.gz", overwrite=True)
    assert statuses(outcomes) == ["done", "done"]
    names = {path.name for path in again.iterdir()}
    assert names == {"run.json", *(name.replace("npz", "nii.gz") for name in (FIRST, SECOND))}
    assert statuses(run_task(task, other, again, field_format="nii.gz")) == ["kept", "kept"]


def test_fields_without_a_record_are_not_replaced(task: Task, again: Path) -> None:
    (again / "run.json").unlink()
    before = (again / FIRST).read_bytes()
    with pytest.raises(ConfigError, match=rf"must have a run.json for its fields, got {FIRST} without one"):
        run_task(task, CONFIG, again)
    assert (again / FIRST).read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[]", '{"arguments": 1, "pairs": {}}'])
def test_a_damaged_record(text: str, task: Task, again: Path) -> None:
    (again / "run.json").write_text(text)
    with pytest.raises(FileError, match=r"run.json"):
        run_task(task, CONFIG, again)


def test_a_pair_that_fails_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    for path in (folder / "imagesTr").iterdir():
        shutil.copy(path, tmp_path / "imagesTr")
    write_description(tmp_path)
    task, broken = read_task(tmp_path), tmp_path / "imagesTr" / "Phantom_0001_0001.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:5000])
    outcomes = run_task(task, CONFIG, tmp_path / "fields")
    assert statuses(outcomes) == ["failed", "done"]
    assert outcomes[0].error is not None
    assert "damaged" in outcomes[0].error
    record = json.loads((tmp_path / "fields/run.json").read_text())
    assert record["pairs"]["0001_0000<--0001_0001"]["error"] == outcomes[0].error
    assert not (tmp_path / "fields" / FIRST).exists()
    broken.write_bytes(whole)
    assert statuses(run_task(task, CONFIG, tmp_path / "fields")) == ["done", "kept"]


def test_images_of_another_shape_than_the_task_says(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "imagesTr").symlink_to(folder / "imagesTr")
    write_description(tmp_path, tensorImageShape={"0": [32, 28, 25]})
    outcomes = run_task(read_task(tmp_path), CONFIG, tmp_path / "fields")
    assert statuses(outcomes) == ["failed", "failed"]
    assert "must be that of the task, (32, 28, 25), got (32, 28, 24)" in str(outcomes[0].error)
    assert [path.name for path in (tmp_path / "fields").iterdir()] == ["run.json"]


def test_labels(task: Task, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --segmentation-dir"):
        run_task(task, LABELS, tmp_path)
    with pytest.raises(ConfigError, match="omit --segmentation-dir"):
        run_task(task, CONFIG, tmp_path, segmentation_dir=folder / "labelsTr")
    with pytest.raises(FileError, match="segmentation_dir must be an existing folder"):
        run_task(task, LABELS, tmp_path, segmentation_dir=folder / "labelsTs")
    assert not list(tmp_path.iterdir())
    assert isinstance(LABELS.features, LabelFeatures)
    outcomes = run_task(task, LABELS, tmp_path, split="train", segmentation_dir=folder / "labelsTr")
    assert statuses(outcomes) == ["done"]
    (pair,) = task.get_pairs("train")
    wanted = register(
        pair.fixed.path,
        pair.moving.path,
        LABELS,
        fixed_segmentation=pair.get_volume_paths("labels")[0],
        moving_segmentation=pair.get_volume_paths("labels")[1],
    )
    found = read_learn2reg_voxels(tmp_path / FIRST, SHAPE)
    np.testing.assert_allclose(found, wanted.transform.to_voxels().numpy(), rtol=2**-10, atol=1e-4)


@pytest.mark.parametrize("option", ["masks", "keypoints"])
def test_masks_and_keypoints(option: str, task: Task, done: Path, tmp_path: Path) -> None:
    switch: dict[str, Any] = {option: True}
    assert statuses(run_task(task, CONFIG, tmp_path, split="train", **switch)) == ["done"]
    (pair,) = task.get_pairs("train")
    paths = pair.get_volume_paths("masks") if option == "masks" else pair.get_point_paths("keypoints")
    name = {"masks": "mask", "keypoints": "landmarks"}[option]
    inputs = {f"{side}_{name}": path for side, path in zip(("fixed", "moving"), paths, strict=True)}
    wanted = register(pair.fixed.path, pair.moving.path, CONFIG, **inputs)  # type: ignore[arg-type]
    found = read_learn2reg_voxels(tmp_path / FIRST, SHAPE)
    np.testing.assert_allclose(found, wanted.transform.to_voxels().numpy(), rtol=2**-10, atol=1e-4)
    assert np.abs(found - read_learn2reg_voxels(done / FIRST, SHAPE)).max() > 0.01


def test_the_format_of_2021(task: Task, tmp_path: Path) -> None:
    assert statuses(run_task(task, CONFIG, tmp_path, split="train", field_format="2021")) == ["done"]
    with np.load(tmp_path / "disp_0001_0001.npz") as archive:
        assert archive["arr_0"].shape == (3, 16, 14, 12)
    assert statuses(run_task(task, CONFIG, tmp_path, split="train", field_format="2021")) == ["kept"]


def test_names_of_fields_that_are_not_unique(tmp_path: Path) -> None:
    names = [f"./imagesTr/P_0001_{n:04}.nii.gz" for n in (0, 1, 2)]
    write_description(tmp_path, registration_val=[{"fixed": names[n], "moving": names[0]} for n in (1, 2)])
    with pytest.raises(ConfigError, match="names of fields must be unique, got several pairs for disp_0001_0001"):
        run_task(read_task(tmp_path), CONFIG, tmp_path / "fields", field_format="2021")


def test_code_cannot_be_recorded(task: Task, tmp_path: Path) -> None:
    import dataclasses

    def own(image: Any, /, *, weight: Any = None) -> torch.Tensor:
        return torch.zeros(1)

    with pytest.raises(ConfigError, match="must be a dataclass that can be imported to be saved"):
        run_task(task, dataclasses.replace(CONFIG, features=own), tmp_path / "fields")
    assert not (tmp_path / "fields").exists()


def test_a_folder_that_cannot_be_made(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot create folder"):
        run_task(task, CONFIG, tmp_path / "file" / "fields")
