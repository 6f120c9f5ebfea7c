"""Odd files and names through the commands: a line that says what is wrong, and a status that is not 0."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from convexadam import read_image

VALUES = np.arange(24 * 20 * 16, dtype=np.float32).reshape(24, 20, 16)


def nifti(values: np.ndarray, **fields: Any) -> Callable[[Path], None]:
    """Return what writes values with some fields of the header."""

    def write(path: Path) -> None:
        image: Any = nibabel.Nifti1Image(values, np.eye(4))
        for name, value in fields.items():
            image.header[name] = value
        nibabel.save(image, path)

    return write


def with_voxel(value: float) -> np.ndarray:
    values = VALUES.copy()
    values[3, 4, 5] = value
    return values


def huge(path: Path) -> None:
    nifti(VALUES)(path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([32000] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(content))


COLOURS = np.zeros(VALUES.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
IMAGES: dict[str, Callable[[Path], None]] = {
    "an empty file": Path.touch,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "no file": lambda path: None,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a loop of links": lambda path: path.symlink_to(path),
    "text": lambda path: path.write_text("text") and None,
    "a truncated file": lambda path: path.write_bytes(gzip.compress(VALUES.tobytes())[:5000]) and None,
    "a series": nifti(np.stack([VALUES] * 3, -1)),
    "colours": nifti(COLOURS),
    "complex numbers": nifti(VALUES.astype(np.complex64)),
    "a header that claims too much": huge,
}
"""Files that no command takes for an image."""

UNUSABLE = {"NaN": nifti(with_voxel(np.nan)), "Inf": nifti(with_voxel(np.inf))}
"""Images that cannot be registered."""

COMMANDS = {
    "register fixed": "register BAD moving.nii.gz --preset published --output-dir out",
    "register moving": "register fixed.nii.gz BAD --preset published --output-dir out",
    "register mask": "register fixed.nii.gz moving.nii.gz --fixed-mask BAD --preset published --output-dir out",
    "register segmentation": "register fixed.nii.gz moving.nii.gz --fixed-segmentation BAD "
    "--moving-segmentation moving_labels.nii.gz --preset published --output-dir out",
    "register start": "register fixed.nii.gz moving.nii.gz --initial-transform BAD --preset published --output-dir out",
    "warp": "warp truth.nii.gz BAD out.nii.gz",
    "warp by": "warp BAD moving.nii.gz out.nii.gz",
    "warp reference": "warp truth.nii.gz moving.nii.gz out.nii.gz --reference BAD",
    "invert": "invert BAD out.nii.gz",
    "compose": "compose truth.nii.gz BAD out.nii.gz",
    "convert": "convert BAD out.h5",
    "evaluate": "evaluate BAD",
    "evaluate labels": "evaluate truth.nii.gz --fixed-labels BAD --moving-labels moving_labels.nii.gz",
    "segment": "segment BAD --atlases atlases.csv --output-dir out",
    "cohort": "cohort BAD --output-dir out",
    "tune": "tune BAD --output-dir out",
    "config": "register fixed.nii.gz moving.nii.gz --config BAD --output-dir out",
    "landmarks": "warp truth.nii.gz BAD out.csv --space mm",
    "report": "report BAD",
    "learn2reg": "learn2reg run BAD --output-dir out",
}


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with links to the files of a pair."""
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "atlases.csv").write_text("image,labels\nmoving.nii.gz,moving_labels.nii.gz\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(ran: Any) -> None:
    """One line for the user; usage errors are in a box."""
    assert ran.status in (1, 2), ran
    assert "Traceback" not in ran.error
    lines = [line for line in ran.error.splitlines() if not line.startswith("convexadam: warning: ")]
    assert ran.status == 2 or (len(lines) == 1 and lines[0].startswith("convexadam: ")), ran.error


@pytest.mark.parametrize("kind", IMAGES)
def test_files_that_are_no_images(kind: str, here: Path, run: Any) -> None:
    name = "with space, ☃ 'quotes'.nii.gz"
    IMAGES[kind](here / name)
    before = sorted(here.iterdir())
    for command, text in COMMANDS.items():
        ran = run(*(name if word == "BAD" else word for word in text.split()))
        assert_refused(ran)
        assert sorted({*here.iterdir()} - {here / "out"}) == before, command  # nothing half-written
        shutil.rmtree(here / "out", ignore_errors=True)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_values_that_are_not_finite(kind: str, here: Path, run: Any) -> None:
    UNUSABLE[kind](here / "bad.nii.gz")
    for command in ("register fixed", "register moving", "register mask"):
        ran = run(*COMMANDS[command].replace("BAD", "bad.nii.gz").split())
        assert_refused(ran)
        assert "must be finite" in ran.error


@pytest.mark.parametrize("name", ["ünï cödé ☃.nii.gz", "with 'quotes\" $x.nii.gz", "-dash.nii.gz", " .nii.gz"])
def test_names_of_all_kinds(name: str, here: Path, run: Any) -> None:
    shutil.copy(here / "moving.nii.gz", here / name)
    ran = run("warp", "truth.nii.gz", "moving.nii.gz", f"./{name}", "--image")
    assert ran.status == 0, ran.error
    assert run("info", f"./{name}").status == 0
    assert read_image(here / name).grid == read_image(here / "fixed.nii.gz").grid


LANDMARKS = {
    "two columns": "1,2\n3,4\n",
    "words": "a,b,c\nx,y,z\n",
    "NaN": "1,2,3\nnan,2,3\n",
    "semicolons": "1;2;3\n",
    "UTF-16": "1,2,3\n".encode("utf-16"),
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("kind", LANDMARKS)
def test_landmarks(kind: str, here: Path, run: Any) -> None:
    content = LANDMARKS[kind]
    (here / "bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(run("warp", "truth.nii.gz", "bad.csv", "out.csv", "--space", "mm"))
    options = ("--fixed-landmarks", "bad.csv", "--moving-landmarks", "moving.csv")
    assert_refused(run("register", "fixed.nii.gz", "moving.nii.gz", "--output-dir", "out", *options))
    assert_refused(run("evaluate", "truth.nii.gz", *options))


MANIFESTS = {
    "other columns": ("foo,bar\n1,2\n", "must have columns among"),
    "a file that is missing": ("fixed,moving\nfixed.nii.gz,gone.nii.gz\n", "got no file gone.nii.gz"),
    "too few cells": ("fixed,moving\nfixed.nii.gz\n", "got no moving image"),
    "too many cells": ("fixed,moving\nfixed.nii.gz,moving.nii.gz,1\n", "got more"),
    "no pair": ("fixed,moving\n", "at least one pair, got none"),
    "a path as id": ("id,fixed,moving\n../a,fixed.nii.gz,moving.nii.gz\n", "must be names of folders"),
    "a quotation mark": ('fixed,moving\n"a,b\n', "must name the fixed and the moving image"),
    "one label map": ("fixed,moving,fixed_labels\nfixed.nii.gz,moving.nii.gz,mask.nii.gz\n", "if it has fixed_labels"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests(kind: str, here: Path, run: Any) -> None:
    text, message = MANIFESTS[kind]
    (here / "bad.csv").write_text(text, encoding="utf-8")
    for command in ("cohort", "tune")[: 1 if kind == "a path as id" else 2]:  # a search makes no folders of that name
        ran = run(command, "bad.csv", "--output-dir", "out")
        assert_refused(ran)
        assert message in ran.error
    ran = run("template", "bad.csv", "--output-dir", "out")
    assert_refused(ran)
    assert "None" not in ran.error


SETTINGS = (
    "[[[",
    "nonsense = 3",
    "schema_version = 99",
    'schema_version = 4\nfeatures = { type = "MindSSC", radius = true }',
    'schema_version = 4\nfeatures = { type = "MindSSC", radius = -1 }',
    'schema_version = 4\nfeatures = { type = "Nothing" }',
)


@pytest.mark.parametrize("text", SETTINGS)
def test_settings(text: str, here: Path, run: Any) -> None:
    (here / "bad.toml").write_text(text, encoding="utf-8")
    ran = run("register", "fixed.nii.gz", "moving.nii.gz", "--config", "bad.toml", "--output-dir", "out")
    assert_refused(ran)
    assert ran.error.startswith("convexadam: bad.toml: ")


OUTPUTS = {
    "the name of a file": "mask.nii.gz/out.nii.gz",
    "a folder that the system owns": "/proc/out.nii.gz",
    "a name that is too long": "n" * 300 + ".nii.gz",
    "an unknown suffix": "out.jpg",
    "nothing": "",
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs(kind: str, here: Path, run: Any) -> None:
    out = OUTPUTS[kind]
    for words in (
        ("warp", "truth.nii.gz", "moving.nii.gz", out),
        ("invert", "truth.nii.gz", out),
        ("compose", "truth.nii.gz", "truth.nii.gz", out),
        ("convert", "truth.nii.gz", out),
    ):
        assert_refused(run(*words))
    if kind != "an unknown suffix":  # a folder may have any
        images = ("register", "fixed.nii.gz", "moving.nii.gz", "--preset", "published")
        assert_refused(run(*images, "--output-dir", out))
        assert_refused(run("demo", "--output-dir", out))


def test_results_that_would_replace_inputs(here: Path, run: Any) -> None:
    for name in ("moved.nii.gz", "fixed.nii.gz"):
        (here / name).unlink(missing_ok=True)
        shutil.copy(here / "moving.nii.gz", here / name)
    ran = run("register", "fixed.nii.gz", "moved.nii.gz", "--preset", "published", "--output-dir", ".")
    assert_refused(ran)
    assert "moved.nii.gz: it is an input; choose another --output-dir" in ran.error


@pytest.mark.parametrize("text", ["", "fixed.nii.gz ", "--config "])
def test_empty_arguments(text: str, here: Path, run: Any) -> None:
    ran = run("register", "fixed.nii.gz", "moving.nii.gz", "--output-dir", "out", *text.split(" "))
    assert ran.status == 2
    assert re.fullmatch(r"convexadam: arguments must not be empty, got ''; .*\n", ran.error)
    assert not (here / "out").exists()
