"""``convexadam config``, the files of ``convexadam demo``, and figures."""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from convexadam import RegistrationConfig, preset
from convexadam.cli import demo, registering
from convexadam.data import phantom_pair

QUICK = [w for s in ("discrete.spacing=3", "continuous.levels.0.iterations=3") for w in ("--set", s)]


def test_settings_are_printed(run: Any, tmp_path: Path) -> None:
    ran = run("config", "--preset", "best")
    assert (ran.status, ran.error) == (0, "")
    assert RegistrationConfig.from_toml(ran.out) == preset("best")
    assert RegistrationConfig.from_toml(run("config").out) == preset()
    changed = RegistrationConfig.from_toml(run("config", "--set", "discrete.spacing=5").out)
    assert changed == preset().with_settings("discrete.spacing=5")
    assert run("config", "--set", "discrete.spacng=5").error.startswith("convexadam: the settings: discrete")
    assert run("config", "--preset", "bset").status == 2


def test_smoothing_is_scaled(run: Any, files: Path, tmp_path: Path) -> None:
    smoother = run("config", "--preset", "published", "--smoothness", "2")
    assert RegistrationConfig.from_toml(smoother.out) == preset("published", smoothness=2.0)
    assert "smoothness must be a finite number above 0, got -1.0" in run("config", "--smoothness=-1").error
    places = ["register", files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    assert "--smoothness must come without --config" in run(*places, "--smoothness", "2", "--config", "mine.toml").error
    assert run(*places, "--smoothness", "much").status == 2
    assert run(*places, "--preset", "published", "--smoothness", "2", *QUICK).status == 0
    (regulariser,) = json.loads((tmp_path / "report.json").read_text())["config"]["continuous"]["regularisers"]
    assert regulariser["weight"] == 4 * 1.25


def test_commands_run_on_the_files_of_the_demo(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "phantom_pair", functools.partial(phantom_pair, (28, 24, 20)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # a figure takes two seconds
    ran = run("demo", "--output-dir", "demo")
    assert ran.status == 0, ran.error
    assert "no figure written" in ran.error
    monkeypatch.chdir("demo")
    maps = ["--fixed-labels", "fixed_labels.nii.gz", "--moving-labels", "moving_labels.nii.gz", "--no-surface"]
    points = ["--fixed-landmarks", "fixed.csv", "--moving-landmarks", "moving.csv"]
    scores = json.loads(run("evaluate", "transform.nii.gz", *maps, *points).out)
    assert scores["dice"] == pytest.approx(json.loads(ran.out)["dice"], abs=1e-4)
    assert scores["tre_mm"] == pytest.approx(json.loads(ran.out)["tre_mm"], abs=0.01)
    places = ["fixed.nii.gz", "moving.nii.gz", "--output-dir", "out"]
    register = ["register", *places, *QUICK, *points, "--warp-labels", "moving_labels.nii.gz"]
    assert run(*register).status == 0
    assert (Path("out") / "moved_labels.nii.gz").is_file()
    warp = ["warp", "transform.nii.gz", "fixed.csv", "there.csv", "--space", "voxel", "--moving", "moving.nii.gz"]
    assert run(*warp).status == 0


def test_a_figure_is_written(run: Any, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, *QUICK, "--figure")
    assert ran.status == 0, ran.error
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ran.error.rstrip().endswith("figure.png")


def test_quiet_is_silent(run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register, logger = registering.register, logging.getLogger("convexadam")

    def register_with_noise(*args: Any, **options: Any) -> Any:
        logger.warning("convexadam: compiling ...")
        warnings.warn_explicit("odd", UserWarning, registering.__file__, 1, "convexadam.cli.registering")
        return register(*args, **options)

    monkeypatch.setattr(registering, "register", register_with_noise)
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, *QUICK)
    assert ran.status == 0
    assert "convexadam: warning: odd" in ran.error
    assert "wrote" in ran.error
    assert run("register", *places, *QUICK, "--quiet") == (0, "", "")
    assert run("register", *places[:1], "none.nii", *places[2:], "--quiet").error.startswith("convexadam: there is no")
    assert logger.level == logging.NOTSET
    assert not [handler for handler in logger.handlers if type(handler).__module__.startswith("convexadam")]


def test_only_the_log_writes_to_the_standard_error() -> None:
    source = Path(registering.__file__).parents[1]
    using = {p.name for p in source.rglob("*.py") if "stderr.write" in p.read_text(encoding="utf-8")}
    assert using == {"common.py"}
    names = {line for p in source.rglob("*.py") for line in re.findall(r"getLogger\((.*)\)", p.read_text("utf-8"))}
    assert names == {'"convexadam"'}
