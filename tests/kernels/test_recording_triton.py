"""Repeated steps, recorded as a CUDA graph or not."""

from __future__ import annotations

import os

import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.adam.triton import adam_step
from convexadam.kernels.recording import SWITCH, recordable, repeat
from convexadam.kernels.smooth.triton import smooth
from convexadam.kernels.warp.triton import add_step
from convexadam.kernels.warp_ssd.triton import WarpSsd

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

TAPS = (0.25, 0.5, 0.25)


def _minimise(device: torch.device, times: int, *, record: bool) -> torch.Tensor:
    """A loop with the kernels of a refinement."""
    shape = (6, 5, 7)
    fixed, moving = (oracles.noise(3, *shape, seed=s, dtype=torch.float32).to(device) for s in range(2))
    term = WarpSsd(fixed, moving, storage=torch.float32)
    u, m, v, change, gradient, buffer = (torch.zeros(3, *shape, device=device) for _ in range(6))
    number = torch.zeros((), dtype=torch.int64, device=device)

    def step() -> None:
        number.add_(1)
        term(u, diffusion=0.1, out=gradient)
        adam_step(change.zero_(), gradient, m, v, step=number, learning_rate=0.3, eps=1e-6)
        add_step(u, smooth(change, TAPS, out=buffer), longest=0.5, out=change)
        smooth(change, TAPS, out=u)

    iterations = list(repeat(step, range(1, times + 1), record_on=device if record else None))
    assert iterations == list(range(1, times + 1))
    assert int(number) == times
    return u


@pytest.mark.parametrize("times", [0, 1, 3])
def test_each_iteration_is_yielded_after_its_step(times: int) -> None:
    called: list[int] = []
    for iteration in repeat(lambda: called.append(len(called) + 1), range(1, times + 1)):
        assert called[-1] == len(called) == iteration
    assert len(called) == times


def test_no_step_is_made_beyond_the_last_iteration_asked_for() -> None:
    called: list[None] = []
    steps = repeat(lambda: called.append(None), range(1, 10))
    assert called == []
    assert [next(steps), next(steps)] == [1, 2]
    steps.close()
    assert len(called) == 2


def test_the_iterations_may_end_depending_on_the_steps() -> None:
    called: list[None] = []
    list(repeat(lambda: called.append(None), iter(lambda: len(called) + 1, 5)))
    assert len(called) == 4


def test_the_loop_runs_without_recording() -> None:
    assert _minimise(torch.device("cpu" if not torch.cuda.is_available() else "cuda"), 3, record=False).any()


def test_only_loops_on_a_gpu_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert not recordable(torch.zeros(1))
    assert not recordable(torch.zeros(1, device="meta"), iterations=20)
    monkeypatch.setenv(SWITCH, "0")
    if torch.cuda.is_available():
        assert not recordable(torch.zeros(1, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("times", [1, 4, 20])
def test_a_recording_gives_the_result_of_the_loop(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    assert torch.equal(_minimise(device, times, record=True), _minimise(device, times, record=False))
    monkeypatch.delenv(SWITCH, raising=False)
    assert recordable(torch.zeros(1, device=device), None)
    assert recordable(torch.zeros(1, device=device), iterations=4)
    assert not recordable(torch.zeros(1, device=device), iterations=3)  # recording would take longer
