"""Trials on the workers of a real cluster of this machine, also where one of them is killed."""

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
from convexadam.tuning import DaskExecutor, Space, Status, dask_client, tune

pytest.importorskip("optuna")
distributed = pytest.importorskip("distributed")

# what a killed process leaves open, and what dask says about it, is not ours
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


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


def figures(result: Any) -> list[tuple[Any, ...]]:
    found = [(c.stage, c.settings.to_toml(), tuple(c.figures.items())) for c in result.candidates]
    return sorted(found, key=str)


def test_the_same_trials_as_here_though_a_worker_is_killed(
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
    here = tune(landmarked, tmp_path / "here", space=space)
    assert figures(spread) == figures(here)
    assert spread.best.settings == here.best.settings


def test_what_fails_on_a_worker_is_noted(client: Any, landmarked: tuple[PairFiles, ...], tmp_path: Path) -> None:
    text = (
        'schema_version = 1\nbase = "published"\n[discrete]\ndraws = 2\n'
        'features = [{ type = "MindSSC", radius = 2 }, { type = "LabelFeatures" }]\n[continuous]\n'
    )
    result = tune(landmarked, tmp_path, space=Space.from_toml(text), executor=DaskExecutor(client))
    [failure] = result.failures
    assert "the features compare labels, but none came" in failure.error


def test_a_client_of_a_scheduler_that_runs(client: Any) -> None:
    other = dask_client(client.scheduler.address)
    try:
        assert len(other.nthreads()) == len(client.nthreads())
    finally:
        other.close()


def test_an_address_and_jobs_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="both came; give one of them"):
        dask_client("tcp://127.0.0.1:1", slurm_jobs=2)


def test_jobs_of_slurm_need_a_configuration() -> None:
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(ConfigError, match="jobs of SLURM are not configured"):
        dask_client(slurm_jobs=2)
