"""Lists of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convexadam import FileError, InputError
from convexadam.io import PairFiles, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "sub/c.nii.gz", "a.csv", "b.csv"):
        (tmp_path / name).touch()
    return tmp_path


def listed(folder: Path, text: str, name: str = "pairs.csv") -> tuple[PairFiles, ...]:
    (folder / name).write_text(text, encoding="utf-8-sig")
    return read_manifest(folder / name)


def test_a_table(folder: Path) -> None:
    text = "fixed, moving,id,fixed_landmarks,moving_landmarks,fixed_mask\n"
    text += f"a.nii.gz,sub/c.nii.gz,one,a.csv,b.csv,\n\n{folder}/b.nii.gz,a.nii.gz,,,,a.nii.gz\n"
    first, second = listed(folder, text)
    assert first == PairFiles(
        id="one",
        fixed=folder / "a.nii.gz",
        moving=folder / "sub" / "c.nii.gz",
        fixed_landmarks=folder / "a.csv",
        moving_landmarks=folder / "b.csv",
    )
    assert second == PairFiles(
        id="2", fixed=folder / "b.nii.gz", moving=folder / "a.nii.gz", fixed_mask=folder / "a.nii.gz"
    )


def test_a_table_with_tabulators_settings_and_labels_of_one_image(folder: Path) -> None:
    text = "fixed\tmoving\tmoving_labels\tinitial_transform\tpreset\na.nii.gz\tb.nii.gz\ta.nii.gz\ta.csv\tpublished\n"
    [pair] = listed(folder, text, "pairs.tsv")
    assert (pair.initial_transform, pair.preset) == (folder / "a.csv", "published")
    assert list(pair.files) == ["fixed", "moving", "moving_labels", "initial_transform"]


def test_paths_as_text() -> None:
    pair = PairFiles(id="1", fixed="a.nii.gz", moving="b.nii.gz", preset="rigid")  # type: ignore[arg-type]
    assert pair.files == {"fixed": Path("a.nii.gz"), "moving": Path("b.nii.gz")}


def test_json(folder: Path) -> None:
    rows = [{"fixed": "a.nii.gz", "moving": "b.nii.gz"}, {"id": 7, "fixed": "b.nii.gz", "moving": "a.nii.gz"}]
    assert [pair.id for pair in listed(folder, json.dumps(rows), "pairs.json")] == ["1", "7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixed,moving\n", "must list at least one pair, got none"),
        ("", "must list at least one pair, got none"),
        ("fixed\na.nii.gz\n", "row 1 must name .* got no moving image"),
        ("fixed,moving,fixed_lables\na.nii.gz,b.nii.gz,a.nii.gz\n", "did you mean 'fixed_labels'"),
        (
            "fixed,moving,fixed_labels\na.nii.gz,b.nii.gz,a.nii.gz\n",
            "row 1 must have moving_labels if it has fixed_labels, got none",
        ),
        ("fixed,moving\na.nii.gz,b.nii.gz,c\n", "row 1 must have as many cells as there are columns"),
        ("id,fixed,moving\nx,a.nii.gz,b.nii.gz\nx,b.nii.gz,a.nii.gz\n", "unique, got 'x' more than once"),
        ("fixed,moving\na.nii.gz,gone.nii.gz\nlost.nii.gz,b.nii.gz\n", r"row 1 .*gone\.nii\.gz.*row 2 .*lost\.nii\.gz"),
        (
            "fixed,moving,fixed_landmarks\na.nii.gz,b.nii.gz,\na.nii.gz,,\na.nii.gz,c.nii.gz,a.csv\n",
            "can be used: row 2 must name .* no moving.*; row 3 must have landmarks .*; row 3 .* no file .*c.nii",
        ),
    ],
)
def test_what_is_no_list(folder: Path, text: str, message: str) -> None:
    with pytest.raises((FileError, InputError), match=message):
        listed(folder, text)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '"a"'])
def test_what_is_no_json_list(folder: Path, text: str) -> None:
    with pytest.raises(FileError):
        listed(folder, text, "pairs.json")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="pairs"):
        read_manifest(tmp_path / "pairs.csv")
