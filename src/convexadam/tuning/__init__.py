"""Self-configuration: settings chosen by their results on pairs of a user."""

from convexadam.executors import DaskExecutor, Executor, LocalExecutor, ProcessExecutor, connect_dask
from convexadam.tuning.evaluator import Evaluator, Trial
from convexadam.tuning.figure import tradeoff_figure
from convexadam.tuning.report import TuningResult
from convexadam.tuning.space import SPACES, Space
from convexadam.tuning.storage import StorageKind
from convexadam.tuning.study import Candidate, Failure, Sampler
from convexadam.tuning.tune import Progress, Ranking, Status, tune

__all__ = [
    "SPACES",
    "Candidate",
    "DaskExecutor",
    "Evaluator",
    "Executor",
    "Failure",
    "LocalExecutor",
    "ProcessExecutor",
    "Progress",
    "Ranking",
    "Sampler",
    "Space",
    "Status",
    "StorageKind",
    "Trial",
    "TuningResult",
    "connect_dask",
    "tradeoff_figure",
    "tune",
]
