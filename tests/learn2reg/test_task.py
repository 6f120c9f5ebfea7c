"""What dataset.json says, and where files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from l2r_task import PAIRS, SHAPE, description, write_description

from convexadam import ConfigError, FileError, InputError
from convexadam.learn2reg import Task, read_task


def test_what_it_says(task: Task, folder: Path) -> None:
    assert (task.name, task.release, task.shape) == ("Phantom", "1.1", SHAPE)
    assert task.modalities == {0: "CT", 1: "CT"}
    assert task.labels == {1: "liver", 2: "spleen", 200: "absent"}
    assert [pair.title for pair in task.pairs("val")] == ["0001_0000<--0001_0001", "0002_0000<--0002_0001"]
    assert task.pairs("train") == task.pairs("val")[:1]
    assert read_task(folder / "Phantom_dataset.json") == task


def test_names_of_a_pair(task: Task, folder: Path) -> None:
    pair = task.pairs()[1]
    assert pair.fixed.path == folder / "imagesTr/Phantom_0002_0000.nii.gz"
    assert pair.fixed.path.is_file()
    assert (pair.long_name, pair.short_name) == ("disp_0002_0000_0002_0001", "disp_0002_0002")
    assert pair.modalities == (0, 1)
    for kind in ("labels", "masks"):
        assert all(path.is_file() for path in pair.volumes(kind))
    assert pair.volumes("masks")[1] == folder / "masksTr/Phantom_0002_0001.nii.gz"
    assert pair.points("landmarks")[0] == folder / "landmarksTr/Phantom_0002_0000.csv"
    assert pair.points("keypoints")[1] == folder / "keypointsTr/Phantom_0002_0001.csv"


@pytest.mark.parametrize(
    ("modalities", "folders"),
    [((0, 0), "keypointsTs"), ((2, 2), "keypointsTs"), ((0, 1), "keypointsTs"), ((1, 0), "keypoints01Ts"),
     ((2, 0), "keypoints02Ts")],
)  # fmt: skip
def test_keypoints_of_other_modalities(modalities: tuple[int, int], folders: str, tmp_path: Path) -> None:
    fixed, moving = (f"./imagesTs/T_0007_{m:04}.nii.gz" for m in modalities)
    write_description(tmp_path, registration_test=[{"fixed": fixed, "moving": moving}])
    (pair,) = read_task(tmp_path).pairs("test")
    assert pair.points("keypoints")[0].relative_to(tmp_path) == Path(folders, f"T_0007_{modalities[0]:04}.csv")
    assert pair.points("landmarks")[0].parent.name == "landmarksTs"


def test_only_pairs_are_needed(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"registration_val": [], "labels": {"0": "none", "3": "lung"}}')
    found = read_task(tmp_path)
    assert (found.name, found.release, found.shape, found.modalities) == (tmp_path.name, "", None, {})
    assert found.labels == {3: "lung"}
    with pytest.raises(InputError, match=r"lists no pairs as 'registration_val' .*has none at all"):
        found.pairs()
    with pytest.raises(ConfigError, match="a split is one of"):
        found.pairs("validation")  # type: ignore[arg-type]


def test_the_shape_is_that_of_the_image_where_none_is_said(folder: Path, task: Task, tmp_path: Path) -> None:
    write_description(tmp_path, tensorImageShape=None)
    found = read_task(tmp_path)
    with pytest.raises(FileError, match="no file"):
        found.shape_of(found.pairs()[0])
    (tmp_path / "imagesTr").symlink_to(folder / "imagesTr")
    assert found.shape_of(found.pairs()[0]) == SHAPE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registration_val": {"fixed": 1}}, "'registration_val' is a list of pairs"),
        ({"registration_val": [{"fixed": PAIRS[0]["fixed"]}]}, "has the pair .* names like"),
        ({"registration_val": [["a", "b"]]}, "has the pair"),
        ({"registration_val": [{"fixed": "imagesTr/P_1_0.nii.gz", "moving": "imagesTr/P_1_1.nii.gz"}]}, "four digits"),
        ({"registration_val": [{**PAIRS[0], "moving": "other/P_0001_0001.nii.gz"}]}, "a folder images"),
        ({"registration_val": [{**PAIRS[0], "moving": "imagesTr/P_0001_0001.nii"}]}, "four digits"),
        ({"registration_val": [*PAIRS, PAIRS[0]]}, "more than once: 0001_0000<--0001_0001"),
    ],
)
def test_pairs_that_are_none(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_description(tmp_path, **changes)
    task = read_task(tmp_path)
    assert len(task.pairs("train")) == 1  # the others can be used
    with pytest.raises(InputError, match=message) as raised:
        task.pairs("val")
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("shape", [[32, 28], {"0": ["a", 2, 3]}, {"0": [1, 2, 0]}, "32x28x24"])
def test_a_shape_that_is_none(shape: Any, tmp_path: Path) -> None:
    path = write_description(tmp_path, tensorImageShape=shape)
    with pytest.raises(FileError, match="'tensorImageShape' is three whole numbers") as raised:
        read_task(tmp_path)
    assert str(path) in str(raised.value)


def test_files_that_are_no_description(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has none; give the file"):
        read_task(tmp_path)
    (tmp_path / "A_dataset.json").write_text('{"name": "A", "registr')
    with pytest.raises(FileError, match="damaged"):
        read_task(tmp_path)
    (tmp_path / "A_dataset.json").write_text("[1]")
    with pytest.raises(FileError, match="holds a list"):
        read_task(tmp_path)
    (tmp_path / "B_dataset.json").write_text("{}")
    with pytest.raises(FileError, match=r"has A_dataset.json, B_dataset.json; give the file"):
        read_task(tmp_path)
    with pytest.raises(FileError, match="no file"):
        read_task(tmp_path / "C_dataset.json")


def test_the_helper_leaves_keys_out() -> None:
    assert "labels" not in description(labels=None)
