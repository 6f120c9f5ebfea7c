"""Repetition of a step on a GPU as a CUDA graph.

Launching a Triton kernel takes about ten microseconds on the host, as long as a small kernel runs. A step that is
recorded as a CUDA graph needs one launch. (Recording the whole loop would not be faster: recording a launch takes the
host as long as launching, while the GPU is idle.)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, runtime_checkable

import torch

from convexadam.kernels._backend import backend_for

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
    cannot be recorded, it is called each time, with a warning.

    Parameters
    ----------
    step
        What to do; its return value is dropped.
    iterations
        Numbers of the iterations.
    record_on
        CUDA device of everything that ``step`` touches; ``None`` never records.
    """
    graph: _Recording | None = None
    try:
        for number, iteration in enumerate(iterations):
            if record_on is None or number == 0:
                step()
            else:
                with torch.cuda.device(record_on):
                    graph = graph or _try_to_record(step)
                    graph.replay()
            yield iteration
    finally:
        if graph is not None and not isinstance(graph, _Unrecorded):  # it owns memory that the replays use
            torch.cuda.current_stream(record_on).synchronize()


@runtime_checkable
class _Recording(Protocol):
    """A CUDA graph, as far as it is used."""

    def replay(self) -> None:
        """Run it once."""
        ...


class _Unrecorded:
    """A step that could not be recorded, with the interface of a recording."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step

    def replay(self) -> None:
        self._step()


def _try_to_record(step: Callable[[], object]) -> _Recording:
    try:
        return _record(step)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        warnings.warn(
            f"the steps of the refinement could not be recorded as a CUDA graph and are launched one by one, which is "
            f"slower ({str(error).splitlines()[0]}); set {SWITCH}=0 to skip the attempt",
            stacklevel=2,
        )
        return _Unrecorded(step)


def _record(step: Callable[[], object]) -> _Recording:
    # ``torch.cuda.graph`` would also empty the cache and collect garbage, which takes longer than the loop.
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph
