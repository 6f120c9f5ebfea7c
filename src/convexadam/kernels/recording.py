"""The same step many times on a GPU, without launching each kernel anew.

Launching a Triton kernel takes the host some ten microseconds, about as long as a small kernel runs. Recording one step
as a CUDA graph and replaying it costs one launch for each step. (Recording the whole loop would gain nothing: to
record a launch takes the host as long as to make it, and meanwhile the GPU would wait.)
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from convexadam.kernels._backend import backend_for

SWITCH = "CONVEXADAM_CUDA_GRAPH"
"""Environment variable that switches recording on ("1"); off by default until it has been measured."""

_LEAST = 4
"""Calls from which on recording can pay."""


def recordable(*tensors: torch.Tensor | None) -> bool:
    """Whether `repeat` may record what runs on these tensors: asked for, on a CUDA device, and by Triton kernels."""
    if os.environ.get(SWITCH, "0") != "1" or not all(t is None or t.is_cuda for t in tensors):
        return False
    return backend_for(*tensors) == "triton"


def repeat(step: Callable[[], object], times: int, *, record_on: torch.device | None = None) -> None:
    """Call ``step`` ``times`` times; on ``record_on``, replay a recording instead from the second time on.

    Recorded, ``step`` is called twice: once as it is, which compiles its kernels and fills caches, and once to record
    it. So it has to launch the same kernels with the same numbers on the same memory every time (what it counts, it
    counts on the device), and never wait for the device. What it allocates and frees is reused from replay to replay.

    Parameters
    ----------
    step
        What to do; what it returns is dropped.
    times
        How often.
    record_on
        CUDA device of everything that ``step`` touches; ``None`` calls it ``times`` times.
    """
    if record_on is None or times < _LEAST:
        for _ in range(times):
            step()
        return
    step()
    with torch.cuda.device(record_on):
        graph = _recorded(step)
        for _ in range(times - 1):
            graph.replay()
        # the graph owns memory that the replays use
        torch.cuda.current_stream().synchronize()


def _recorded(step: Callable[[], object]) -> torch.cuda.CUDAGraph:
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
