"""Whole searches, also with interruptions."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import forked
import pytest
from searches import SPACE, files_of

import convexadam
from convexadam import ConfigError, FileError, InputError, OutOfMemoryError, RegistrationConfig, register
from convexadam.io import PairFiles, read_image
from convexadam.metrics import evaluate_transform
from convexadam.tuning import Evaluator, LocalExecutor, Space, Status, TuningResult, tune
from convexadam.tuning.ranks import score_by_metrics
from convexadam.tuning.reference import summarise
from convexadam.tuning.space import Checkpoints
from convexadam.tuning.trials import EvaluatorSpec, Job, TrialError

pytest.importorskip("optuna")

FILES = {"best.toml", "trials.csv", "report.json", "space.toml", "search.json", ".lock"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_time(table: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table]


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, TuningResult, list[Status]]:
    """An uninterrupted search."""
    output, seen = tmp_path_factory.mktemp("search") / "new" / "folder", []
    return output, tune(files_of(folder, "labels"), output, space=Space.from_toml(SPACE), progress=seen.append), seen


def test_results(searched: tuple[Path, TuningResult, list[Status]], labelled: tuple[PairFiles, ...]) -> None:
    folder, result, _ = searched
    assert {path.name for path in folder.iterdir()} == FILES | {"study.journal"}
    assert result.ranked_by == ("dice", "dice30", "hd95_mm", "sdlogj")
    first = [c for c in result.candidates if c.stage == "discrete"]
    second = [c for c in result.candidates if c.stage == "continuous"]
    assert len(first) == 4 + 1  # and the initial settings
    assert len(second) in (
        3 * 4 + 1,
        3 * 4 + 2,
    )  # four checkpoints each; the best search and the initial settings, unchanged
    assert not result.failures
    assert all(c.settings.continuous is not None for c in second)

    # the best has the highest score of its stage, and its metrics are those of a separate registration
    scores = score_by_metrics([c.metrics for c in second], result.ranked_by)
    assert result.best is second[int(scores.argmax())]
    assert result.scores[len(first) :] == tuple(scores.tolist())
    best = RegistrationConfig.load(folder / "best.toml")
    assert best == result.best.settings
    found = []
    for pair in labelled:
        transform = register(pair.fixed, pair.moving, best).transform
        labels = (read_image(path) for path in (pair.fixed_labels, pair.moving_labels))
        found.append(evaluate_transform(transform, **dict(zip(("fixed_labels", "moving_labels"), labels, strict=True))))
    for name, key in (("dice", "dice"), ("hd95_mm", "hd95_mm"), ("sdlogj", "sdlogj")):
        # entries are stored with six digits
        assert result.best.metrics[name] == pytest.approx(sum(f[key] for f in found) / 2, rel=2e-6)


def test_files(searched: tuple[Path, TuningResult, list[Status]]) -> None:
    folder, result, _ = searched
    table, report = rows(folder), json.loads((folder / "report.json").read_text())
    assert len(table) == len(result.candidates)
    for row, candidate, score in zip(table, result.candidates, result.scores, strict=True):
        assert row["stage"] == candidate.stage
        assert float(row["score"]) == pytest.approx(score, abs=5e-5)
        assert float(row["dice"]) == pytest.approx(candidate.metrics["dice"], rel=1e-4)
        assert row["error"] == ""
    sampled = [row for row in table if row["stage"] == "discrete" and row["discrete.radius"]]
    assert all(row["discrete.radius"] in "23" and row["features.radius"] in "12" for row in sampled)
    checkpoints = {
        (row["iterations"], row["final_smoothing"]) for row in table if row["continuous.regularisers.0.weight"]
    }
    assert checkpoints == {(n, s) for n in ("2", "5") for s in ("None", "BoxSmoothing(width=3, passes=1)")}
    assert report["ranked_by"] == list(result.ranked_by)
    assert report["best"]["dice"] == result.best.metrics["dice"]
    assert report["base"]["dice"] == result.base.metrics["dice"]
    assert set(report["before"]) == {"dice", "dice30"}


def test_the_initial_settings_are_evaluated_unchanged(
    searched: tuple[Path, TuningResult, list[Status]], space: Space
) -> None:
    _, result, _ = searched
    assert result.base is not None
    assert result.base.settings == space.base
    assert result.base.changes == {}


def test_progress_counts_up_to_the_end(searched: tuple[Path, TuningResult, list[Status]]) -> None:
    _, _, seen = searched
    for stage in ("discrete", "continuous"):
        steps = [status for status in seen if status.stage == stage]
        assert [s.done for s in steps] == list(range(steps[-1].total + 1))
        assert len({s.total for s in steps}) == 1
        assert math.isnan(steps[0].seconds_left)
        assert steps[-1].seconds_left == 0


def test_a_finished_search_has_no_trials_left(
    searched: tuple[Path, TuningResult, list[Status]], labelled: tuple[PairFiles, ...], space: Space
) -> None:
    folder, result, _ = searched
    before = rows(folder)

    class Idle:
        def run(self, spec: EvaluatorSpec, next_job: Callable[[], Job | None]) -> Iterator[tuple[Job, Any]]:
            assert next_job() is None
            yield from ()

    again = tune(labelled, folder, space=space, executor=Idle())
    assert again.best.settings == result.best.settings
    assert rows(folder) == before


def test_the_same_arguments_lead_to_the_same_samples(
    searched: tuple[Path, TuningResult, list[Status]], labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    folder, _, _ = searched
    output = tmp_path / "a b#%41?c"  # names that an address would misread
    tune(labelled, output, space=space, storage="sqlite")
    assert without_time(rows(output)) == without_time(rows(folder))
    assert (output / "study.sqlite").exists()


@pytest.mark.parametrize("changed", ["seed", "samples", "sampler", "surface", "storage", "pairs", "space", "file"])
def test_a_folder_holds_one_search(
    searched: tuple[Path, TuningResult, list[Status]],
    labelled: tuple[PairFiles, ...],
    space: Space,
    changed: str,
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(searched[0], tmp_path / "search"))  # other tests count its files
    other: dict[str, Any] = {
        "seed": {"seed": 1},
        "samples": {"samples": (1, 1)},
        "sampler": {"sampler": "tpe"},
        "surface": {"surface": False},
        "space": {"space": Space.from_toml(space.text + "\n# edited\n")},
    }.get(changed, {})
    stat = labelled[1].moving.stat()
    other |= {"storage": "sqlite"} if changed == "storage" else {}
    if changed == "file":
        os.utime(labelled[1].moving, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        name = "pairs" if changed == "file" else changed
        pairs = labelled[:1] if changed == "pairs" else labelled
        with pytest.raises(
            ConfigError, match=f"^{name} must be as in the search that .* holds, got others; choose another folder"
        ):
            tune(pairs, folder, **{"space": space, **other})
    finally:
        os.utime(labelled[1].moving, ns=(stat.st_atime_ns, stat.st_mtime_ns))


SCRIPT = """
import sys
from pathlib import Path
from convexadam.io import read_manifest
from convexadam.tuning import tune

