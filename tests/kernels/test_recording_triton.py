"""Repeating a step, recorded or not."""

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


def _refined(device: torch.device, times: int, *, record: bool) -> torch.Tensor:
    """A loop like that of the refinement, with each of its kernels."""
    shape = (6, 5, 7)
    fixed, moving = (oracles.noise(3, *shape, seed=s, dtype=torch.float32).to(device) for s in range(2))
    comparison = WarpSsd(fixed, moving, storage=torch.float32)
    u, m, v, change, gradient, buffer = (torch.zeros(3, *shape, device=device) for _ in range(6))
    number = torch.zeros((), dtype=torch.int64, device=device)

    def step() -> None:
        number.add_(1)
        comparison(u, diffusion=0.1, out=gradient)
        adam_step(change.zero_(), gradient, m, v, step=number, learning_rate=0.3, eps=1e-6)
        add_step(u, smooth(change, TAPS, out=buffer), longest=0.5, out=change)
        smooth(change, TAPS, out=u)

    repeat(step, times, record_on=device if record else None)
    assert int(number) == times
    return u


@pytest.mark.parametrize("times", [0, 1, 3])
def test_calls_as_often_as_told(times: int) -> None:
    called: list[None] = []
    repeat(lambda: called.append(None), times)
    assert len(called) == times


def test_the_loop_runs_unrecorded() -> None:
    assert _refined(torch.device("cpu" if not torch.cuda.is_available() else "cuda"), 3, record=False).any()


def test_records_only_what_was_asked_for_and_lies_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "1")
    assert not recordable(torch.zeros(1))
    monkeypatch.delenv(SWITCH)
    if torch.cuda.is_available():
        assert not recordable(torch.zeros(1, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("times", [1, 4, 20])
def test_a_recording_does_what_the_loop_does(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    assert torch.equal(_refined(device, times, record=True), _refined(device, times, record=False))
    monkeypatch.setenv(SWITCH, "1")
    assert recordable(torch.zeros(1, device=device), None)
