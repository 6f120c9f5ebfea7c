"""Threads of torch that wait without computing, so that several processes can share the cores."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_GRAIN = 32768
"""Elements that torch gives to one thread at least."""


@contextmanager
def passive_waiting() -> Iterator[None]:
    """Let the threads of torch wait passively within the block.

    After each operation, the threads of GNU OpenMP, which torch uses on Linux, spin for milliseconds before they sleep.
    If other processes need the cores, the spinning threads keep those from running that have work. GNU OpenMP reads
    ``OMP_WAIT_POLICY`` only when it is loaded; but it spins for about a microsecond only while it has more threads than
    there are cores. Therefore a thread of this process holds a team of its own, which sleeps. Neither the number of
    threads that compute nor what each of them computes changes. Other implementations of OpenMP are not affected.
    """
    threads = torch.get_num_threads()
    if threads < 2 or not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        yield
        return
    ready, finished = threading.Event(), threading.Event()

    def hold_team() -> None:
        try:
            torch.zeros(2 * threads * _GRAIN, dtype=torch.uint8, device="cpu").add_(1)
        finally:
            ready.set()
        finished.wait()

    holder = threading.Thread(target=hold_team, name="convexadam-waiting", daemon=True)
    holder.start()
    ready.wait()
    try:
        yield
    finally:
        finished.set()
        holder.join()


def wait_passively(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in `passive_waiting`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with passive_waiting():
            return function(*args, **kwargs)

    return wrapped