folder = Path(sys.argv[1])
tune(read_manifest(folder / "pairs.csv"), folder / "out", space=folder / "mine.toml", storage=sys.argv[2],
     sampler=sys.argv[3], progress=lambda s: print(s.stage, s.done, flush=True))
"""


@pytest.mark.long
@pytest.mark.parametrize(("storage", "sampler"), [("journal", "random"), ("sqlite", "tpe")])
def test_a_killed_search_continues(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path, storage: str, sampler: str
) -> None:
    """Killed three times: the same trials as of an uninterrupted search, none lost and none twice."""
    columns = ("id", "fixed", "moving", "fixed_labels", "moving_labels")
    lines = [",".join(str(getattr(pair, name)) for name in columns) for pair in labelled]
    (tmp_path / "pairs.csv").write_text("\n".join([",".join(columns), *lines]))
    (tmp_path / "mine.toml").write_text(space.text)
    arguments = ["-c", SCRIPT, str(tmp_path), storage, sampler]
    source = str(Path(convexadam.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    for stop in ("discrete 2", "continuous 1", "continuous 3"):
        reader, writer = os.pipe()
        process = forked.start(arguments, env, stdout=writer)
        os.close(writer)
        with open(reader, encoding="utf-8") as printed:  # noqa: PTH123
            for line in printed:
                if line.strip() == stop:
                    time.sleep(0.05)  # into the next trial
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.wait() == -signal.SIGKILL
    assert forked.start(arguments, env).wait() == 0
    killed = rows(tmp_path / "out")

    uninterrupted = tmp_path / "uninterrupted"
    tune(labelled, uninterrupted, space=space, sampler=sampler)  # type: ignore[arg-type]
    expected = rows(uninterrupted)
    for row in (*killed, *expected):
        del row["seconds"], row["trial"]  # lost trials have numbers as well
    if sampler == "random":
        assert sorted(killed, key=str) == sorted(expected, key=str)
    else:  # its samples depend on the number of trials
        assert len(killed) == len(expected)
    trials = [tuple(row.items()) for row in killed]
    assert len(set(trials)) == len(trials)


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("multi-objective", marks=pytest.mark.long)])
def test_adaptive_samplers_repeat_no_settings_and_depend_on_the_seed(
    landmarked: tuple[PairFiles, ...], tmp_path: Path, sampler: Any
) -> None:
    # eight settings in all besides the unchanged ones: fewer than the samples
    few = Space.from_toml(
        'schema_version = 2\nbase = "published"\n[discrete]\nsamples = 12\ndiscrete.radius = [2, 3, 4, 5]\n'
        "discrete.spacing = [4, 5]\n[continuous]\nsamples = 0\n"
    )
    results = [tune(landmarked, tmp_path / str(n), space=few, sampler=sampler) for n in range(2)]
    for result in results:
        settings = [c.settings for c in result.candidates if c.stage == "discrete"]
        assert len({s.to_toml() for s in settings}) == len(settings) == 9
    assert without_time(rows(tmp_path / "0")) == without_time(rows(tmp_path / "1"))
    assert results[0].ranked_by == ("tre_mm", "tre30_mm", "sdlogj")


def test_a_lock_of_a_killed_process(landmarked: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    (tmp_path / "study.journal.lock").touch()
    began = time.monotonic()
    tune(landmarked, tmp_path, space=space, samples=(0, 0))
    assert time.monotonic() - began < 20  # Optuna alone would wait for half a minute
    assert not (tmp_path / "study.journal.lock").exists()


def test_without_labels_or_landmarks(blind: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    result = tune(blind, tmp_path, space=space, samples=(1, 1))
    assert result.ranked_by == ("inverse_error_mm", "feature_residual", "folded_percent")
    assert result.before == {}


def test_ranking_by_significance(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    result = tune(labelled, tmp_path, space=space, samples=(2, 1), ranking="significance")
    assert all(0.1 <= score <= 1 for score in result.scores)
    assert json.loads((tmp_path / "report.json").read_text())["ranking"] == "significance"


def test_a_trial_that_fails_does_not_stop_the_others(
    landmarked: tuple[PairFiles, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space.from_toml(
        'schema_version = 2\nbase = "published"\n[discrete]\nsamples = 2\n'
        'features = [{ type = "MindSSC" }, { type = "LabelFeatures" }]\n'  # but no pair has labels to compare
        "discrete.radius = [2]\n[continuous]\nsamples = 1\ncontinuous.regularisers.0.weight = [0.5, 2.0]\n"
    )
    result = tune(landmarked, tmp_path, space=space)
    [failure] = result.failures
    assert failure.stage == "discrete"
    assert "fixed_segmentation and moving_segmentation must both be given for these features" in failure.error
    [row] = [row for row in rows(tmp_path) if row["error"]]
    assert "LabelFeatures" in row["features"]
    assert row["error"] == failure.error
    assert json.loads((tmp_path / "report.json").read_text())["failed"] == 1


def test_all_trials_fail(landmarked: tuple[PairFiles, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        RegistrationConfig().with_settings('features = { type = "LabelFeatures" }').to_toml()
    )
    text = 'schema_version = 2\nbase = "mine.toml"\n[discrete]\nsamples = 1\ndiscrete.radius = 2\n[continuous]\n'
    with pytest.raises(
        InputError, match=r"the discrete stage must have a successful trial, got 2 failed ones; .*segmentation"
    ):
        tune(landmarked, tmp_path / "out", space=Space.from_toml(text, folder=tmp_path))


def test_a_budget_ends_each_stage_after_at_least_one_trial(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    result = tune(labelled, tmp_path, space=space, budget_s=1e-3)
    assert [c.stage for c in result.candidates] == ["discrete", "continuous"]
    # without a budget, the others
    later = tune(labelled, tmp_path, space=space)
    assert len({(c.stage, c.trial) for c in later.candidates}) >= 5 + 4


def test_two_searches_in_one_folder_at_once(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    class Another:
        def run(self, spec: EvaluatorSpec, next_job: Callable[[], Job | None]) -> Iterator[tuple[Job, Any]]:
            with pytest.raises(FileError, match=r"must not be in use by another search, got process \d+ on "):
                tune(labelled, tmp_path, space=space)
            yield from LocalExecutor().run(spec, next_job)

    tune(labelled, tmp_path, space=space, samples=(0, 0), executor=Another())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": (1,)}, "samples must be a tuple of 2 values, each a whole number"),
        ({"samples": 5}, "samples must be a tuple of 2 values, each a whole number"),
        ({"samples": (1, -1)}, "samples must be two whole numbers of at least 0"),
        ({"sampler": "grid"}, "sampler must be one of 'random', 'tpe', 'multi-objective', got 'grid'"),
        ({"ranking": "best"}, "ranking must be one of 'linear', 'significance', got 'best'"),
        ({"storage": "paper"}, "storage must be one of 'journal', 'sqlite', got 'paper'"),
        ({"budget_s": 0}, "budget_s must be a number of seconds above 0, got 0"),
        ({"budget_s": math.nan}, "budget_s must be a number of seconds above 0, got nan"),
        ({"budget_s": "2h"}, "budget_s must be a number, got '2h'"),
    ],
)
def test_arguments_out_of_range(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(labelled, tmp_path, **{"space": space, **options})


def test_pairs_with_different_reference_data(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    bare = dataclasses.replace(labelled[0], fixed_labels=None, moving_labels=None)
    with pytest.raises(InputError, match="all pairs must have the same reference data"):
        tune([bare, labelled[1]], tmp_path, space=space)
    with pytest.raises(
        InputError, match=r"pairs must be a file with a list of pairs or at least one PairFiles, got \(\)"
    ):
        tune([], tmp_path, space=space)


class Breaking:
    """Runs trials in this process, except one with a given outcome."""

    def __init__(self, number: int, outcome: TrialError | Exception) -> None:
        self._number, self._outcome = number, outcome

    def run(self, spec: EvaluatorSpec, next_job: Callable[[], Job | None]) -> Iterator[tuple[Job, Any]]:
        evaluator = spec.make()
        while (job := next_job()) is not None:
            if job.number != self._number:
                yield job, job.run(evaluator)
            elif isinstance(self._outcome, TrialError):
                yield job, self._outcome
            else:
                raise self._outcome


def test_a_trial_with_a_transient_error_is_repeated(
    searched: tuple[Path, TuningResult, list[Status]], labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    _, result, _ = searched
    first = tune(labelled, tmp_path, space=space, executor=Breaking(2, TrialError(message="no room", permanent=False)))
    assert [failure.error for failure in first.failures if failure.stage == "discrete"] == ["no room"]
    again = tune(labelled, tmp_path, space=space)
    assert not again.failures
    metrics = [sorted(str(c.metrics) for c in one.candidates) for one in (again, result)]
    assert metrics[0] == metrics[1]


def test_a_trial_with_a_permanent_error_is_not(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    bad = Breaking(2, TrialError(message="of no use", permanent=True))
    tune(labelled, tmp_path, space=space, samples=(2, 0), executor=bad)
    assert [f.error for f in tune(labelled, tmp_path, space=space, samples=(2, 0)).failures] == ["of no use"]


def test_missing_files_end_the_search_until_they_are_back(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="gone"):
        tune(labelled, tmp_path, space=space, samples=(2, 0), executor=Breaking(1, FileError("gone")))
    result = tune(labelled, tmp_path, space=space, samples=(2, 0))
    assert not result.failures
    assert len([c for c in result.candidates if c.stage == "discrete"]) == 3


@pytest.mark.parametrize(
    ("error", "permanent"),
    [(ConfigError("a"), True), (InputError("b"), True), (RuntimeError("c"), False), (IndexError("d"), False)],
)
def test_which_errors_are_permanent(error: Exception, permanent: bool) -> None:
    evaluator = mock.Mock()
    evaluator.evaluate.side_effect = error
    job = Job(number=0, settings=RegistrationConfig().to_toml(), checkpoints=Checkpoints())
    assert job.run(evaluator) == TrialError(message=f"{type(error).__name__}: {error}", permanent=permanent)


def test_out_of_memory_a_trial_is_repeated_with_an_empty_cache() -> None:
    evaluator = mock.Mock()
    evaluator.evaluate.side_effect = [OutOfMemoryError("full"), "done"]
    assert Job(number=0, settings=RegistrationConfig().to_toml(), checkpoints=Checkpoints()).run(evaluator) == "done"
    evaluator.clear.assert_called_once()


def test_an_incomplete_line_of_the_journal(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    tune(labelled, tmp_path, space=space, samples=(2, 0))
    journal = tmp_path / "study.journal"
    journal.write_bytes(journal.read_bytes()[:-40])
    for _ in range(2):
        assert not tune(labelled, tmp_path, space=space, samples=(2, 0)).failures


@pytest.mark.parametrize(("storage", "name"), [("journal", "study.journal"), ("sqlite", "study.sqlite")])
def test_a_damaged_study(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path, storage: Any, name: str
) -> None:
    (tmp_path / name).write_text("this is no study\n" * 9)
    with pytest.raises(FileError, match="cannot read the study"):
        tune(labelled, tmp_path, space=space, storage=storage)


def test_a_refused_search_does_not_occupy_the_folder(
    labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(labelled[0], fixed_labels=labelled[0].fixed)
    with pytest.raises(InputError, match="whole numbers"):
        tune([wrong, labelled[1]], tmp_path, space=space, samples=(0, 0))
    tune(labelled, tmp_path, space=space, samples=(0, 0))


def test_a_damaged_record(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text("[1]")
    with pytest.raises(FileError, match=r"cannot read .*search\.json"):
        tune(labelled, tmp_path, space=space)


def test_pairs_of_one_name_and_missing_files(labelled: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    same = dataclasses.replace(labelled[1], id=labelled[0].id)
    with pytest.raises(InputError, match="ids of pairs must be unique, got 2 named 'pair 0'"):
        tune([labelled[0], same], tmp_path, space=space)
    gone = dataclasses.replace(labelled[0], fixed=tmp_path / "gone.nii.gz")
    with pytest.raises(FileError, match=r"files of pair pair 0 must exist, missing: .*gone\.nii\.gz"):
        tune([gone], tmp_path, space=space)


def test_a_pair_with_nan_counts() -> None:
    nan = math.nan
    entries = {
        "a": {"inverse_error_mm": [3.0], "hd95_mm": [2.0, nan]},
        "b": {"inverse_error_mm": [nan], "hd95_mm": [nan]},
    }
    found = summarise(entries, {"a": {}, "b": {}})
    assert math.isnan(found["inverse_error_mm"])
    assert found["hd95_mm"] == 2.0


def test_summary_of_the_hardest_over_all_pairs() -> None:
    before = {"a": {"dice": [0.9, 0.1, 0.8, 0.7, 0.6]}, "b": {"dice": [0.2, 0.9, 0.9, 0.9, 0.3]}}
    after = {"a": {"dice": [0.0, 0.4, 0.0, 0.0, 0.0]}, "b": {"dice": [0.6, 0.0, 0.0, 0.0, 0.8]}}
    found = summarise(after, before)
    assert found == {"dice": pytest.approx((0.08 + 0.28) / 2), "dice30": pytest.approx((0.4 + 0.6 + 0.8) / 3)}


def test_the_evaluator_of_a_spec(labelled: tuple[PairFiles, ...]) -> None:
    evaluator = EvaluatorSpec(pairs=labelled, device="cpu", memory_bytes=10, surface=False).make()
    assert isinstance(evaluator, Evaluator)
    assert "hd95_mm" not in evaluator.evaluate(RegistrationConfig(continuous=None)).entries[0]["pair 0"]


def test_a_refused_search_leaves_no_study(blind: tuple[PairFiles, ...], space: Space, tmp_path: Path) -> None:
    """Landmarks of another number than the others are known only when the pairs are read."""
    bad = tmp_path / "bad.csv"
    bad.write_text("1,2,3\n", encoding="utf-8")
    worse = tmp_path / "worse.csv"
    worse.write_text("1,2,3\n4,5,6\n", encoding="utf-8")
    pairs = [dataclasses.replace(pair, fixed_landmarks=bad, moving_landmarks=worse) for pair in blind]
    for storage in ("sqlite", "journal"):
        output = tmp_path / storage
        with pytest.raises(InputError, match="row by row"):
            tune(pairs, output, space=space, storage=storage)
        assert not (output / "study.sqlite").exists()


def test_the_files_of_a_killed_process_are_swept(
    landmarked: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    part = tmp_path / ".0123456789ab.part.report.json"
    part.write_text("{", encoding="utf-8")
    tune(landmarked, tmp_path, space=space, samples=(0, 0), surface=False)
    assert not part.exists()
