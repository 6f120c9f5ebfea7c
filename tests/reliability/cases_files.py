"""Files of images, transforms and landmarks."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from input_case import Case

from convexadam import Grid, read_image, read_transform, write_image, write_transform
from convexadam.geometry import DisplacementField, Image
from convexadam.io import read_landmark_file, read_landmarks_mm, use_header, write_landmarks

SHAPE = (6, 5, 4)
ONE = np.array([[0, -2.0, 0, 50], [1.5, 0, 0, -30], [0, 0, 3, 7], [0, 0, 0, 1]])
OTHER = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -9], [0, 0, 3, 7], [0, 0, 0, 1]])
VALUES = np.arange(120, dtype=np.int16).reshape(SHAPE)
POINT = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)


def header(sform: np.ndarray, sform_code: int, qform: np.ndarray, qform_code: int) -> Any:
    made: Any = nibabel.Nifti1Header()
    made.set_data_shape(SHAPE)
    made.set_zooms(np.linalg.norm(qform[:3, :3], axis=0))
    made.set_sform(sform, 1)
    made.set_qform(qform, 1)
    made["sform_code"], made["qform_code"] = sform_code, qform_code
    return made


def nifti(path: Path, values: np.ndarray = VALUES, **fields: Any) -> Path:
    image: Any = nibabel.Nifti1Image(values, None, header(ONE, 1, ONE, 1))
    image.set_data_dtype(values.dtype)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def assert_image(path: Path, affine: np.ndarray = ONE) -> None:
    found = read_image(path)
    np.testing.assert_array_equal(found.numpy(), VALUES)
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-5)


def forms(sform_code: int, qform_code: int, truth: np.ndarray, form: Any = None) -> Callable[[Path], None]:
    """Two placements, and the one that is right: by ITK's rule, or by choice."""

    def run(folder: Path) -> None:
        made = nibabel.Nifti1Image(VALUES, None, header(ONE, sform_code, OTHER, qform_code))
        nibabel.save(made, folder / "a.nii")
        with use_header(form):
            assert_image(folder / "a.nii", truth)

    return run


def as_is(name: str, content: str | bytes, read: Callable[[Path], Any] = read_image) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(path)

    return run


