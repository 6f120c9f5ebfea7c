"""Repetition on a GPU as a CUDA graph: of a step, or of all that is computed from a pair of images.

Launching a Triton kernel takes about ten microseconds on the host, as long as a small kernel runs. A step that is
recorded as a CUDA graph needs one launch. (Recording the whole loop would not be faster: recording a launch takes the
host as long as launching, while the GPU is idle.)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar, final

import torch

from convexadam.kernels._backend import backend_for

T = TypeVar("T")

SWITCH = "CONVEXADAM_CUDA_GRAPH"
"""Environment variable that disables recording ("0")."""

_MIN_ITERATIONS = 4
"""With fewer, recording takes longer than it saves."""


def recordable(*tensors: torch.Tensor | None, iterations: int = _MIN_ITERATIONS) -> bool:
    """Whether `repeat` should record: not disabled, enough iterations, on a CUDA device, and by Triton kernels."""
    if (
        iterations < _MIN_ITERATIONS
        or os.environ.get(SWITCH, "1") == "0"
        or not all(t is None or t.is_cuda for t in tensors)
    ):
        return False
    return backend_for(*tensors) == "triton"


def repeat(
    step: Callable[[], object], iterations: Iterable[int], *, record_on: torch.device | None = None
) -> Generator[int, None, None]:
    """Call ``step`` once for each iteration, and yield the iteration; on ``record_on``, replay a recording instead.

    Recorded, ``step`` is called twice: once to compile its kernels and fill caches, and once to record it. It has to
    launch the same kernels with the same numbers on the same memory every time (what it counts, it counts on the
    device), and must never wait for the device. What it allocates and frees is reused from replay to replay. If it
    cannot be recorded, it is called each time, with a warning. Within another recording, it is called each time as
    well: all of its launches are part of that one.

    Parameters
    ----------
    step
        What to do; its return value is dropped.
    iterations
        Numbers of the iterations.
    record_on
        CUDA device of everything that ``step`` touches; ``None`` never records.
    """
    recording: Recording[object] | None = None
    if record_on is not None and torch.cuda.is_current_stream_capturing():
        record_on = None
    try:
        for number, iteration in enumerate(iterations):
            if record_on is not None and number == 1:
                recording = try_to_record(step, record_on, "the steps of the refinement")
            if recording is None:
                step()
            else:
                recording.replay()
            yield iteration
    finally:
        if recording is not None:  # it owns memory that the replays use
            torch.cuda.current_stream(record_on).synchronize()


@final
class Recording(Generic[T]):
    """What a call launches on a device, to be launched again at once.

    Attributes
    ----------
    value
        What the call returned; each replay writes its tensors anew.

    Raises
    ------
    RuntimeError
        If the call waits for the device, or does anything else that cannot be recorded.
    """

    def __init__(self, call: Callable[[], T], device: torch.device) -> None:
        self._device = device
        # ``torch.cuda.graph`` would also empty the cache and collect garbage, which takes longer than the loop.
        with torch.cuda.device(device):
            self._graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.value = call()
                finally:
                    self._graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)

    def replay(self) -> T:
        """Run it once; the value is that of the call."""
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self.value


def try_to_record(call: Callable[[], T], device: torch.device, name: str) -> Recording[T] | None:
    """Record a call without running it; ``None``, with a warning about ``name``, if that is impossible."""
    try:
        return Recording(call, device)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        warnings.warn(
            f"{name} could not be recorded as a CUDA graph and are launched one by one, which is slower "
            f"({str(error).splitlines()[0]}); set {SWITCH}=0 to skip the attempt",
            stacklevel=2,
        )
        return None
