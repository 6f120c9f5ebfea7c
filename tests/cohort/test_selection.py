"""Pairs by patterns, by BIDS entities; names of pairs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from convexadam import FileError, InputError
from convexadam.cohort import pair_all, pair_bids, pair_with_fixed
from convexadam.io import read_scans
from convexadam.io.ids import name_files


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_many_to_one(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "b.nii.gz", "sub/c.nii", "notes.txt")
    pairs = pair_with_fixed(tmp_path / "sub" / ".." / "a.nii.gz", f"{tmp_path}/**/*.nii*")
    assert [(pair.id, pair.moving.name) for pair in pairs] == [("b", "b.nii.gz"), ("c", "c.nii")]
    assert {pair.fixed.name for pair in pairs} == {"a.nii.gz"}
    expanded = [str(path) for path in tmp_path.glob("*.nii.gz")] + [f"{tmp_path}/sub/*"]  # as by a shell
    assert pair_with_fixed(tmp_path / "a.nii.gz", expanded) == pair_with_fixed(
        tmp_path / "a.nii.gz", f"{tmp_path}/**/*.nii*"
    )
    with pytest.raises(FileError, match="there is no file"):
        pair_with_fixed(tmp_path / "gone.nii.gz", f"{tmp_path}/*.nii.gz")
    with pytest.raises(FileError, match="must name at least 1 files, got 0"):
        pair_with_fixed(tmp_path / "a.nii.gz", f"{tmp_path}/*.mha")
    with pytest.raises(FileError, match="must name images other than"):
        pair_with_fixed(tmp_path / "a.nii.gz", f"{tmp_path}/a.*")


@pytest.mark.parametrize("name", ["b_labels.nii.gz", "b-Mask.nii", "sub-1_dseg.nii.gz", "seg.mha", "t1.brainmask.nrrd"])
def test_label_maps_are_no_images(tmp_path: Path, name: str) -> None:
    make(tmp_path, "a.nii.gz", "masked.nii.gz", "unlabelled.nii.gz", "labelset-2.nii.gz")
    every = f"{tmp_path}/*"
    assert len(pair_all(every)) == 6
    make(tmp_path, name)
    for select in (pair_all, partial(pair_with_fixed, tmp_path / "a.nii.gz"), read_scans):
        with pytest.raises(InputError, match=rf"must name images alone, got 1 that .* \({re.escape(name)}\); choose"):
            select(every)
    make(tmp_path, "labels/c_labels.nii", "labels/d_labels.nii")
    assert len(pair_all(f"{tmp_path}/labels/*")) == 1  # label maps alone may be registered


def test_each_pair_once(tmp_path: Path) -> None:
    make(tmp_path, "c.nii.gz", "a.nii.gz", "b.nii.gz")
    pairs = pair_all(f"{tmp_path}/*.nii.gz")
    assert [pair.id for pair in pairs] == ["b_to_a", "c_to_a", "c_to_b"]
    assert [(pair.fixed.name, pair.moving.name) for pair in pairs][2] == ("b.nii.gz", "c.nii.gz")
    with pytest.raises(FileError, match="must name at least 2 files, got 1"):
        pair_all(f"{tmp_path}/a.*")


BIDS = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz",
    "sub-02/anat/sub-02_T1w.nii",
    "sub-02/anat/sub-02_T1w.json",
    "derivatives/other/sub-03/anat/sub-03_T1w.nii.gz",
    "sub-02/derivatives/sub-02_T1w.nii.gz",
    "template.nii.gz",
)


def test_a_folder_in_bids_layout(tmp_path: Path) -> None:
    make(tmp_path, *BIDS)
    pairs = pair_bids(tmp_path, fixed=tmp_path / "template.nii.gz")
    assert [pair.id for pair in pairs] == ["sub-01_ses-1_T1w", "sub-01_ses-2_run-1_T1w", "sub-02_T1w"]
    [pair] = pair_bids(tmp_path)
    assert pair.id == "sub-01_ses-2_run-1_T1w_to_sub-01_ses-1_T1w"
    assert (pair.fixed.name, pair.moving.name) == ("sub-01_ses-1_T1w.nii.gz", "sub-01_ses-2_run-1_T1w.nii.gz")
    with pytest.raises(InputError, match="must hold images sub-"):
        pair_bids(tmp_path, "bold")
    with pytest.raises(InputError, match="must have two images"):
        pair_bids(tmp_path, "T2w")
    with pytest.raises(FileError, match="must be a folder in BIDS layout"):
        pair_bids(tmp_path / "gone")
    with pytest.raises(FileError, match="there is no file"):
        pair_bids(tmp_path, fixed=tmp_path / "gone.nii.gz")


def test_names_of_files_that_differ_by_their_folders() -> None:
    paths = [Path(p) for p in ("/s/01/t1.nii.gz", "/s/02/t1.nii.gz", "/s/03/flair.nii", "/x/02/t1.mha")]
    assert list(name_files(paths).values()) == ["flair", "01_t1", "s_02_t1", "x_02_t1"]
    with pytest.raises(InputError, match="file names must differ by more than their endings"):
        name_files([Path("/s/a.nii"), Path("/s/a.nii.gz")])
