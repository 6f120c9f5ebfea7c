"""Processes and workers that are killed: nothing is lost, nothing is done twice, nothing is half-written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
from studies import FAST, count_threads, files, rows, run, statuses

from convexadam import read_image
from convexadam.cohort import PairFiles
from convexadam.executors import DaskExecutor, ProcessExecutor, connect_dask

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
    # resources that a killed process leaves open, and warnings of dask about it
    pytest.mark.filterwarnings("ignore"),
]

SCRIPT = """
from pathlib import Path
from convexadam.cohort import PairFiles, register_cohort
from convexadam.executors import ProcessExecutor
from studies import FAST
study = Path({study!r})
ids = [(m, n) for n in range(6) for m in "bc"]
pairs = [PairFiles(id=f"{{m}}{{n}}", fixed=study / "a.nii.gz", moving=study / f"{{m}}.nii.gz") for m, n in ids]
for _ in register_cohort(pairs, FAST, output_dir={out!r}, executor={executor}):
    pass
"""


def start(study: Path, out: Path, executor: str) -> Any:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return forked.start(["-c", SCRIPT.format(study=str(study), out=str(out), executor=executor)], environment)


@pytest.mark.parametrize("executor", ["None", "ProcessExecutor(2)"])
def test_a_cohort_that_is_killed_again_and_again(study: Path, tmp_path: Path, executor: str) -> None:
    out, seed = tmp_path / "out", random.Random(0)
    folder, kept, kills = out / "pairs", dict[str, int](), 0
    while True:
        process = start(study, out, executor)
        before = count(out)
        while process.poll() is None and count(out) < before + 2:
            time.sleep(0.01)
        time.sleep(0.1 * seed.random())
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
        assert kills < 20
        for path in folder.glob("[!.]*"):  # complete, and not made again
            assert {part.name for part in path.iterdir()} == {"report.json", "moved.nii.gz", "transform.nii.gz"}
            assert kept.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
            read_image(path / "moved.nii.gz")
    assert kills > 2
    ids = sorted(f"{m}{n}" for n in range(6) for m in "bc")
    assert sorted(row["id"] for row in rows(out)) == ids
    assert {row["status"] for row in rows(out)} == {"done"}
    assert sorted(path.name for path in folder.iterdir()) == ids


def count(out: Path) -> int:
    """Rows of the table, in which there is never half a row."""
    try:
        text = (out / "cohort.csv").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    assert text.endswith("\n")
    assert all(line.count(",") >= text.split("\n", 1)[0].count(",") for line in text.splitlines())
    return text.count("\n") - 1


def test_a_second_process_is_refused_and_takes_over_when_the_first_is_killed(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(study, out, "None")
    while count(out) < 1:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = start(study, out, "None")
    assert second.wait(300) == 1
    first.kill()
    first.wait()
    assert start(study, out, "None").wait(600) == 0
    assert len(rows(out)) == 12


def test_processes_do_what_this_one_does(pairs: tuple[PairFiles, ...], tmp_path: Path) -> None:
    outcomes = run(pairs, tmp_path / "2", executor=ProcessExecutor(2, threads=1))
    assert statuses(outcomes) == {"b": "done", "c": "done"}
    run(pairs, tmp_path / "1")
    assert files(tmp_path / "2") == files(tmp_path / "1")


def many(study: Path) -> list[PairFiles]:
    return [
        PairFiles(id=f"{m}{n}", fixed=study / "a.nii.gz", moving=study / f"{m}.nii.gz") for n in range(6) for m in "bc"
    ]


def test_a_dask_worker_that_is_killed(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from convexadam.cohort import register_cohort

    client = connect_dask(workers=2)
    killed = list[int]()
    try:
        outcomes = {}
        for outcome in register_cohort(many(study), FAST, output_dir=tmp_path, executor=DaskExecutor(client)):
            outcomes[outcome.id] = outcome
            if len(outcomes) == 2:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
        assert killed[0] not in client.run(os.getpid).values()
        threads = client.run(count_threads)
    finally:
        client.cluster.close()
        client.close()
    assert set(statuses(outcomes).values()) == {"done"}
    assert sorted(row["id"] for row in rows(tmp_path)) == sorted(pair.id for pair in many(study))
    assert set(threads.values()) == {(max(1, (os.cpu_count() or 1) // 2), "PASSIVE")}


def test_a_scheduler_that_is_lost_and_comes_back(study: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    from convexadam.cohort import register_cohort

    scheduler = start_dask("scheduler", "--port", "8791", "--no-dashboard")
    worker = start_worker(tmp_path)
    client = connect_when_ready(distributed)
    try:
        outcomes = {}
        for outcome in register_cohort(many(study), FAST, output_dir=tmp_path / "out", executor=DaskExecutor(client)):
            outcomes[outcome.id] = outcome
            if len(outcomes) == 3:
                scheduler.kill()
                scheduler.wait()
                worker.kill()
                worker.wait()
                scheduler = start_dask("scheduler", "--port", "8791", "--no-dashboard")
                worker = start_worker(tmp_path)
        assert len(outcomes) == 12
        assert set(statuses(outcomes).values()) == {"done"}
        assert sorted(row["id"] for row in rows(tmp_path / "out")) == sorted(outcomes)
    finally:
        client.close()
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def start_dask(kind: str, *options: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder / "dask"))
    return start_dask("worker", "tcp://127.0.0.1:8791", *options)


def connect_when_ready(distributed: Any) -> Any:
    deadline = time.monotonic() + 300
    while True:
        try:
            return distributed.Client("tcp://127.0.0.1:8791", timeout=5)
        except OSError:
            assert time.monotonic() < deadline
