"""Formats of others in the table: written, read, detected, listed, and refused where they clash."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import GRIDS, MOVING, sheared, some_points, waves

from convexadam.cli import main
from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, Grid, Transform
from convexadam.io import (
    FileHeader,
    Possible,
    TransformFormat,
    Unusable,
    formats,
    formats_markdown,
    get_format,
    read_transform,
    register_format,
    transform_formats,
    unregister_format,
    write_transform,
)

GRID = GRIDS["oblique PIR"]
MAGIC = "JSON matrix\n"
BUILTIN = ["itk", "nifti", "spm", "niftyreg", "learn2reg", "learn2reg-2021", "torch", "fsl", "x5"]


def write_json(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    assert isinstance(transform, Affine)
    path.write_text(MAGIC + json.dumps(transform.matrix.tolist()))


def read_json(path: Path, *, fixed: Grid | None, moving: Grid | None, device: Any) -> Transform:
    return Affine(json.loads(path.read_text().removeprefix(MAGIC)))


def detect_json(header: FileHeader) -> bool:
    return header.head.startswith(MAGIC.encode())


JSON = TransformFormat(
    name="json-matrix",
    convention="mm RAS+, as a test has it",
    contents="4 x 4 numbers",
    suffixes=(".jsonm", ".json"),
    default_suffixes=(".jsonm",),
    detect=detect_json,
    read=read_json,
    write=write_json,
)


@pytest.fixture
def registered() -> Iterator[TransformFormat]:
    register_format(JSON)
    yield JSON
    unregister_format(JSON.name)


def changed(**changes: Any) -> TransformFormat:
    """The format of the tests with other values."""
    return TransformFormat(**{**vars(JSON), **changes})


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("name", "named"), [("a.jsonm", None), ("a.json", "json-matrix")])
def test_write_read_and_detect(name: str, named: str | None, tmp_path: Path) -> None:
    write_transform(sheared(), tmp_path / name, format=named)
    for asked in (None, "json-matrix"):  # by its content, and by its name
        found = read_transform(tmp_path / name, format=asked)
        assert isinstance(found, Affine)
        np.testing.assert_array_equal(found.matrix, sheared().matrix)


@pytest.mark.usefixtures("registered")
def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_transform(sheared(), tmp_path / "a.jsonm")
    assert main(["info", str(tmp_path / "a.jsonm")]) == 0
    text = capsys.readouterr().out
    assert "json-matrix (mm RAS+, as a test has it), from fixed to moving space" in text
    back = tmp_path / "back.json"
    pytest.importorskip("SimpleITK")
    assert main(["convert", str(tmp_path / "a.jsonm"), str(tmp_path / "a.tfm")]) == 0
    assert main(["convert", str(tmp_path / "a.tfm"), str(back), "--to", "json-matrix"]) == 0
    np.testing.assert_allclose(read_transform(back)(some_points(GRID)), sheared()(some_points(GRID)), atol=1e-9)
    assert main(["info", str(back), "--from", "json-matrix", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["convention"] == JSON.convention


@pytest.mark.parametrize(
    "command", [["info", "a.tfm", "--from"], ["convert", "a", "b", "--to"], ["convert", "a", "b", "--from"]]
)
def test_the_commands_list_the_names(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "json-matrx"]) == 2
    assert f"{command[-1]} must be one of {', '.join(BUILTIN)}, got 'json-matrx'\n" in capsys.readouterr().err
    register_format(JSON)
    try:
        assert main([*command, "json-matrx"]) == 2
    finally:
        unregister_format(JSON.name)
    assert "x5, json-matrix, got 'json-matrx' (did you mean 'json-matrix'?)" in capsys.readouterr().err


def test_an_unknown_name_lists_all(registered: TransformFormat, tmp_path: Path) -> None:
    listed = re.escape(f"format must be one of {', '.join([*BUILTIN, JSON.name])}, got 'jsonmatrix'")
    for call in (
        lambda: get_format("jsonmatrix"),
        lambda: read_transform(Path(__file__), format="jsonmatrix"),
        lambda: write_transform(sheared(), tmp_path / "a.jsonm", format="jsonmatrix"),
    ):
        with pytest.raises(ConfigError, match=listed + r" \(did you mean 'json-matrix'\?\)"):
            call()
    with pytest.raises(ConfigError, match="name must be a string"):
        get_format(None)  # type: ignore[arg-type]
    assert get_format(JSON.name) is registered


def test_only_as_long_as_it_is_registered(tmp_path: Path) -> None:
    assert [item.name for item in transform_formats()] == BUILTIN
    register_format(JSON)
    write_transform(sheared(), tmp_path / "a.jsonm")
    unregister_format(JSON.name)
    with pytest.raises(FileError, match=r"must be of a known format \(itk, nifti.*got a file that begins with b'JSON"):
        read_transform(tmp_path / "a.jsonm")
    with pytest.raises(FileError, match=r"must end in one of .*, got 'a\.jsonm'"):
        write_transform(sheared(), tmp_path / "a.jsonm")
    with pytest.raises(ConfigError, match=r"registered format \(none\), got 'json-matrix'"):
        unregister_format(JSON.name)
    with pytest.raises(ConfigError, match="got 'itk'"):
        unregister_format("itk")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (JSON, "name of a format must be new, got 'json-matrix', which exists"),
        (changed(name="itk", default_suffixes=()), "name of a format must be new, got 'itk'"),
        (changed(name="other"), r"default_suffixes of format 'other' must be free, got '\.jsonm', .* of 'json-matrix'"),
        (changed(name="other", suffixes=(".pt",), default_suffixes=(".pt",)), r"got '\.pt', the default of 'torch'"),
        ("json", "must be a TransformFormat, got 'json'"),
    ],
)
def test_clashes_are_refused(candidate: Any, message: str) -> None:
    before = transform_formats()
    with pytest.raises(ConfigError, match=message):
        register_format(candidate)
    assert transform_formats() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must be one word, got ''"),
        ({"name": "my format"}, "name must be one word, got 'my format'"),
        ({"suffixes": (), "default_suffixes": ()}, r"suffixes must be endings with their dot, got \(\)"),
        ({"suffixes": ("jsonm",)}, "suffixes must be endings with their dot"),
        ({"default_suffixes": (".txt",)}, r"default_suffixes must be among suffixes, got '\.txt'"),
        ({"read_needs": ("source",)}, "read_needs must hold 'fixed' or 'moving' only, got 'source'"),
        ({"write_needs": ("source",)}, "write_needs must hold 'fixed' or 'moving' only, got 'source'"),
    ],
)
def test_definitions_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(**changes)


def register_other(**changes: Any) -> None:
    register_format(changed(**{"name": "other", "default_suffixes": (), **changes}))


@pytest.fixture
def other() -> Iterator[Any]:
    """Registers the format under another name with changes; removed after the test."""
    yield register_other
    unregister_format("other")


def test_one_way_formats(other: Any, tmp_path: Path) -> None:
    other(read=None)
    write_transform(sheared(), tmp_path / "a.jsonm", format="other")
    with pytest.raises(ConfigError, match="can be read, got 'other'; it can only be written"):
        read_transform(tmp_path / "a.jsonm")
    unregister_format("other")
    other(write=None, detect=None)
    assert isinstance(read_transform(tmp_path / "a.jsonm", format="other"), Affine)
    with pytest.raises(FileError, match="known format"):  # nothing detects it
        read_transform(tmp_path / "a.jsonm")
    with pytest.raises(ConfigError, match="can be written, got 'other'; it can only be read"):
        write_transform(sheared(), tmp_path / "b.jsonm", format="other")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonm"]


def test_grids_that_a_format_needs(other: Any, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def write(transform: Transform, path: Path, **grids: Any) -> None:
        asked["write"] = grids
        write_json(transform, path, fixed=None, moving=None)

    def read(path: Path, **options: Any) -> Transform:
        asked["read"] = options
        return read_json(path, fixed=None, moving=None, device=None)

    other(write_needs=("fixed", "moving"), read_needs=("moving",), read=read, write=write)
    path = tmp_path / "a.jsonm"
    for grids, lacks in (({"moving": MOVING}, "fixed"), ({"fixed": GRID}, "moving")):
        with pytest.raises(ConfigError, match=f"{lacks} must be a Grid or an Image for format 'other'.*pass {lacks}="):
            write_transform(sheared(), path, format="other", **grids)
    assert not list(tmp_path.iterdir())
    write_transform(sheared(), path, format="other", fixed=GRID, moving=MOVING)
    assert asked["write"] == {"fixed": GRID, "moving": MOVING}
    with pytest.raises(ConfigError, match=r"moving must be .*pass moving="):
        read_transform(path)
    read_transform(path, moving=MOVING, device="cpu")
    assert asked["read"] == {"fixed": None, "moving": MOVING, "device": "cpu"}


def test_a_suffix_that_the_format_does_not_have(tmp_path: Path) -> None:
    for name, path in (("torch", "a.pth"), ("x5", "a.h5"), ("nifti", "a.npz"), ("learn2reg-2021", "a.nii.gz")):
        with pytest.raises(FileError, match=f"of format '{name}' must end in .*, got .*{re.escape(path)}"):
            write_transform(waves(GRID), tmp_path / path, format=name, moving=MOVING)
    assert not list(tmp_path.iterdir())


def test_a_reader_that_returns_no_transform(other: Any, tmp_path: Path) -> None:
    other(read=lambda path, **_: np.eye(4))
    write_json(sheared(), tmp_path / "a.jsonm", fixed=None, moving=None)
    with pytest.raises(ConfigError, match="read of format 'other' must return a Transform, got ndarray"):
        read_transform(tmp_path / "a.jsonm")


def test_a_detection_that_depends_on_the_caller(other: Any, tmp_path: Path) -> None:
    write_json(sheared(), tmp_path / "a.jsonm", fixed=None, moving=None)
    (tmp_path / "matrix.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    other(detect=lambda header: Possible(content="a matrix of another program"), read_needs=("fixed",))
    advice = "may be a matrix of another program; pass format='other' with fixed="
    with pytest.raises(FileError, match=advice):
        read_transform(tmp_path / "a.jsonm")
    with pytest.raises(FileError, match=r"direction or a matrix of another program; .*, or pass format='other' with f"):
        read_transform(tmp_path / "matrix.txt")
    unregister_format("other")
    other(detect=lambda header: Unusable(problem="holds version 9", advice="update the program"))
    with pytest.raises(FileError, match=r"from .*a\.jsonm: it holds version 9; update the program"):
        read_transform(tmp_path / "a.jsonm")
    with pytest.raises(FileError, match="version 9"):  # a definite answer goes before what is only possible
        read_transform(tmp_path / "matrix.txt")


def test_errors_of_a_reader_name_the_file(other: Any, tmp_path: Path) -> None:
    other()
    (tmp_path / "a.jsonm").write_text(MAGIC + "[[1, 2")
    with pytest.raises(FileError, match=r"cannot read a transform from .*a\.jsonm: .*damaged or truncated"):
        read_transform(tmp_path / "a.jsonm")


class Mirror(Transform):
    """A transform of a class of its own."""

    def __call__(self, points_mm: torch.Tensor) -> torch.Tensor:
        return points_mm * points_mm.new_tensor([-1.0, 1.0, 1.0])

    def inverse(self) -> Transform:
        return self

    def displacement_on(self, grid: Grid, disp_mm: Any, like: torch.Tensor) -> torch.Tensor:
        return Affine(np.diag([-1.0, 1, 1, 1])).displacement_on(grid, disp_mm, like)


class MirrorOnGrid(Mirror):
    """The same, on a grid."""

    @property
    def fixed_grid(self) -> Grid:
        return Grid((4, 5, 6))


@pytest.mark.parametrize(("kind", "words"), [(Mirror, "Mirror"), (MirrorOnGrid, "4 x 5 x 6 of 1 x 1 x 1 mm")])
def test_info_of_a_transform_of_another_class(
    kind: Any, words: str, other: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other(read=lambda path, **_: kind())
    write_json(sheared(), tmp_path / "a.jsonm", fixed=None, moving=None)
    assert main(["info", str(tmp_path / "a.jsonm")]) == 0
    assert words in capsys.readouterr().out


class Entry:
    """An entry point of a package, as importlib.metadata gives it."""

    value = "package.module:FORMAT"

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Entry]]:
    """Entry points of packages, as if they were installed."""
    found: list[Entry] = []

    def entry_points(*, group: str) -> list[Entry]:
        return found if group == "convexadam.transform_formats" else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    formats._load_entry_points.cache_clear()
    yield found
    formats._load_entry_points.cache_clear()


def test_formats_of_packages(entries: list[Entry], tmp_path: Path) -> None:
    entries.append(Entry(JSON))
    assert [item.name for item in transform_formats()] == [*BUILTIN, JSON.name]
    write_transform(sheared(), tmp_path / "a.jsonm")
    assert isinstance(read_transform(tmp_path / "a.jsonm"), Affine)
    with pytest.raises(ConfigError, match="must be new"):
        register_format(JSON)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (ImportError("no module"), "cannot be loaded \\(ImportError: no module\\)"),
        (42, "must be a TransformFormat"),
        (changed(name="fsl"), "name of a format must be new, got 'fsl'"),
    ],
)
def test_packages_that_are_broken_are_left_out(loaded: Any, message: str, entries: list[Entry]) -> None:
    entries += [Entry(loaded), Entry(JSON)]
    with pytest.warns(UserWarning, match=rf"package\.module:FORMAT of an entry point: {message}"):
        assert [item.name for item in transform_formats()] == [*BUILTIN, JSON.name]
    transform_formats()  # and says so once


def test_the_group_has_the_name_of_the_documentation() -> None:
    assert formats.ENTRY_POINT_GROUP == "convexadam.transform_formats"


@pytest.mark.usefixtures("registered")
def test_the_table_in_markdown() -> None:
    lines = formats_markdown().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["format", "file names", "contents", "convention", "needs to read", "needs to write"]
    assert set(cells[1]) == {"---"}
    assert [row[0] for row in cells[2:]] == [f'`"{item.name}"`' for item in transform_formats()]
    assert {len(row) for row in cells} == {6}
    by_name = {row[0].strip('`"'): row[1:] for row in cells[2:]}
    assert by_name["json-matrix"] == [
        "`*.jsonm`, `*.json` (if named)", "4 x 4 numbers", JSON.convention, "nothing", "nothing"
    ]  # fmt: skip
    assert by_name["fsl"][3:] == ["`moving=`", "`moving=`"]
    assert by_name["torch"][3:] == ["nothing", "`moving=`"]
    for item in transform_formats():
        assert by_name[item.name][2] == item.convention
        assert all(f"`*{suffix}`" in by_name[item.name][0] for suffix in item.suffixes)


def test_each_ending_has_one_default() -> None:
    endings = [suffix for item in transform_formats() for suffix in item.default_suffixes]
    assert len(set(endings)) == len(endings)
