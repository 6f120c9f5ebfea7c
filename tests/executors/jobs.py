"""Jobs that other processes run: functions that they can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def square(number: int) -> int:
    return number * number


def describe_process(_: int) -> dict[str, Any]:
    return {"process": os.getpid(), **os.environ}


def fail_at_odd(number: int) -> int:
    if number % 2:
        raise KeyError(number)
    return number


def print_something(number: int) -> int:
    os.write(1, b"what a library prints\n")
    return number


def kill_once(mark: str) -> str:
    """End the process by force, but only the first one."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def kill_always(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_process_and_wait(path: str) -> None:
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()), encoding="utf-8")
    part.rename(path)
    time.sleep(60)


class Unloadable(Exception):
    """An exception whose constructor needs more than it keeps."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def raise_unloadable(number: int) -> None:
    raise Unloadable(number, 2)


def meet_others(job: tuple[str, int, int]) -> tuple[int, str]:
    """Wait until so many jobs of a folder run at the same time; return the process and the GPU that it sees."""
    folder, number, count = job
    (Path(folder) / str(number)).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


_FUNCTIONS = (square, fail_at_odd, print_something, raise_unloadable, kill_once, describe_process)


def run_any(job: tuple[str, Any]) -> Any:
    return {function.__name__: function for function in _FUNCTIONS}[job[0]](job[1])


def wait_or_return(job: tuple[str, int]) -> int:
    if job[1]:
        write_process_and_wait(job[0])
    return job[1]
