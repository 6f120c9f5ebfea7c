"""The content of dataset.json, and the paths of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from l2r_task import PAIRS, SHAPE, make_description, write_description

from convexadam import ConfigError, FileError, InputError
from convexadam.learn2reg import Task, read_task


def test_content(task: Task, folder: Path) -> None:
    assert (task.name, task.release, task.shape) == ("Phantom", "1.1", SHAPE)
    assert task.modalities == {0: "CT", 1: "CT"}
    assert task.labels == {1: "liver", 2: "spleen", 200: "absent"}
    assert [pair.title for pair in task.get_pairs("val")] == ["0001_0000<--0001_0001", "0002_0000<--0002_0001"]
    assert task.get_pairs("train") == task.get_pairs("val")[:1]
    assert read_task(folder / "Phantom_dataset.json") == task


def test_names_of_a_pair(task: Task, folder: Path) -> None:
    pair = task.get_pairs()[1]
    assert pair.fixed.path == folder / "imagesTr/Phantom_0002_0000.nii.gz"
    assert pair.fixed.path.is_file()
    assert (pair.long_name, pair.short_name) == ("disp_0002_0000_0002_0001", "disp_0002_0002")
    assert pair.modalities == (0, 1)
    for kind in ("labels", "masks"):
        assert all(path.is_file() for path in pair.get_volume_paths(kind))
    assert pair.get_volume_paths("masks")[1] == folder / "masksTr/Phantom_0002_0001.nii.gz"
    assert pair.get_point_paths("landmarks")[0] == folder / "landmarksTr/Phantom_0002_0000.csv"
    assert pair.get_point_paths("keypoints")[1] == folder / "keypointsTr/Phantom_0002_0001.csv"


@pytest.mark.parametrize(
    ("modalities", "folders"),
    [((0, 0), "keypointsTs"), ((2, 2), "keypointsTs"), ((0, 1), "keypointsTs"), ((1, 0), "keypoints01Ts"),
     ((2, 0), "keypoints02Ts")],
)  # fmt: skip
def test_keypoints_of_other_modalities(modalities: tuple[int, int], folders: str, tmp_path: Path) -> None:
    fixed, moving = (f"./imagesTs/T_0007_{m:04}.nii.gz" for m in modalities)
    write_description(tmp_path, registration_test=[{"fixed": fixed, "moving": moving}])
    (pair,) = read_task(tmp_path).get_pairs("test")
    assert pair.get_point_paths("keypoints")[0].relative_to(tmp_path) == Path(folders, f"T_0007_{modalities[0]:04}.csv")
    assert pair.get_point_paths("landmarks")[0].parent.name == "landmarksTs"


def test_only_pairs_are_needed(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"registration_val": [], "labels": {"0": "none", "3": "lung"}}')
    found = read_task(tmp_path)
    assert (found.name, found.release, found.shape, found.modalities) == (tmp_path.name, "", None, {})
    assert found.labels == {3: "lung"}
    with pytest.raises(
        InputError, match=r"split must be one with pairs, got val: .* 'registration_val'; available: none"
    ):
        found.get_pairs()
    with pytest.raises(ConfigError, match="split must be one of 'val', 'test', 'train', got 'validation'"):
        found.get_pairs("validation")  # type: ignore[arg-type]


def test_the_shape_of_the_image_if_that_of_the_task_is_unknown(folder: Path, task: Task, tmp_path: Path) -> None:
    write_description(tmp_path, tensorImageShape=None)
    found = read_task(tmp_path)
    with pytest.raises(FileError, match="no file"):
        found.get_shape(found.get_pairs()[0])
    (tmp_path / "imagesTr").symlink_to(folder / "imagesTr")
    assert found.get_shape(found.get_pairs()[0]) == SHAPE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registration_val": {"fixed": 1}}, "'registration_val' must be a list of pairs, got a dict"),
        (
            {"registration_val": [{"fixed": PAIRS[0]["fixed"]}]},
            "pairs of 'registration_val' must be .* with names like",
        ),
        ({"registration_val": [["a", "b"]]}, "with names like"),
        ({"registration_val": [{"fixed": "imagesTr/P_1_0.nii.gz", "moving": "imagesTr/P_1_1.nii.gz"}]}, "four digits"),
        ({"registration_val": [{**PAIRS[0], "moving": "other/P_0001_0001.nii.gz"}]}, "a folder images"),
        ({"registration_val": [{**PAIRS[0], "moving": "imagesTr/P_0001_0001.nii"}]}, "four digits"),
        ({"registration_val": [*PAIRS, PAIRS[0]]}, "must be unique, got repeated 0001_0000<--0001_0001"),
    ],
)
def test_invalid_pairs(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_description(tmp_path, **changes)
    task = read_task(tmp_path)
    assert len(task.get_pairs("train")) == 1  # the others can be used
    with pytest.raises(InputError, match=message) as raised:
        task.get_pairs("val")
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("shape", [[32, 28], {"0": ["a", 2, 3]}, {"0": [1, 2, 0]}, "32x28x24"])
def test_invalid_shapes(shape: Any, tmp_path: Path) -> None:
    path = write_description(tmp_path, tensorImageShape=shape)
    with pytest.raises(FileError, match="'tensorImageShape' must be three whole numbers above 0") as raised:
        read_task(tmp_path)
    assert str(path) in str(raised.value)


def test_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="got none; give the file"):
        read_task(tmp_path)
    (tmp_path / "A_dataset.json").write_text('{"name": "A", "registr')
    with pytest.raises(FileError, match="damaged"):
        read_task(tmp_path)
    (tmp_path / "A_dataset.json").write_text("[1]")
    with pytest.raises(FileError, match="must hold a JSON object, got a list"):
        read_task(tmp_path)
    (tmp_path / "B_dataset.json").write_text("{}")
    with pytest.raises(FileError, match=r"got A_dataset.json, B_dataset.json; give the file"):
        read_task(tmp_path)
    with pytest.raises(FileError, match="no file"):
        read_task(tmp_path / "C_dataset.json")


def test_the_helper_omits_keys() -> None:
    assert "labels" not in make_description(labels=None)
