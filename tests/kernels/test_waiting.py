"""Threads of torch that wait between operations take no time of a core."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from convexadam.executors import count_cores
from convexadam.kernels._waiting import passive_waiting, wait_passively

_GAP_S, _GAPS = 2e-4, 300


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, count_cores()))
    yield
    torch.set_num_threads(before)


def measure_others_s() -> float:
    """Time that other threads than this one compute, while this one computes alone between short operations."""
    values = torch.zeros(1 << 18)
    process, own = time.process_time(), time.thread_time()
    for _ in range(_GAPS):
        values.add_(1)
        end = time.thread_time() + _GAP_S
        while time.thread_time() < end:
            pass
    return (time.process_time() - process) - (time.thread_time() - own)


@pytest.mark.skipif(sys.platform != "linux", reason="torch uses GNU OpenMP on Linux only")
def test_threads_that_wait_do_not_compute() -> None:
    with passive_waiting():
        passive_s = measure_others_s()
    # their share of the additions, far below that of the gaps, in which spinning threads compute all the time
    assert passive_s < 0.5 * _GAP_S * _GAPS


def test_results_and_threads_are_as_before() -> None:
    values = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0))
    expected, threads = values.sum(), torch.get_num_threads()
    with passive_waiting():
        assert torch.get_num_threads() == threads
        assert torch.equal(values.sum(), expected)
        with passive_waiting():  # of a thread of the program around
            assert torch.equal(values.sum(), expected)
    assert not [thread for thread in threading.enumerate() if thread.name == "convexadam-waiting"]


def test_exceptions_pass_through_and_one_thread_needs_no_other() -> None:
    @wait_passively
    def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        fail()
    assert not [thread for thread in threading.enumerate() if thread.name == "convexadam-waiting"]
    torch.set_num_threads(1)
    with passive_waiting():
        assert threading.active_count() == len([t for t in threading.enumerate() if "waiting" not in t.name])
