"""Executors of jobs: in this process, in several local processes, or on the workers of a Dask cluster."""

from convexadam.executors.dask import DaskExecutor, connect_dask
from convexadam.executors.processes import ProcessExecutor
from convexadam.executors.protocol import Executor, LocalExecutor, WorkerError
from convexadam.executors.threads import count_cores, make_thread_environment

__all__ = [
    "DaskExecutor",
    "Executor",
    "LocalExecutor",
    "ProcessExecutor",
    "WorkerError",
    "connect_dask",
    "count_cores",
    "make_thread_environment",
]
