"""``convexadam tune``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convexadam import RegistrationConfig
from convexadam.cli import main
from convexadam.cli.common import UsageError
from convexadam.cli.tuning import parse_duration
from convexadam.data import phantom_pair
from convexadam.io import write_image

pytest.importorskip("optuna")
pytest.importorskip("matplotlib")

SPACE = """
schema_version = 2
base = "published"
[discrete]
samples = 2
discrete.radius = [2, 3]
[continuous]
samples = 2
continuous.regularisers.0.weight = [0.5, 1.0]
checkpoints.iterations = [2, 3]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pair = phantom_pair((24, 22, 20))
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write_image(getattr(pair, name), tmp_path / f"{name}.nii.gz")
    names = ("fixed", "moving", "fixed_labels", "moving_labels")
    (tmp_path / "pairs.csv").write_text(f"{','.join(names)}\n{','.join(f'{n}.nii.gz' for n in names)}\n")
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def options(folder: Path, *more: str) -> list[str]:
    places = [str(folder / "pairs.csv"), "--output-dir", str(folder / "out"), "--space", str(folder / "space.toml")]
    return ["tune", *places, *more]


def test_the_best_settings_are_accepted_by_register(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(folder)) == 0
    said = capsys.readouterr().err
    assert re.search(r"continuous: (\d) of \1\n", said)
    assert "dice" in said and "sdlogj" in said
    assert "best.toml" in said
    best = folder / "out" / "best.toml"
    assert RegistrationConfig.load(best).continuous is not None
    assert (folder / "out" / "space.toml").read_text() == SPACE
    assert (folder / "out" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    images = [str(folder / f"{side}.nii.gz") for side in ("fixed", "moving")]
    assert main(["register", *images, "--config", str(best), "--output-dir", str(folder / "moved"), "--quiet"]) == 0


def test_quiet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(folder, "--quiet", "--samples", "1", "0", "--budget", "2h")) == 0
    assert capsys.readouterr() == ("", "")


def test_a_folder_of_a_search_with_another_seed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(folder, "--quiet", "--samples", "0", "0")) == 0
    assert main(options(folder, "--quiet", "--samples", "0", "0", "--seed", "1")) == 1
    assert "seed must be as in the search that" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("", float("inf"))])
def test_budgets(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["30", "m", "0s", "-1h", "1d"])
def test_invalid_budgets(text: str) -> None:
    with pytest.raises(UsageError, match="--budget must be a time above 0"):
        parse_duration(text)


def test_wrong_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options(folder, "--scheduler", "tcp://127.0.0.1:8786")) == 2
    assert "--executor must be dask" in capsys.readouterr().err
    assert not (folder / "out").exists()
