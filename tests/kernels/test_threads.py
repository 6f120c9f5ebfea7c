"""Work in slabs, on several threads, in several threads of the program around, and in its children."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import oracles
import pytest
import torch
from compiled import gaps, noise, on_cpu
from pairwise import pairwise

from convexadam.kernels import _cpu
from convexadam.kernels._cpu import run_in_slabs
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.mind_ssc import pooled_mind_ssc
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp import add_step
from convexadam.kernels.warp_ssd import warp_ssd

SHAPE = (17, 19, 18)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "multiple", "count"), pairwise([1, 2, 3, 100], [1, 2, 7, 1024], [0, 1, 2, 63, 64, 65, 5000])
)
def test_each_number_once(monkeypatch: pytest.MonkeyPatch, threads: int, multiple: int, count: int) -> None:
    monkeypatch.setattr(_cpu.torch, "get_num_threads", lambda: threads)
    slabs = run_in_slabs(lambda first, last: (first, last), count, multiple=multiple)
    assert all(first % multiple == 0 for first, _ in slabs)
    assert all(first < last for first, last in slabs) or count == 0
    assert sorted(n for first, last in slabs for n in range(first, last)) == list(range(count))
    assert len(slabs) == 1 or threads > 1


@pytest.mark.usefixtures("three_threads")
def test_arguments_and_results_pass_through() -> None:
    results = run_in_slabs(lambda first, last, values, factor: factor * sum(values[first:last]), 100, range(100), 2)
    assert len(results) > 1
    assert sum(results) == 2 * sum(range(100))


@pytest.mark.usefixtures("three_threads")
def test_several_threads_take_part() -> None:
    meeting = threading.Barrier(3)  # nobody gets past it alone

    def wait(first: int, last: int) -> str:
        if first < 3:
            meeting.wait(timeout=20)
        return threading.current_thread().name

    assert len(set(run_in_slabs(wait, 12))) >= 3


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [0, 1, 5, 11])
def test_exceptions_come_through(monkeypatch: pytest.MonkeyPatch, threads: int, bad: int) -> None:
    monkeypatch.setattr(_cpu.torch, "get_num_threads", lambda: threads)

    def fail(first: int, last: int) -> None:
        if first <= bad < last:
            raise KeyError(bad)

    for _ in range(20):  # it may be this thread or another one that fails
        with pytest.raises(KeyError, match=str(bad)):
            run_in_slabs(fail, 12)
    assert sorted(run_in_slabs(lambda first, last: last - first, 4)) == ([4] if threads == 1 else [1] * 4)


def _described() -> torch.Tensor:
    volume, weight = noise(*SHAPE), gaps(*SHAPE)
    return torch.cat([f.flatten() for f in pooled_mind_ssc(volume, [(3, 3, 3), (2, 2, 2)], weight=weight)])


def _compared() -> torch.Tensor:
    u = 2 * noise(3, *SHAPE, seed=2)
    return warp_ssd(noise(12, *SHAPE), noise(12, *SHAPE, seed=1), u, fixed_weight=gaps(*SHAPE), diffusion=0.1)[1]


def _moved() -> torch.Tensor:
    step = smooth(noise(3, *SHAPE), [0.25, 0.5, 0.25], before=gaps(*SHAPE))
    return add_step(noise(3, *SHAPE, seed=3), step, longest=0.5)


@pytest.mark.usefixtures("three_threads")
def test_threads_of_the_program_around_do_not_disturb_each_other() -> None:
    jobs: list[Callable[[], torch.Tensor]] = [on_cpu(job) for job in (_described, _compared, _moved)]
    expected = [job() for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(jobs[n % 3]) for n in range(30)]
        for n, future in enumerate(found):
            # Sums over slabs come in any order, in float64: at most the last digit of the limits of a variance differs.
            torch.testing.assert_close(future.result(timeout=60), expected[n % 3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_the_number_of_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(_cpu.torch, "get_num_threads", lambda: 3)
    expected = [on_cpu(job)() for job in (_described, _compared, _moved)]
    monkeypatch.setattr(_cpu.torch, "get_num_threads", lambda: threads)
    for job, result in zip((_described, _compared, _moved), expected, strict=True):
        torch.testing.assert_close(on_cpu(job)(), result, rtol=1e-6, atol=1e-6)


def _in_child(answer: multiprocessing.connection.Connection) -> None:
    field = torch.from_numpy(oracles.noise(3, *SHAPE).numpy()).float()
    answer.send_bytes(on_cpu(jacobian_determinant)(field).numpy().tobytes())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children do not share what their parent has begun")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on: there are threads, as meant here
@pytest.mark.usefixtures("three_threads")
def test_a_forked_child_has_workers_of_its_own() -> None:
    field = noise(3, *SHAPE)
    expected = on_cpu(jacobian_determinant)(field)  # by now there are workers, which no child inherits
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(there,), daemon=True)
    child.start()
    there.close()
    try:
        assert here.poll(60), "the child does not come back"
        found = torch.frombuffer(bytearray(here.recv_bytes()), dtype=torch.float32).reshape(SHAPE)
    finally:
        child.kill()
        child.join(10)
        here.close()
    assert torch.equal(found, expected)
