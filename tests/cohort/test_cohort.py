"""Registration of all pairs: files, resumption, failures, and two processes in one folder."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from studies import FAST, files, replace_content, rows, run, statuses, without_times

from convexadam import (
    ConfigError,
    FileError,
    InputError,
    RegistrationConfig,
    preset,
    read_image,
    read_transform,
    register,
)
from convexadam.cohort import COLUMNS, PairFiles, register_cohort
from convexadam.executors import LocalExecutor
from convexadam.io import use_header, write_transform

PAIR_FILES = {"report.json", "moved.nii.gz", "transform.nii.gz"}


def test_the_folder_and_what_is_in_it(pairs: tuple[PairFiles, ...], study: Path, tmp_path: Path) -> None:
    labels = {"fixed_labels": study / "a_labels.nii.gz", "moving_labels": study / "b_labels.nii.gz"}
    points = {"fixed_landmarks": study / "a_points.csv", "moving_landmarks": study / "b_points.csv"}
    first = dataclasses.replace(pairs[0], **labels, **points)
    out = tmp_path / "out"
    outputs = ("transform", "inverse", "moved", "labels")
    outcomes = run([first, pairs[1]], out, outputs=outputs, source="by hand")
    assert statuses(outcomes) == {"b": "done", "c": "done"}
    assert {path.name for path in out.iterdir()} == {"cohort.json", "cohort.csv", "pairs", ".lock"}
    assert {path.name for path in (out / "pairs").iterdir()} == {"b", "c"}
    assert {path.name for path in (out / "pairs" / "c").iterdir()} == PAIR_FILES | {"inverse_transform.nii.gz"}
    names = PAIR_FILES | {"inverse_transform.nii.gz", "moved_labels.nii.gz"}
    assert {path.name for path in (out / "pairs" / "b").iterdir()} == names

    alone = register(first.fixed, first.moving, FAST)
    moved = nib.load(out / "pairs" / "b" / "moved.nii.gz")
    np.testing.assert_array_equal(moved.get_fdata(dtype=np.float32), alone.moved.numpy())
    warped, fixed = (
        np.asarray(nib.load(path).dataobj)
        for path in (out / "pairs" / "b" / "moved_labels.nii.gz", labels["fixed_labels"])
    )
    assert set(np.unique(warped)) <= set(np.unique(np.asarray(nib.load(labels["moving_labels"]).dataobj)))
    [row] = [row for row in rows(out) if row["id"] == "b"]
    overlaps = [
        2 * np.sum((warped == n) & (fixed == n)) / (np.sum(warped == n) + np.sum(fixed == n))
        for n in set(np.unique(fixed)) & set(np.unique(np.asarray(nib.load(labels["moving_labels"]).dataobj))) - {0}
    ]
    # Dice interpolates by nearest neighbour; label maps are warped in label mode
    assert float(row["dice"]) == pytest.approx(np.mean(overlaps), abs=0.03)
    assert float(row["tre_mm"]) > 0
    assert outcomes["b"].scores["n_landmarks"] == 5
    assert outcomes["c"].scores == {}


def test_the_table_and_the_reports(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    outcomes = run(pairs, tmp_path, source="by hand")
    table = rows(tmp_path)
    assert tuple(table[0]) == COLUMNS
    assert [row["id"] for row in table] == ["b", "c"]
    for row in table:
        report = json.loads((tmp_path / "pairs" / row["id"] / "report.json").read_text(encoding="utf-8"))
        assert report["inputs"] == {"fixed": row["fixed"], "moving": row["moving"]}
        assert Path(row["moving"]).is_absolute()
        assert report["quality"]["similarity_after"] == pytest.approx(float(row["similarity_after"]), rel=1e-5)
        assert report["config"]["linear"] == {"type": "none"}
        assert row["verdict"] == report["verdict"]["grade"]
        assert float(row["seconds"]) == pytest.approx(outcomes[row["id"]].seconds, rel=1e-5)
    record = json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8"))
    assert (record["source"], record["pairs"]) == ("by hand", 2)
    assert record["settings"][""]["continuous"] == {"type": "none"}
    assert set(record["versions"]) == {"convexadam", "torch", "numpy", "python"}


def test_what_is_done_is_kept(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    first = run(pairs, tmp_path)
    before, table = files(tmp_path), (tmp_path / "cohort.csv").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")}
    os.utime(pairs[0].moving)  # another time, but the same content
    again = run(pairs, tmp_path)
    assert statuses(again) == {"b": "kept", "c": "kept"}
    assert list(without_times(again)) == list(without_times(first))
    assert (tmp_path / "cohort.csv").read_bytes() == table
    assert files(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").rglob("*")} == times


def test_without_measures_and_compression(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    packed, plain = run(pairs, tmp_path / "packed"), run(pairs, tmp_path, measure=False, compress=False)
    folder = tmp_path / "pairs" / "b"
    assert {path.name for path in folder.iterdir()} == {"report.json", "moved.nii", "transform.nii"}
    for name in ("moved.nii", "transform.nii"):
        expected = nib.load(packed["b"].folder / f"{name}.gz")
        np.testing.assert_array_equal(np.asarray(nib.load(folder / name).dataobj), np.asarray(expected.dataobj))
    assert (plain["b"].quality, plain["b"].verdict) == (None, None)
    assert rows(tmp_path)[0]["similarity_after"] == rows(tmp_path)[0]["verdict"] == ""
    assert "quality" not in json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert statuses(run(pairs, tmp_path, measure=False, compress=False)) == {"b": "kept", "c": "kept"}
    assert statuses(run(pairs, tmp_path, compress=False)) == {"b": "done", "c": "done"}
    with pytest.raises(ConfigError, match="check_mirror must be False without measures"):
        run(pairs, tmp_path, measure=False, check_mirror=True)


def change_file(pair: PairFiles) -> None:
    replace_content(pair.moving)


def remove_output(pair: PairFiles) -> None:
    (pair.moving.parent.parent / "out" / "pairs" / pair.id / "moved.nii.gz").unlink()


def damage_report(pair: PairFiles) -> None:
    (pair.moving.parent.parent / "out" / "pairs" / pair.id / "report.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("change", [change_file, remove_output, damage_report])
def test_only_what_has_changed_is_done_again(
    pairs: tuple[PairFiles, ...], tmp_path: Path, change: Callable[[PairFiles], None]
) -> None:
    out = tmp_path / "out"
    run(pairs, out)
    change(pairs[1])
    assert statuses(run(pairs, out)) == {"b": "kept", "c": "done"}
    assert sorted(row["id"] for row in rows(out)) == ["b", "c"]
    expected = run(pairs, tmp_path / "other")
    assert files(out) == files(tmp_path / "other")
    assert statuses(expected) == {"b": "done", "c": "done"}
    assert {path.name for path in (out / "pairs").iterdir()} == {"b", "c"}


def test_other_settings_outputs_and_masks(pairs: tuple[PairFiles, ...], study: Path, tmp_path: Path) -> None:
    run(pairs, tmp_path)
    assert set(statuses(run(pairs, tmp_path, outputs=("transform",))).values()) == {"kept"}  # there is more than that
    assert set(statuses(run(pairs, tmp_path, outputs=("inverse",))).values()) == {"done"}
    masked = (dataclasses.replace(pairs[0], fixed_mask=study / "a_labels.nii.gz"), pairs[1])
    assert statuses(run(masked, tmp_path, outputs=("inverse",))) == {"b": "done", "c": "kept"}
    with use_header("qform"):
        assert set(statuses(run(masked, tmp_path, outputs=("inverse",))).values()) == {"done"}
    other = dataclasses.replace(FAST, discrete=dataclasses.replace(FAST.discrete, radius=3))
    assert set(statuses(run(masked, tmp_path, other, outputs=("inverse",))).values()) == {"done"}


def test_a_preset_and_an_initial_transform_of_one_pair(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    start = read_transform_shift(tmp_path / "start.tfm")
    special = dataclasses.replace(pairs[0], preset="rigid", initial_transform=start)
    outcomes = run([special, pairs[1]], tmp_path / "out")
    assert {path.name for path in outcomes["b"].folder.iterdir()} == {"report.json", "moved.nii.gz", "transform.tfm"}
    found = read_transform(outcomes["b"].folder / "transform.tfm")
    expected = register(special.fixed, special.moving, preset("rigid"), initial_transform=start).transform
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-6)
    record = json.loads((tmp_path / "out" / "cohort.json").read_text(encoding="utf-8"))
    assert set(record["settings"]) == {"", "rigid"}


def read_transform_shift(path: Path) -> Path:
    from convexadam import Affine

    matrix = np.eye(4)
    matrix[0, 3] = -4.0
    write_transform(Affine(matrix), path)
    return path


def test_a_failure_is_an_outcome_and_is_tried_again_by_the_next_run(
    pairs: tuple[PairFiles, ...], tmp_path: Path
) -> None:
    good = pairs[0].moving.read_bytes()
    pairs[0].moving.write_bytes(b"no image")
    outcomes = run(pairs, tmp_path)
    assert statuses(outcomes) == {"b": "failed", "c": "done"}
    assert outcomes["b"].error is not None
    assert outcomes["b"].error.startswith("FileError: cannot read")
    by_id = {row["id"]: row for row in rows(tmp_path)}
    assert (by_id["b"]["status"], by_id["b"]["verdict"], by_id["b"]["seconds"]) == ("failed", "", "")
    assert by_id["b"]["error"] == outcomes["b"].error
    assert not (tmp_path / "pairs" / "b").exists()
    pairs[0].moving.write_bytes(good)
    assert statuses(run(pairs, tmp_path)) == {"b": "done", "c": "kept"}
    assert {row["status"] for row in rows(tmp_path)} == {"done"}


def test_a_failure_leaves_no_results_of_before(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    run(pairs, tmp_path)
    pairs[0].moving.write_bytes(b"no image")
    assert statuses(run(pairs, tmp_path)) == {"b": "failed", "c": "kept"}
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["c"]


def test_labels_that_do_not_fit_are_refused_before_the_registration(
    pairs: tuple[PairFiles, ...], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = nib.load(study / "a_labels.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[1:], image.affine), study / "cut.nii.gz")
    points = study / "few.csv"
    points.write_text("1,2,3\n", encoding="utf-8")
    labels = {"moving_labels": study / "b_labels.nii.gz"}
    bad = [
        dataclasses.replace(pairs[0], id="1", fixed_labels=study / "cut.nii.gz", **labels),
        dataclasses.replace(pairs[0], id="2", fixed_labels=study / "a.nii.gz", **labels),
        dataclasses.replace(pairs[0], id="3", fixed_landmarks=points, moving_landmarks=study / "b_points.csv"),
    ]
    monkeypatch.setattr("convexadam.registration.prepared.register_with_memo", None)
    outcomes = run(bad, tmp_path)
    messages = ["on the grid of the fixed image", "whole numbers", "row by row the same points, got 1 and 5"]
    for outcome, message in zip(outcomes.values(), messages, strict=True):
        assert message in str(outcome.error)
        assert outcome.is_permanent or outcome.id == "1"


class Flaky:
    """Runs jobs here, except that the first attempts fail as if their worker had died."""

    def __init__(self, failures: int) -> None:
        self.left, self.runs = failures, 0

    def run(self, function: Callable[[Any], Any], next_job: Callable[[], Any]) -> Iterator[tuple[Any, Any]]:
        self.runs += 1
        for job, result in LocalExecutor().run(function, next_job):
            self.left -= 1
            yield job, RuntimeError("no worker\nleft") if self.left >= 0 else result


def test_what_fails_is_tried_again(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    flaky = Flaky(3)  # both pairs, and one of them again
    outcomes = list(register_cohort(pairs, FAST, output_dir=tmp_path, executor=flaky, retries=2))
    assert [(outcome.id, outcome.status) for outcome in outcomes] == [("c", "done"), ("b", "done")]
    assert flaky.runs == 3
    outcomes = list(register_cohort(pairs, preset("rigid"), output_dir=tmp_path, executor=Flaky(9), retries=1))
    assert [outcome.error for outcome in outcomes] == ["RuntimeError: no worker left"] * 2


def test_what_cannot_succeed_is_not_tried_again(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    config = dataclasses.replace(FAST, features=lambda image, *, weight=None: image.data * float("nan"))
    flaky = Flaky(0)
    [first, second] = register_cohort(pairs, config, output_dir=tmp_path, executor=flaky, retries=5)
    assert first.status == second.status == "failed"
    assert "features must be finite" in str(first.error)
    assert flaky.runs == 1


def test_the_folder_is_locked_while_pairs_are_registered(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    of_a_killed_one = '{"process": 1, "host": "gone", "since": "ever"}'
    (tmp_path / ".lock").write_text(of_a_killed_one, encoding="utf-8")
    running = register_cohort(pairs, FAST, output_dir=tmp_path)
    next(running)
    message = rf"must not be in use by another cohort, got process {os.getpid()} on .*, since 2"
    with pytest.raises(FileError, match=message):
        next(register_cohort(pairs, FAST, output_dir=tmp_path))
    running.close()
    assert statuses(run(pairs, tmp_path)) == {"b": "kept", "c": "done"}


def test_what_a_killed_process_leaves_is_removed(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    run(pairs, tmp_path)
    left = [tmp_path / "pairs" / name for name in (".b.0123456789ab.part", ".b.0123456789ab.old")]
    for folder in left:
        folder.mkdir()
        (folder / "moved.nii.gz").touch()
    with (tmp_path / "cohort.csv").open("ab") as file:
        file.write(b"c,done,o")  # half a row
    assert statuses(run(pairs, tmp_path)) == {"b": "kept", "c": "kept"}
    assert {path.name for path in (tmp_path / "pairs").iterdir()} == {"b", "c"}
    assert [row["id"] for row in rows(tmp_path)] == ["b", "c"]


def test_a_row_for_each_pair_as_it_ends(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    for number, outcome in enumerate(register_cohort(pairs, FAST, output_dir=tmp_path), start=1):
        table = rows(tmp_path)
        assert len(table) == number
        assert table[-1]["id"] == outcome.id


def test_verdicts_compare_with_the_others(
    pairs: tuple[PairFiles, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convexadam.report import Verdict

    seen: list[int] = []

    def judge(cohort: Any) -> Iterator[Verdict]:
        seen.append(len(cohort))
        return iter([Verdict(grade="look", reasons=("compared",))] * len(cohort))

    monkeypatch.setattr("convexadam.cohort.cohort.judge_cohort", judge)
    monkeypatch.setattr("convexadam.cohort.job.judge_quality", lambda _: Verdict(grade="ok"))
    special = dataclasses.replace(pairs[1], id="d", preset="rigid")  # compared with none
    outcomes = run([*pairs, special], tmp_path)
    assert {outcome.verdict.grade for outcome in outcomes.values() if outcome.verdict} == {"ok"}
    assert seen == [2, 1]
    assert {(row["verdict"], row["reasons"]) for row in rows(tmp_path)} == {("look", "compared")}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"outputs": ("moved", "field")}, ConfigError, "outputs must be among transform, .*, got 'field'"),
        ({"retries": -1}, ConfigError, "retries must be a whole number of at least 0, got -1"),
        ({"device": "gpu"}, ConfigError, "device"),
        ({"pairs": ()}, InputError, "at least one PairFiles"),
        ({"config": "defautl"}, ConfigError, "preset must be one of .*did you mean"),
        ({"config": 3}, ConfigError, "config must be a RegistrationConfig"),
    ],
)
def test_arguments_out_of_range(
    pairs: tuple[PairFiles, ...], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"pairs": pairs, "config": FAST, "output_dir": tmp_path / "out", **options}
    with pytest.raises(error, match=message):
        register_cohort(**arguments)
    assert not (tmp_path / "out").exists()


def test_all_pairs_that_cannot_be_used_are_named_before_any_work(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    bad = [
        dataclasses.replace(pairs[0], moving=tmp_path / "gone.nii.gz"),
        dataclasses.replace(pairs[1], preset="fastest"),
    ]
    with pytest.raises(InputError, match=r"pair b: there is no file .*gone\.nii\.gz; pair c: .*fastest"):
        register_cohort(bad, FAST, output_dir=tmp_path / "out")
    with pytest.raises(InputError, match="ids must be unique, also without regard to case, got 'b', 'B'"):
        register_cohort([pairs[0], dataclasses.replace(pairs[1], id="B")], FAST, output_dir=tmp_path / "out")
    for name in ("", "a/b", "..", ".b", "b.", "a:b", "x" * 181):
        with pytest.raises(InputError, match="ids must be names of folders"):
            register_cohort([dataclasses.replace(pairs[0], id=name)], FAST, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_list_in_a_file(pairs: tuple[PairFiles, ...], study: Path, tmp_path: Path) -> None:
    with (study / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "fixed", "moving"), ("sub-01 ä", "a.nii.gz", "b.nii.gz")])
    assert statuses(run(study / "list.csv", tmp_path / "out")) == {"sub-01 ä": "done"}
    assert json.loads((tmp_path / "out" / "cohort.json").read_text())["source"] == str(study / "list.csv")


def test_default_settings(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    [outcome] = register_cohort(pairs[:1], output_dir=tmp_path)
    report = json.loads((outcome.folder / "report.json").read_text(encoding="utf-8"))
    expected = register(pairs[0].fixed, pairs[0].moving, RegistrationConfig()).summary()
    assert report["config"] == json.loads(json.dumps(expected["config"]))
    assert report["diagnostics"] == expected["diagnostics"]
    assert read_image(outcome.folder / "moved.nii.gz").grid.shape == (20, 18, 16)


def test_the_mirror_images_are_registered_where_they_were_not(
    pairs: tuple[PairFiles, ...], study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(pairs, out)
    before = files(out)
    flipped = nib.load(pairs[0].moving)
    mirror = nib.Nifti1Image(np.asarray(flipped.dataobj)[::-1], flipped.affine)
    nib.save(mirror, study / "d.nii.gz")
    outcomes = run([*pairs, dataclasses.replace(pairs[0], id="d", moving=study / "d.nii.gz")], out, check_mirror=True)
    assert statuses(outcomes) == {"b": "done", "c": "done", "d": "done"}
    assert {name: content for name, content in files(out).items() if name[0] != "d"} == before
    gains = {name: outcome.quality.mirror_gain for name, outcome in outcomes.items() if outcome.quality}
    assert gains["b"] < -0.05
    assert gains["d"] > 0.05
    assert outcomes["d"].verdict is not None
    assert outcomes["d"].verdict.grade == "failed"
    assert float(rows(out)[-1]["mirror_gain"]) == pytest.approx(gains["d"], rel=1e-5)
    # without the mirror image nothing is missing
    assert set(statuses(run(pairs, out, check_mirror=True)).values()) == {"kept"}
    assert set(statuses(run(pairs, out)).values()) == {"kept"}
    assert first["b"].quality is not None
    assert np.isnan(first["b"].quality.mirror_gain)
