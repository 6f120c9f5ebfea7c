"""How many threads a worker process gets, and that those which wait do not compute."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return the number of logical cores that this process may use.

    Examples
    --------
    >>> from convexadam.executors import count_cores
    >>> count_cores() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def make_thread_environment(threads: int) -> dict[str, str]:
    """Return the variables by which the libraries of a new process use so many threads, of which none spins.

    Examples
    --------
    >>> from convexadam.executors import make_thread_environment
    >>> make_thread_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    count = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return dict.fromkeys((*count, "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads)) | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
