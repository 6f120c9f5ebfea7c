"""Trials on the workers of a local cluster, one of which is killed."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convexadam import ConfigError
from convexadam.io import PairFiles
from convexadam.tuning import DaskExecutor, Space, Status, connect_dask, tune

pytest.importorskip("optuna")
distributed = pytest.importorskip("distributed")

# resources that a killed process leaves open, and warnings of dask about it
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


def list_metrics(result: Any) -> list[tuple[Any, ...]]:
    found = [(c.stage, c.settings.to_toml(), tuple(c.metrics.items())) for c in result.candidates]
    return sorted(found, key=str)


def test_the_same_trials_as_local_ones_although_a_worker_is_killed(
    client: Any, landmarked: tuple[PairFiles, ...], space: Space, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one(status: Status) -> None:
        if status.stage == "continuous" and status.done == 1 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    seen = DaskExecutor(client)
    spread = tune(landmarked, tmp_path / "spread", space=space, executor=seen, progress=kill_one)
    assert killed
    assert killed[0] not in client.run(os.getpid).values()
    assert not spread.failures
    local = tune(landmarked, tmp_path / "local", space=space)
    assert list_metrics(spread) == list_metrics(local)
    assert spread.best.settings == local.best.settings


def test_an_error_on_a_worker_is_recorded(client: Any, landmarked: tuple[PairFiles, ...], tmp_path: Path) -> None:
    text = (
        'schema_version = 2\nbase = "published"\n[discrete]\nsamples = 2\n'
        'features = [{ type = "MindSSC", radius = 2 }, { type = "LabelFeatures" }]\n[continuous]\n'
    )
    result = tune(landmarked, tmp_path, space=Space.from_toml(text), executor=DaskExecutor(client))
    [failure] = result.failures
    assert "fixed_segmentation and moving_segmentation must both be given for these features" in failure.error


def test_a_client_of_a_running_scheduler(client: Any) -> None:
    other = connect_dask(client.scheduler.address)
    try:
        assert len(other.nthreads()) == len(client.nthreads())
    finally:
        other.close()


def test_an_address_and_slurm_jobs() -> None:
    with pytest.raises(ConfigError, match="must have an address or slurm_jobs, got"):
        connect_dask("tcp://127.0.0.1:1", slurm_jobs=2)


def test_slurm_jobs_need_a_configuration() -> None:
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(ConfigError, match="cannot start SLURM jobs"):
        connect_dask(slurm_jobs=2)
