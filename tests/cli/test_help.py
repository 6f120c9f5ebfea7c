"""Help of all commands: short enough to be read, and complete on request."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convexadam.cli.commands import _COMMANDS
from convexadam.learn2reg import TASK_PRESETS
from convexadam.registration.presets import preset_names

COMMANDS = [
    *[("register", "--preset", name) for name in preset_names()],
    *[(name,) for name in _COMMANDS],
    *[("learn2reg", name) for name in ("run", "evaluate", "validate", "submit")],
]
COMMON = [
    *("--output-dir", "--preset", "--linear", "--report", "--figure"),  # those that a newcomer needs are first
    *("--fixed-mask", "--moving-mask", "--warp-labels", "--config", "--set", "--initial-transform"),
    *("--fixed-landmarks", "--moving-landmarks", "--fixed-segmentation", "--moving-segmentation"),
    *("--device", "--learn2reg", "--quiet"),
]
"""Options of the short help of ``convexadam register``."""


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def read_lines(text: str) -> list[str]:
    """Return the lines of a help without frames and colours."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", text)
    return [line.strip("│╭╮╰╯─ ") for line in plain.splitlines()]


def find_help_texts(text: str) -> dict[str, str]:
    """Return the help text of each option, without its default."""
    texts: dict[str, str] = {}
    name = ""
    lines = read_lines(text)
    for line in lines[lines.index("options") :]:
        if re.match("--?[a-z]", line):
            # an invocation such as "--x.y INT|FLOAT|{INT INT INT}", and its help after two spaces or in the next line
            name, _, texts[line.partition("  ")[0]] = line.partition("  ")
        elif line.endswith(" options") or not line or set(line) == {"-"}:
            name = ""
        elif name:
            texts[name] += f" {line}"
    hint = r"\((default: |required\)|repeatable\)|fixed to: ).*"
    return {name: re.sub(hint, "", text).strip() for name, text in texts.items()}


def get_options(text: str) -> list[str]:
    return [invocation.split()[0] for invocation in find_help_texts(text) if invocation.startswith("--")]


def test_register_fits_on_one_screen(run: Any) -> None:
    ran = run("register", "--help")
    assert (ran.status, ran.error) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 80
    assert get_options(ran.out) == COMMON
    assert "--help-all" in ran.out
    assert run("register", "-h").out == ran.out


def test_the_short_help_names_all_presets(run: Any) -> None:
    for command in (("register",), ("demo",), ("learn2reg", "run")):
        text = " ".join(read_lines(run(*command, "--help").out))
        assert all(name in text for name in preset_names())
    assert all(name in text for name in TASK_PRESETS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_option_has_a_help_text(command: tuple[str, ...], run: Any) -> None:
    ran = run(*command, "--help-all")
    assert (ran.status, ran.error) == (0, "")
    texts = find_help_texts(ran.out)
    assert "-h, --help" in texts
    # {fixed}: a field that cannot be given as an option
    missing = [name for name, text in texts.items() if len(text.split()) < 2 and "{fixed}" not in name]
    assert not missing


COMPONENTS = [
    *(f'features={{type="{name}"}}' for name in ("MindSSC", "Intensity", "LabelFeatures", "ProbabilityFeatures")),
    'features={type="TorchScriptFeatures", path="model.pt"}',
    'grid={type="NativeGrid"}',
    'foreground={type="AutoForeground"}',
    'continuous.similarity={type="Lncc"}',
    *(f'continuous.regularisers=[{{type="{name}"}}]' for name in ("Bending", "VolumePreserving")),
    *(
        f'continuous.levels.0.total_smoothing={{type="{name}"}}'
        for name in ("GaussianSmoothing", "BilateralSmoothing", "AdaptiveSmoothing")
    ),
    'continuous.optimiser={type="LevenbergMarquardt"}',
]


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_option_of_a_component_has_a_help_text(component: str, run: Any) -> None:
    ran = run("register", "--set", component, "--help-all")
    assert (ran.status, ran.error) == (0, "")
    texts = find_help_texts(ran.out)
    assert not [name for name, text in texts.items() if len(text.split()) < 2 and "{fixed}" not in name]


def test_the_whole_help_has_the_fields_of_the_components(run: Any) -> None:
    texts = (run("register", "--preset", name, "--help-all").out for name in ("default", "published"))
    default, published = map(get_options, texts)
    assert set(COMMON) < set(default)
    for option in ("--grid.spacing-mm", "--discrete.spacing", "--continuous.levels.0.iterations", "--landmarks.weight"):
        assert option in default
    assert "--symmetric" in default
    assert "--backend" in default
    assert "--grid.spacing-mm" not in published


def test_options_that_the_short_help_hides_still_work(run: Any, tmp_path: Path) -> None:
    arguments = ["register", "fixed.nii.gz", "moving.nii.gz", "--output-dir", tmp_path]
    ran = run(*arguments, "--continuous.levels.0.iterations", "many")
    assert ran.status == 2
    assert "--continuous.levels.0.iterations" in ran.error
    ran = run(*arguments, "--continuous.levels.0.iterations", "3", "--discrete.spacing", "5")
    assert ran.status == 1  # the files do not exist
    assert "fixed.nii.gz" in ran.error


def test_help(run: Any) -> None:
    ran = run("--help")
    assert (ran.status, ran.error) == (0, "")
    assert len(ran.out.splitlines()) <= 2 * len(_COMMANDS) + 10  # a line or two for each
    for command in ("register", *_COMMANDS):
        assert command in ran.out
        assert run(command, "--help").status == 0
    assert run("--help-all").out == ran.out


def test_help_names_units(run: Any) -> None:
    text = " ".join(" ".join(read_lines(run("register", "--help-all").out)).split())
    for words in ("in mm LPS", "field in voxels", "Edge of a voxel in mm", "voxels of the working grid"):
        assert words in text
    evaluate = " ".join(read_lines(run("evaluate", "--help").out))
    assert "CSV of voxel indices i,j,k in the fixed image" in evaluate
    assert "TRANSFORM" in evaluate


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "convexadam", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
