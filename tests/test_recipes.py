"""The recipes run, each where its package is installed; the Dockerfile is one, and .ci/run runs its steps."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convexadam
from convexadam import write_image
from convexadam.data import phantom_pair

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def block(language: str, word: str) -> str:
    """Return the first block of a language with a word."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", RECIPES, re.MULTILINE | re.DOTALL)
    return next(text for text in found if word in text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pair and two scans with labels, which is the current one."""
    pair = phantom_pair((32, 28, 24), displacement_mm=10)
    (tmp_path / "scans").mkdir()
    for name in ("fixed", "moving", "moving_labels"):
        write_image(getattr(pair, name), tmp_path / f"{name}.nii.gz")
    for name in ("a", "b"):
        shutil.copy(tmp_path / "moving.nii.gz", tmp_path / "scans" / f"{name}.nii.gz")
        shutil.copy(tmp_path / "moving_labels.nii.gz", tmp_path / "scans" / f"{name}_labels.nii.gz")
    # the command as users have it, of this interpreter and this source
    program = tmp_path / "bin" / "convexadam"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m convexadam "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    source = str(Path(convexadam.__file__).parents[1])
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("package", ["torchio", "nipype", "nilearn", "dipy"])
def test_recipes_of_other_packages(package: str, folder: Path) -> None:
    pytest.importorskip(package)
    text = "import convexadam as ca\n" + block("python", package)
    (folder / "recipe.py").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "recipe.py"], check=True)


def test_snakemake(folder: Path) -> None:
    pytest.importorskip("snakemake")
    (folder / "Snakefile").write_text(block('python title="Snakefile"', "rule all"), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "snakemake", "--cores", "2", "--quiet"], check=True)
    assert all((folder / "study" / name / "labels.nii.gz").is_file() for name in "ab")


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
def test_slurm(folder: Path) -> None:
    (folder / "array.sh").write_text(block("sh", "SLURM_ARRAY_TASK_ID"), encoding="utf-8")
    subprocess.run(["bash", "array.sh"], check=True, env=os.environ | {"SLURM_ARRAY_TASK_ID": "2"})
    assert (folder / "array" / "b" / "transform.nii.gz").is_file()


def test_versions_are_those_of_the_page() -> None:
    """What a block says that it was run with is one version, of the package that it imports."""
    said = re.findall(r"<!-- not run: (\w+) is not installed with the tests; run with (\w+) [\d.]+ -->", RECIPES)
    assert [one for one, _ in said] == ["torchio", "nipype", "nilearn", "dipy", "snakemake"]
    assert all(one == other for one, other in said)
    for name, _ in said:
        if importlib.util.find_spec(name):
            version = importlib.metadata.version(name)
            assert f"run with {name} {version} " in RECIPES


# The container

KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_dockerfile_is_one() -> None:
    found = instructions()
    names = [name for name, _ in found]
    assert set(names) <= KNOWN
    assert names[:2] == ["ARG", "FROM"]
    assert names[-2:] == ["ENTRYPOINT", "CMD"]
    assert found[-2][1] == '["convexadam"]'


def test_what_it_copies_exists_and_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    sources = {word for name, words in instructions() if name == "COPY" for word in words.split()[:-1]}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)


def test_ci_runs_its_steps() -> None:
    assert "Dockerfile" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = [words for name, words in instructions() if name == "RUN"]
    assert all(re.match(r"(\w+=\w+ )?python -m pip install ", words) for words in steps)
