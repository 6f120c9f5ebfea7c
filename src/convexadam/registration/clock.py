"""Time of the stages of a registration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, final

import torch

from convexadam.registration.memory import release_memory
from convexadam.registration.progress import Progress

STAGES = ("linear", "resample", "features", "discrete", "continuous", "finish")


@final
class Clock:
    """Report and time the stages; a GPU, which has its own clock, is waited for once, at the end."""

    def __init__(self, progress: Progress | None, device: torch.device) -> None:
        self._progress, self._device = progress, device
        self._marks, self._names = [self._mark()], list[str]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Report and time what runs within."""
        if self._progress is not None:
            self._progress(name, STAGES.index(name) / len(STAGES))
        yield
        if self._device.type == "cpu":
            release_memory()
        self._marks.append(self._mark())
        self._names.append(name)
        if self._progress is not None and name == STAGES[-1]:
            self._progress("done", 1.0)

    def timings(self) -> dict[str, float]:
        """Return the time of each stage that ran, in seconds."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(self._marks)]
        else:
            seconds = [b - a for a, b in pairwise(self._marks)]
        return dict(zip(self._names, seconds, strict=True))

    def _mark(self) -> Any:
        """Return the time, or an event that the GPU will reach when all that was launched has run."""
        if self._device.type != "cuda":
            return time.perf_counter()
        with torch.cuda.device(self._device):
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
        return event


@final
class NoClock:
    """Times nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run what is within."""
        yield
