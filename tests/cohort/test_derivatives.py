"""Results by the names of BIDS derivatives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from convexadam import Affine, InputError, read_transform, write_transform
from convexadam.cli import main
from convexadam.cohort import CohortOutcome, PairFiles, write_derivatives
from convexadam.data import phantom_pair
from convexadam.io import write_image


def make_outcome(folder: Path, fixed: str, moving: str, *results: str) -> CohortOutcome:
    place = folder / "work" / "pairs" / "one"
    place.mkdir(parents=True, exist_ok=True)
    for name in results:
        (place / name).write_bytes(name.encode())
    pair = PairFiles(id="one", fixed=folder / fixed, moving=folder / moving)
    return CohortOutcome(pair=pair, status="done", folder=place)


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


SCAN = "raw/sub-01/ses-2/anat/sub-01_ses-2_run-1_desc-sharp_T1w.nii.gz"


def test_names_follow_the_order_of_the_specification(tmp_path: Path) -> None:
    results = ("transform.nii.gz", "inverse_transform.nii.gz", "moved.nii.gz", "moved_labels.nii.gz", "report.json")
    outcome = make_outcome(tmp_path, "tpl-MNI152_res-01_T1w.nii.gz", SCAN, *results)
    written = write_derivatives(outcome, tmp_path / "out")
    start = "sub-01/ses-2/anat/sub-01_ses-2_run-1"
    names = {
        f"{start}_desc-sharp_from-T1w_to-MNI152_mode-image_xfm.nii.gz": "transform.nii.gz",
        f"{start}_desc-sharp_from-MNI152_to-T1w_mode-image_xfm.nii.gz": "inverse_transform.nii.gz",
        f"{start}_space-MNI152_desc-sharp_T1w.nii.gz": "moved.nii.gz",
        f"{start}_space-MNI152_desc-sharp_dseg.nii.gz": "moved_labels.nii.gz",
    }
    others = {"dataset_description.json", ".bidsignore", f"{start}_space-MNI152_desc-sharp_T1w.json"}
    assert list_files(tmp_path / "out") == {*names, *others}
    for name, result in names.items():
        assert (tmp_path / "out" / name).read_bytes() == result.encode()
        assert (tmp_path / "out" / name).samefile(outcome.folder / result)  # no space is taken twice
    assert {str(path.relative_to(tmp_path / "out")) for path in written} == list_files(tmp_path / "out") - {
        "dataset_description.json",
        ".bidsignore",
    }
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "convexadam"
    assert description["SourceDatasets"] == [{"URL": (tmp_path / "raw").as_uri()}]


def test_results_that_are_gone_or_new(tmp_path: Path) -> None:
    fixed = "raw/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii"
    outcome = make_outcome(tmp_path, fixed, SCAN, "transform.tfm", "moved.nii.gz")
    write_derivatives(outcome, tmp_path / "out")
    transform = "sub-01_ses-2_run-1_desc-sharp_from-T1w_to-ses1T1w_mode-image_xfm.txt"
    folder = tmp_path / "out" / "sub-01" / "ses-2" / "anat"
    assert (folder / transform).is_file()
    shutil.rmtree(outcome.folder)
    make_outcome(tmp_path, "b.nii", SCAN, "transform.tfm")
    (outcome.folder / "transform.tfm").write_bytes(b"another")
    assert [path.name for path in write_derivatives(outcome, tmp_path / "out")] == [transform]
    assert (folder / transform).read_bytes() == b"another"
    shutil.rmtree(outcome.folder)  # it failed
    assert write_derivatives(outcome, tmp_path / "out") == ()
    assert list_files(tmp_path / "out") == {"dataset_description.json", ".bidsignore"}


def test_a_name_that_is_not_of_bids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such as sub-01_T1w\.nii\.gz, got scan\.nii\.gz"):
        write_derivatives(make_outcome(tmp_path, "a.nii.gz", "scan.nii.gz"), tmp_path / "out")


def test_a_linear_transform_is_read_by_its_name(tmp_path: Path) -> None:
    outcome = make_outcome(tmp_path, "sub-02_T1w.nii.gz", "sub-01_T1w.nii.gz")
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    write_transform(Affine(matrix), outcome.folder / "transform.tfm")
    [path] = write_derivatives(outcome, tmp_path / "out")
    assert path.name == "sub-01_from-T1w_to-sub02T1w_mode-image_xfm.txt"
    assert sitk.ReadTransform(str(path)).TransformPoint((0, 0, 0)) == pytest.approx((-1, -2, 3))
    found = read_transform(path)
    assert isinstance(found, Affine)
    assert found.matrix == pytest.approx(matrix)


def test_the_command(tmp_path: Path) -> None:
    for number, name in enumerate(("01", "02")):
        scan = tmp_path / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"
        scan.parent.mkdir(parents=True)
        write_image(phantom_pair((20, 18, 16), seed=number).moving, scan)
    fixed = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    options = ["--set", 'continuous="none"', "--set", 'linear="none"', "--keep", "transform", "--quiet"]
    assert main(["cohort", "--bids", str(tmp_path), "--fixed", str(fixed), *options]) == 0
    folder = tmp_path / "derivatives" / "convexadam"
    transform = folder / "sub-02" / "anat" / "sub-02_from-T1w_to-sub01T1w_mode-image_xfm.nii.gz"
    assert transform.samefile(folder / "pairs" / "sub-02_T1w" / "transform.nii.gz")
    assert (folder / "cohort.csv").is_file()
