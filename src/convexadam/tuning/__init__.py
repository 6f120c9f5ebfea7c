"""Self-configuration: settings chosen by what they reach on pairs of the user's."""

from convexadam.tuning.bench import Bench, Trial
from convexadam.tuning.executors import DaskExecutor, Executor, LocalExecutor, dask_client
from convexadam.tuning.figure import tradeoff_figure
from convexadam.tuning.report import Tuning
from convexadam.tuning.space import SPACES, Space
from convexadam.tuning.storage import StorageKind
from convexadam.tuning.study import Candidate, Failure, Sampler
from convexadam.tuning.tune import Progress, Ranking, Status, tune

__all__ = [
    "SPACES",
    "Bench",
    "Candidate",
    "DaskExecutor",
    "Executor",
    "Failure",
    "LocalExecutor",
    "Progress",
    "Ranking",
    "Sampler",
    "Space",
    "Status",
    "StorageKind",
    "Trial",
    "Tuning",
    "dask_client",
    "tradeoff_figure",
    "tune",
]
