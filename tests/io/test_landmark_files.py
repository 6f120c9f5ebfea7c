"""Landmarks of Slicer and tables with names: where their points are, and that the rest is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import FileError, Grid, InputError
from convexadam.io import read_landmark_file, read_landmarks, read_landmarks_mm, write_landmarks

GRID = Grid((20, 30, 40), np.array([[0, -2.0, 0, 50], [1.5, 0, 0, -30], [0, 0, 3, 7], [0, 0, 0, 1]]))
RAS = torch.tensor([[1.0, -2, 3], [4.5, 5, -6.25]], dtype=torch.float64)
FLIP = torch.tensor([-1.0, -1, 1], dtype=torch.float64)


def fcsv(path: Path, system: str | None, points: torch.Tensor) -> Path:
    lines = ["# Markups fiducial file version = 4.11"]
    lines += [f"# CoordinateSystem = {system}"] if system is not None else []
    lines += ["# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]
    lines += [f"n_{n},{p[0]},{p[1]},{p[2]},0,0,0,1,1,1,0,Carina {n},,vtk1" for n, p in enumerate(points.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def markups(path: Path, system: str, points: torch.Tensor, **more: Any) -> Path:
    control = [
        {"id": str(n), "label": f"F-{n}", "position": p, "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
        for n, p in enumerate(points.tolist())
    ]
    control.append({"id": "9", "label": "planned", "positionStatus": "undefined"})
    markup = {"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": control}
    path.write_text(json.dumps({"@schema": "https://raw", "markups": [markup | more]}))
    return path


@pytest.mark.parametrize(("system", "flip"), [("RAS", 0), ("0", 0), (None, 0), ("LPS", 1), ("1", 1)])
def test_fcsv(system: str | None, flip: bool, tmp_path: Path) -> None:
    path = fcsv(tmp_path / "a.fcsv", system, RAS * FLIP if flip else RAS)
    assert torch.equal(read_landmarks_mm(path, GRID), RAS)
    file = read_landmark_file(path)
    write_landmarks(file.points + 1, tmp_path / "b.fcsv", like=file)
    again = read_landmark_file(tmp_path / "b.fcsv")
    assert torch.equal(again.points, file.points + 1)
    assert again.space == file.space
    assert "Carina 1" in (tmp_path / "b.fcsv").read_text()


@pytest.mark.parametrize(("system", "flip"), [("RAS", 0), ("LPS", 1)])
def test_markups(system: str, flip: bool, tmp_path: Path) -> None:
    path = markups(tmp_path / "a.mrk.json", system, RAS * FLIP if flip else RAS)
    assert torch.equal(read_landmarks_mm(path, GRID), RAS)
    file = read_landmark_file(path)
    write_landmarks(file.points * 2, tmp_path / "b.mrk.json", like=file)
    found = json.loads((tmp_path / "b.mrk.json").read_text())["markups"][0]
    assert [p["label"] for p in found["controlPoints"]] == ["F-0", "F-1", "planned"]
    assert found["controlPoints"][1]["position"] == (file.points[1] * 2).tolist()
    assert found["coordinateSystem"] == system


def test_what_cannot_be_placed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="CoordinateSystem must be RAS or LPS, got 'ijk'"):
        read_landmarks_mm(fcsv(tmp_path / "a.fcsv", "IJK", RAS), GRID)
    for more in ({"coordinateSystem": "XYZ"}, {"coordinateUnits": "m"}):
        with pytest.raises(FileError, match="must be in mm RAS or LPS"):
            read_landmarks_mm(markups(tmp_path / "a.mrk.json", "RAS", RAS, **more), GRID)
    with pytest.raises(FileError, match="at least one landmark"):
        read_landmarks_mm(markups(tmp_path / "a.mrk.json", "RAS", RAS, controlPoints=[]), GRID)
    bad = markups(tmp_path / "a.mrk.json", "RAS", RAS, controlPoints=[{"position": [1, 2, None]}])
    with pytest.raises(FileError, match="three finite numbers"):
        read_landmarks_mm(bad, GRID)
    with pytest.raises(FileError, match="in mm of Slicer"):
        read_landmarks(fcsv(tmp_path / "a.fcsv", "RAS", RAS))


TABLES = {
    "names last": "x,y,z,name\n1,2,3,apex\n4,5,6,base\n",
    "names first": "apex,1,2,3\nbase,4,5,6\n",
    "ANTs": "x,y,z,t,label\n1,2,3,0,7\n4,5,6,0,8\n",
    "other order": "id,k,j,i\n9,3,2,1\n8,6,5,4\n",
    "quoted": 'i,j,k,name\n1,2,3,"apex, left"\n4,5,6,base\n',
    "plain": "1,2,3\n4,5,6\n",
    "with units": "X (mm),Y (mm),Z (mm)\n1,2,3\n4,5,6\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_tables_keep_header_and_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    points = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
    assert torch.equal(read_landmarks(tmp_path / "a.csv"), points)
    assert torch.equal(read_landmarks_mm(tmp_path / "a.csv", GRID), GRID.index_to_world(points))
    file = read_landmark_file(tmp_path / "a.csv")
    write_landmarks(points + 10, tmp_path / "b.csv", like=file)
    written = (tmp_path / "b.csv").read_text()
    for n in range(1, 7):
        written = written.replace(f"{n + 10}.0", str(n))
    assert written == text
    with pytest.raises(InputError, match="must be 2"):
        write_landmarks(points[:1], tmp_path / "b.csv", like=file)


@pytest.mark.parametrize(
    "text", ["1,2,3,4\n", "a,b,c,d\n1,2,3,4\n", "x,y,z\n1,2\n", "1,2,3\n1,2,3,apex\n", "1_0,2,3\n"]
)
def test_rows_that_could_be_anything_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FileError, match="must be three numbers"):
        read_landmarks(tmp_path / "a.csv")


ELASTIX = '// comment\n(Transform "EulerTransform")\n(NumberOfParameters 6)\n(TransformParameters 0 0 0 1 2 3)\n'
FOREIGN = {
    "TransformParameters.0.txt": (ELASTIX, "parameters of elastix; .*transformix -def all"),
    "par.txt": ('(FixedImageDimension 3)\n(Transform "BSplineTransform")\n', "elastix"),
    "a.lta": ("# transform file\ntype      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\nmean\n", "lta_convert"),
    "a.xfm": ("MNI Transform File\n%VIO\nTransform_Type = Linear;\n", "lta_convert --inmni"),
    "points.txt": ("point\n2\n1 2 3\n4 5 6\n", "points of elastix"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_refused_by_name(name: str, tmp_path: Path) -> None:
    from convexadam import read_image, read_transform

    text, message = FOREIGN[name]
    (tmp_path / name).write_text(text)
    for read in (read_transform, read_image):
        with pytest.raises(FileError, match=message):
            read(tmp_path / name)


def test_landmarks_are_no_transform(tmp_path: Path) -> None:
    from convexadam import read_transform

    for path in (fcsv(tmp_path / "a.fcsv", "RAS", RAS), markups(tmp_path / "a.mrk.json", "RAS", RAS)):
        with pytest.raises(FileError, match="read_landmarks_mm"):
            read_transform(path)