def claim(folder: Path) -> None:
    raw = bytearray(nifti(folder / "a.nii").read_bytes())
    raw[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    (folder / "b.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    read_image(folder / "b.nii.gz")


def bomb(folder: Path) -> None:
    (folder / "b.nii.gz").write_bytes(gzip.compress(nifti(folder / "a.nii").read_bytes() + bytes(2**22)))
    read_image(folder / "b.nii.gz")


def truncated(folder: Path) -> None:
    (folder / "b.nii").write_bytes(nifti(folder / "a.nii").read_bytes()[:-9])
    read_image(folder / "b.nii")


def packed(name: str, other: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        nifti(folder / other).rename(folder / name)
        assert_image(folder / name)

    return run


def quaternion(folder: Path) -> None:
    made = header(ONE, 0, ONE, 1)
    turn = np.array([float(made[name]) for name in ("quatern_b", "quatern_c", "quatern_d")])
    longer = turn * np.sqrt(1 + 3e-6) / np.linalg.norm(turn)
    for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), longer, strict=True):
        made[name] = value
    nibabel.save(nibabel.Nifti1Image(VALUES, None, made), folder / "a.nii")
    b, c, d = longer / np.linalg.norm(longer)  # a half turn: its first number is 0
    turned = np.array([[2 * b * b - 1, 2 * b * c, 2 * b * d], [2 * b * c, 2 * c * c - 1, 2 * c * d],
                       [2 * b * d, 2 * c * d, 2 * d * d - 1]]) * (1, 1, float(made["pixdim"][0]))  # fmt: skip
    np.testing.assert_allclose(read_image(folder / "a.nii").grid.affine[:3, :3] / (1.5, 2, 3), turned, atol=1e-5)


def sheared(folder: Path) -> None:
    tilted = ONE.copy()
    tilted[:3, 0] += 3e-4 * ONE[:3, 1]
    nibabel.save(nibabel.Nifti1Image(VALUES, None, header(tilted, 1, ONE, 1)), folder / "a.nii")
    assert_image(folder / "a.nii")


def mgh(folder: Path) -> None:
    nibabel.save(nibabel.MGHImage(VALUES.astype(np.int32), ONE), folder / "a.mgz")
    assert_image(folder / "a.mgz")


def nrrd(fields: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nendian: little\n{fields}\n"
        (folder / "a.nrrd").write_bytes(head.encode() + VALUES.T.astype("<i2").tobytes())
        np.testing.assert_allclose(read_image(folder / "a.nrrd").grid.spacing_mm, (0.002, 0.003, 0.004), rtol=1e-9)

    return run


def other_folder(folder: Path) -> None:
    fields = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = ../a.raw\n"
    (folder / "a.mhd").write_text(fields)
    read_image(folder / "a.mhd")


def code_kept(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(VALUES, None, header(ONE, 4, ONE, 1)), folder / "a.nii")
    write_image(read_image(folder / "a.nii"), folder / "b.nii")
    written: Any = nibabel.load(folder / "b.nii")
    assert int(written.header["sform_code"]) == 4


def large_labels(folder: Path) -> None:
    values = np.full(SHAPE, 3_000_000_001, np.int64)
    write_image(Image.from_array(values), folder / "a.nii")
    written: Any = nibabel.load(folder / "a.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), values)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.nii")
    read_image(folder / "a.nii")


def field(name: str, p1: float = 0.0, *, relative: bool = False, intent: int = 1007) -> Callable[[Path], None]:
    """A field on ``ONE`` that moves all points by (1, 2, 3) mm, RAS."""

    def run(folder: Path) -> None:
        indices = np.moveaxis(np.indices(SHAPE), 0, -1)
        vectors = np.broadcast_to([1.0, 2, 3], (*SHAPE, 3))
        if not relative:
            vectors = vectors + indices @ ONE[:3, :3].T + ONE[:3, 3]
        values = vectors[:, :, :, None].astype(np.float32)
        image: Any = nibabel.Nifti1Image(values, None, header(ONE, 1, ONE, 1))
        image.header["intent_code"], image.header["intent_name"], image.header["intent_p1"] = intent, name, p1
        nibabel.save(image, folder / "field.nii")
        found = read_transform(folder / "field.nii").warp_points(torch.tensor(ONE[None, :3, 3]), space="mm")
        np.testing.assert_allclose(found.numpy(), ONE[None, :3, 3] + [1, 2, 3], atol=1e-4)

    return run


def itk_field(folder: Path) -> None:
    moved = DisplacementField(
        torch.tensor([1.0, 2, 3]).reshape(3, 1, 1, 1).expand(3, *SHAPE).contiguous(), Grid(SHAPE, ONE)
    )
    write_transform(moved, folder / "field.nii.gz")
    torch.testing.assert_close(read_transform(folder / "field.nii.gz")(POINT), POINT + POINT, atol=1e-5, rtol=0)


def points(name: str, content: str) -> Callable[[Path], None]:
    """One point, at (1, 2, 3) mm RAS."""

    def run(folder: Path) -> None:
        (folder / name).write_text(content)
        assert torch.equal(read_landmarks_mm(folder / name, Grid(SHAPE, ONE)), POINT)

    return run


def names_kept(folder: Path) -> None:
    (folder / "a.csv").write_text("name,x,y,z\napex,1,2,3\n")
    file = read_landmark_file(folder / "a.csv")
    write_landmarks(file.points, folder / "b.csv", like=file)
    assert (folder / "b.csv").read_text() == "name,x,y,z\napex,1.0,2.0,3.0\n"


ELASTIX = '(Transform "BSplineTransform")\n(NumberOfParameters 6)\n'
MARKUP = {"coordinateSystem": "LPS", "controlPoints": [{"label": "apex", "position": [-1.0, -2.0, 3.0]}]}
FSL = as_is("a.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", read_transform)
SPATIAL = 'space: LPS\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace units: "um" "um" "um"\n'


def row(kind: str, given: str, outcome: Any, says: str, run: Callable[[Path], Any], *needs: str) -> Case:
    return Case(kind=kind, given=given, outcome=outcome, says=says, run=run, needs=needs)


IMAGES, TRANSFORMS, POINTS = "Images", "Transforms of others", "Landmarks"
CASES = [
    row(IMAGES, "sform and qform that agree", "result", "their placement", lambda f: assert_image(nifti(f / "a.nii"))),
    row(IMAGES, "sform (code 1) and qform that disagree", "warning", "the sform was taken, as by ITK",
        forms(1, 1, ONE)),
    row(IMAGES, "sform (code 2 to 4) and qform that disagree", "warning", "the qform was taken, as by ITK",
        forms(4, 1, OTHER)),
    row(IMAGES, "the same with `--header sform`", "warning", "the sform was taken, unlike ITK",
        forms(4, 1, ONE, "sform")),
    row(IMAGES, "no code for sform and qform", "warning", "does not say where its voxels are",
        forms(0, 0, np.diag([-1.5, -2.0, 3.0, 1.0]))),
    row(IMAGES, "sform 3e-4 off right angles, and a good qform", "result", "the placement of the qform", sheared),
    row(IMAGES, "quaternion 3e-6 too long", "result", "the unit quaternion", quaternion),
    row(IMAGES, "code of the sform (MNI, for example)", "result", "kept in files that are written", code_kept),
    row(IMAGES, "`.nii.gz` that is not packed", "result", "the image", packed("a.nii.gz", "b.nii")),
    row(IMAGES, "`.nii` that is packed", "result", "the image", packed("a.nii", "b.nii.gz")),
    row(IMAGES, "MGH and MGZ", "result", "the image, read by nibabel", mgh),
    row(IMAGES, "NRRD in micrometres", "result", "the size in mm", nrrd(SPATIAL), "SimpleITK"),
    row(IMAGES, "NRRD with a unit of time", "error", "its units must be of length", nrrd(SPATIAL.replace("um", "s")),
        "SimpleITK"),
    row(IMAGES, "series of volumes (4-D)", "error", "got a series of 7 volumes",
        lambda f: read_image(nifti(f / "a.nii", np.zeros((*SHAPE, 7), np.int16)))),
    row(IMAGES, "vector field", "error", "read it with read_transform",
        lambda f: read_image(nifti(f / "a.nii", np.zeros((*SHAPE, 1, 3), np.float32), intent_code=1007))),
    row(IMAGES, "complex numbers", "error", "must be real numbers",
        lambda f: read_image(nifti(f / "a.nii", VALUES.astype(np.complex64)))),
    row(IMAGES, "truncated file", "error", "damaged or truncated", truncated),
    row(IMAGES, "header that claims more voxels than the file can hold", "error", "its header must claim at most",
        claim),
    row(IMAGES, "gzip bomb", "error", "as its header says, got more", bomb),
    row(IMAGES, "header that names voxels in another folder", "error", "must be in its folder",
        other_folder, "SimpleITK"),
    row(IMAGES, "text", "error", "must be NIfTI", as_is("a.nii", "no image")),
    row(IMAGES, "empty file", "error", "got an empty file", as_is("a.nii", "")),
    row(IMAGES, "pipe", "error", "got a pipe or device", pipe),
    row(IMAGES, "labels beyond 32 bits, written", "warning", "written as int64", large_labels),
    row(TRANSFORMS, "field of ITK and ANTs", "result", "displacements in mm LPS", itk_field),
    row(TRANSFORMS, "deformation of SPM (`y_*.nii`)", "result", "positions in mm RAS+", field("Mapping")),
    row(TRANSFORMS, "NiftyReg: positions", "result", "positions in mm RAS+", field("NREG_TRANS")),
    row(TRANSFORMS, "NiftyReg: displacements", "result", "displacements in mm RAS+",
        field("NREG_TRANS", 1, relative=True)),
    row(TRANSFORMS, "NiftyReg: control points", "error", "holds a grid of cubic control points",
        field("NREG_TRANS", 2)),
    row(TRANSFORMS, "NiftyReg: velocities", "error", "reg_transform", field("NREG_TRANS", 3)),
    row(TRANSFORMS, "positions without a name", "error", "format='spm'", field("")),
    row(TRANSFORMS, "field of shape `(i, j, k, 1, 3)` without intent", "error", "intent 0", field("", intent=0)),
    row(TRANSFORMS, "parameter file of elastix", "error", "transformix -def all",
        as_is("a.txt", ELASTIX, read_transform)),
    row(TRANSFORMS, "LTA of FreeSurfer", "error", "lta_convert",
        as_is("a.lta", "type      = 1\nnxforms   = 1\n", read_transform)),
    row(TRANSFORMS, "4 x 4 numbers in text", "error", "its format must be named", FSL),
    row(POINTS, "CSV of three numbers", "result", "voxel indices of their image",
        points("a.csv", ",".join(repr(v) for v in np.linalg.solve(ONE, [1, 2, 3, 1])[:3].tolist()) + "\n")),
    row(POINTS, "`.fcsv` of Slicer", "result", "mm, RAS or LPS as the file says",
        points("a.fcsv", "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,-1,-2,3,apex\n")),
    row(POINTS, "`.mrk.json` of Slicer", "result", "mm, RAS or LPS as the file says",
        points("a.mrk.json", json.dumps({"markups": [MARKUP]}))),
    row(POINTS, "CSV with a header and names", "result", "both kept in files that are written", names_kept),
    row(POINTS, "four numbers in a row without a header", "error", "must be three numbers",
        as_is("a.csv", "1,2,3,4\n", read_landmark_file)),
    row(POINTS, "NaN", "error", "must be three numbers", as_is("a.csv", "1,2,nan\n", read_landmark_file)),
]  # fmt: skip
