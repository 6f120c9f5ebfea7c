"""Lists of points in text files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convexadam.errors import FileError, InputError
from convexadam.io import read_landmarks, write_landmarks

POINTS = [[1.0, 2.5, -3.0], [0.1, 1e-7, 12345.678901234567]]


def test_round_trip_keeps_every_digit(tmp_path: Path) -> None:
    points = torch.tensor(POINTS, dtype=torch.float64)
    write_landmarks(points, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "1.0,2.5,-3.0\n0.1,1e-07,12345.678901234567\n"
    found = read_landmarks(tmp_path / "a.csv")
    assert found.dtype == torch.float64
    assert torch.equal(found, points)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5,-3\n4,5,6",
        "\ufeff1,2.5,-3\n4,5,6",
        "i,j,k\n1,2.5,-3\n4,5,6\n",
        "\ufeffx, y, z\r\n1, 2.5, -3\r\n\r\n4, 5, 6\r\n",
        "# voxel indices\n1,2.5,-3\n4,5,6\n\n",
    ],
)
def test_headers_and_blank_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read_landmarks(str(tmp_path / "a.csv")).tolist() == [[1, 2.5, -3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1,2,3\n4,5\n", 2),
        ("1,2,3,4\n", 1),
        ("i,j,k\n1,2,3\n4,five,6\n", 3),
        ("1,2,x\n", 1),  # no header: two cells are numbers
        ("1,2,3\n\n4 5 6\n", 3),
        ("1,2,3\ni,j,k\n", 2),
        ("1,2,nan\n", 1),
        ("1,2,3\n1,inf,3\n", 2),
        ("1;2;3\n4;5;6\n", 2),  # semicolons: the first line is taken for a header
    ],
)
def test_a_wrong_line_is_named(text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FileError, match=rf"a\.csv: line {line} must be three numbers"):
        read_landmarks(tmp_path / "a.csv")


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text("i,j,k\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 30)
    (tmp_path / "folder.csv").mkdir()
    for name in ("header", "empty", "binary", "folder", "missing"):
        with pytest.raises(FileError, match=rf"{name}\.csv"):
            read_landmarks(tmp_path / f"{name}.csv")


def test_refuses_to_write_nonsense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN"):
        write_landmarks(torch.tensor([[1.0, 2.0, torch.nan]]), tmp_path / "a.csv")
    with pytest.raises(FileError, match="not a folder"):
        write_landmarks(torch.zeros(2, 3), tmp_path / "missing" / "a.csv")
    assert list(tmp_path.iterdir()) == []
