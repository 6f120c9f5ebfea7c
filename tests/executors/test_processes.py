"""Jobs in this process and in others, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from jobs import fail_at_odd, kill_always, meet_others, run_any, wait_or_return

from convexadam import ConfigError
from convexadam.executors import LocalExecutor, ProcessExecutor, WorkerError, count_cores

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def take(values: Iterable[Any]) -> Callable[[], Any]:
    iterator = iter(values)
    return lambda: next(iterator, None)


def test_local_jobs_in_order_and_their_exceptions() -> None:
    found = list(LocalExecutor().run(fail_at_odd, take([2, 3, 4])))
    assert [job for job, _ in found] == [2, 3, 4]
    assert [result for _, result in found if not isinstance(result, Exception)] == [2, 4]
    assert isinstance(found[1][1], KeyError)


def test_each_job_once_whatever_it_does(tmp_path: Path) -> None:
    """One executor, since each process takes seconds to start: results, exceptions, output, and a process killed."""
    executor = ProcessExecutor(1, threads=2, gpus=("5",))
    assert dict(executor.run(run_any, take([("square", n) for n in range(6)]))) == {
        ("square", n): n * n for n in range(6)
    }
    jobs = [("fail_at_odd", 3), ("print_something", 4), ("raise_unloadable", 1), ("kill_once", str(tmp_path / "mark"))]
    found = dict(executor.run(run_any, take([*jobs, ("describe_process", 0)])))
    assert isinstance(found[jobs[0]], KeyError)
    assert found[jobs[1]] == 4
    assert str(found[jobs[2]]) == "Unloadable: 1 and 2"
    assert found[jobs[3]] == "survived"
    process = found["describe_process", 0]
    assert (process["OMP_NUM_THREADS"], process["OMP_WAIT_POLICY"]) == ("2", "PASSIVE")
    assert process["CUDA_VISIBLE_DEVICES"] == "5"
    assert process["process"] != os.getpid()


def test_two_processes_for_each_gpu_have_their_jobs_at_the_same_time(tmp_path: Path) -> None:
    rounds = [tmp_path / "first", tmp_path / "second"]
    for folder in rounds:
        folder.mkdir()
    jobs = [(str(folder), number, 4) for folder in rounds for number in range(4)]
    found = [result for _, result in ProcessExecutor(4, gpus=("7", "3")).run(meet_others, take(jobs))]
    assert all(isinstance(result, tuple) for result in found), found
    seen = dict[int, set[str]]()
    for process, gpu in found:
        seen.setdefault(process, set()).add(gpu)
    assert sorted(gpu for gpus in seen.values() for gpu in gpus) == ["3", "3", "7", "7"]  # each process has one


def test_a_job_that_ends_every_process() -> None:
    [(job, error)] = ProcessExecutor(1).run(kill_always, take([7]))
    assert job == 7
    assert isinstance(error, WorkerError)
    assert "got exit status -9 from 2 processes" in str(error)


def test_the_processes_end_when_the_caller_leaves(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}") for number in range(3)]
    running = ProcessExecutor(2).run(wait_or_return, take([("", 0), *((path, 1) for path in paths)]))
    assert next(running) == (("", 0), 0)
    process = wait_for_process(Path(paths[0]))
    running.close()
    assert not is_running(process)


SCRIPT = """
from convexadam.executors import ProcessExecutor
from jobs import write_process_and_wait
jobs = iter({paths!r})
list(ProcessExecutor(1).run(write_process_and_wait, lambda: next(jobs, None)))
"""


@pytest.mark.long
def test_the_processes_end_when_this_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "process"
    script = SCRIPT.format(paths=[str(path)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as parent:
        process = wait_for_process(path)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(process)


def wait_for_process(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text(encoding="utf-8"))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_cores_are_shared() -> None:
    assert ProcessExecutor(1).threads == count_cores()
    assert ProcessExecutor(10 * count_cores()).threads == 1


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "threads": 0}, {"workers": 1.5}])
def test_numbers_of_processes_and_threads(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be a whole number of at least 1"):
        ProcessExecutor(**options)
