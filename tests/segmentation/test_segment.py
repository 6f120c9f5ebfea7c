"""Multi-atlas segmentation from files, in Python and on the command line."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import fmean
from typing import NoReturn

import numpy as np
import pytest
import torch

from convexadam import Image, RegistrationConfig, preset, read_image, write_image
from convexadam.cli import main
from convexadam.errors import InputError
from convexadam.io import ScanFiles, read_scans
from convexadam.metrics import dice
from convexadam.segmentation import MajorityVote, segment, segment_left_out


def make_scan(folder: Path, name: str, shift: tuple[float, float, float]) -> None:
    """Write an image of three ellipsoids and its labels, moved by some voxels."""
    axes = np.stack(np.meshgrid(*[np.arange(28.0)] * 3, indexing="ij")) - 13.5 - np.reshape(shift, (3, 1, 1, 1))
    labels = np.zeros(axes.shape[1:], np.int16)
    values = np.random.default_rng(len(name)).normal(0, 0.05, labels.shape)
    for label, centre, radii, value in (
        (3, (0, 0, 0), (10, 8, 9), 1),
        (5, (-3, 2, 0), (3, 4, 3), 2),
        (9, (4, -1, 2), (3, 2, 4), 3),
    ):
        inside = (((axes - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) < 1
        labels[inside] = label
        values[inside] += value
    write_image(Image.from_array(values.astype(np.float32)), folder / f"{name}.nii.gz")
    write_image(Image.from_array(labels), folder / f"{name}_labels.nii.gz")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlases")
    for name, shift in (("a", (1.5, 0, 0)), ("b", (0, -2, 1)), ("c", (0, 1, -1.5)), ("target", (0, 0, 0))):
        make_scan(folder, name, shift)
    rows = [f"{name},{name}.nii.gz,{name}_labels.nii.gz" for name in "abc"]
    (folder / "atlases.csv").write_text("id,image,labels\n" + "\n".join(rows) + "\n")
    return folder


def score(study: Path, found: Image) -> float:
    return fmean(dice(read_image(study / "target_labels.nii.gz"), found).values())


def test_labels_of_a_target(study: Path, tmp_path: Path) -> None:
    settings = {"output_dir": tmp_path, "config": preset("rigid")}
    found = segment(study / "target.nii.gz", study / "atlases.csv", probabilities_of=[5, 77], **settings)
    assert score(study, found.fusion.labels) > 0.93
    assert sorted(found.atlases) == ["a", "b", "c"]
    assert not found.failed
    labels = read_image(tmp_path / "labels.nii.gz")
    assert torch.equal(labels.data, found.fusion.labels.data)
    assert labels.data.dtype == torch.int16
    assert float(read_image(tmp_path / "confidence.nii.gz").data.min()) > 0
    share = read_image(tmp_path / "probability_5.nii.gz").data
    assert bool((share[labels.data == 5] > 0.3).all())
    assert not read_image(tmp_path / "probability_77.nii.gz").data.any()
    # the same call registers nothing again, and a change of the method fuses anew
    times = [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("report.json"))]
    again = segment(study / "target.nii.gz", study / "atlases.csv", method=MajorityVote(), most=2, **settings)
    assert times == [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("report.json"))]
    assert again.atlases == found.atlases[:2]


def test_registrations_take_the_most_accurate_preset_unless_told(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[RegistrationConfig]()

    def note(pairs: object, config: RegistrationConfig, **others: object) -> NoReturn:
        taken.append(config)
        raise InputError("noted")

    monkeypatch.setattr(sys.modules[segment.__module__], "register_cohort", note)
    target, atlases, out = (str(path) for path in (study / "target.nii.gz", study / "atlases.csv", tmp_path))
    preset("rigid").save(tmp_path / "rigid.toml")
    with pytest.raises(InputError, match="noted"):
        segment(target, atlases, output_dir=out)
    for options in ([], ["--preset", "default"], ["--config", str(tmp_path / "rigid.toml")]):
        assert main(["segment", target, "--atlases", atlases, "--output-dir", out, *options]) == 1
    assert taken == [preset(name) for name in ("best", "best", "default", "rigid")]


def test_an_atlas_that_cannot_be_registered_is_left_out(study: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.nii.gz").write_bytes((study / "a.nii.gz").read_bytes()[:2000])
    rows = [f"{n},{study / n}.nii.gz,{study / n}_labels.nii.gz" for n in "ab"]
    rows.append(f"damaged,{tmp_path / 'damaged.nii.gz'},{study / 'a'}_labels.nii.gz")
    (tmp_path / "list.csv").write_text("id,image,labels\n" + "\n".join(rows) + "\n")
    found = segment(study / "target.nii.gz", tmp_path / "list.csv", output_dir=tmp_path / "out", config=preset("rigid"))
    assert set(found.failed) == {"damaged"}
    assert score(study, found.fusion.labels) > 0.9


def test_each_atlas_by_the_others(study: Path, tmp_path: Path) -> None:
    found = dict(segment_left_out(study / "atlases.csv", output_dir=tmp_path, config=preset("rigid")))
    assert sorted(found) == ["a", "b", "c"]
    assert min(fmean(scores.values()) for scores in found.values()) > 0.9
    with (tmp_path / "dice.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["id"], int(row["label"])) for row in rows} == {(n, label) for n in "abc" for label in (3, 5, 9)}
    for row in rows:
        assert float(row["dice"]) == pytest.approx(found[row["id"]][int(row["label"])], abs=1e-5)
    assert (tmp_path / "b" / "labels.nii.gz").is_file()


def test_on_the_command_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--atlases", str(study / "atlases.csv"), "--output-dir", str(tmp_path), "--preset", "rigid"]
    assert main(["segment", str(study / "target.nii.gz"), *options, "--method", "local"]) == 0
    assert "3 atlases fused" in capsys.readouterr().err
    assert score(study, read_image(tmp_path / "labels.nii.gz")) > 0.9
    assert main(["segment", *options]) == 2
    assert "--leave-one-out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("image,labels\n", InputError, "got none"),
        ("image\na.nii.gz\n", InputError, "row 1: no labels"),
        (
            "image,labels\na.nii.gz,gone.nii.gz\nb.nii.gz,b_labels.nii.gz\ngone.nii.gz,a.nii.gz\n",
            InputError,
            "row 1.*row 3",
        ),
        ("image,label\na.nii.gz,a.nii.gz\n", InputError, "unknown column label"),
        ("image,labels\na.nii.gz,a_labels.nii.gz\na.nii.gz,a_labels.nii.gz\n", InputError, "unique"),
        ("image,labels,weight\na.nii.gz,a_labels.nii.gz,-1\n", InputError, "above 0"),
        ("id,image,labels\nA,a.nii.gz,a_labels.nii.gz\na,b.nii.gz,b_labels.nii.gz\n", InputError, "regard to case"),
        ("id,image,labels\na:1,a.nii.gz,a_labels.nii.gz\n", InputError, "names of folders.*'a:1'"),
    ],
)
def test_lists_that_cannot_be_used(study: Path, text: str, error: type[Exception], words: str) -> None:
    (study / "wrong.csv").write_text(text)
    with pytest.raises(error, match=words):
        read_scans(study / "wrong.csv", need_labels=True)


def test_scans_are_named_as_pairs_of_a_cohort(study: Path, tmp_path: Path) -> None:
    for folder in ("01", "02"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t1.v2.nii.gz").touch()
    assert [scan.id for scan in read_scans(tmp_path / "*" / "t1*.nii.gz")] == ["01_t1.v2", "02_t1.v2"]
    expanded = list(tmp_path.glob("*/t1*.nii.gz"))
    assert read_scans(expanded) == read_scans(tmp_path / "*" / "t1*.nii.gz")
    with pytest.raises(InputError, match=r"got the folder .*; write '.*/\*\.nii\.gz'"):
        read_scans(tmp_path)
    atlas = ScanFiles(id="a", image=study / "a.nii.gz", labels=study / "a_labels.nii.gz")
    with pytest.raises(InputError, match="ids must be unique"):
        segment(study / "target.nii.gz", [atlas, atlas], output_dir=tmp_path)
