"""Transforms to files and back, how formats are recognised, and what is refused."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from foreign import GRIDS, MOVING, SHAPE, anatomy, sheared, some_points, voxel_points, waves

from convexadam.errors import ConfigError, FileError, GeometryError, InputError, MissingExtraError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Transform, compose
from convexadam.io import read_transform, write_transform

GRID = GRIDS["oblique PIR"]
AFFINE, FIELD = sheared(), waves(GRID)
CHAIN = compose(AFFINE, FIELD, AFFINE.inverse())

# What goes in, the file, the format to be named (None where content says it), and what comes out.
FILES: list[tuple[Transform, str, str | None, type[Transform]]] = [
    (AFFINE, "a.h5", None, Affine),
    (AFFINE, "a.tfm", None, Affine),
    (AFFINE, "a.txt", None, Affine),
    (AFFINE, "a.mat", None, Affine),
    (AFFINE, "a.x5", None, Affine),
    (AFFINE, "flirt.mat", "fsl", Affine),
    (FIELD, "a.h5", None, DisplacementField),
    (CHAIN, "a.h5", None, Composite),
    (CHAIN, "a.tfm", None, Composite),
    (CHAIN, "a.nii.gz", None, DisplacementField),
    (CHAIN, "a.nii", None, DisplacementField),
    (CHAIN, "a.nii.gz", "nifti", DisplacementField),
    (CHAIN, "a.pt", None, DisplacementField),
    (CHAIN, "a.x5", None, DisplacementField),
    (CHAIN, "a.nii.gz", "learn2reg", DisplacementField),
    (CHAIN, "a.nii.gz", "fsl", DisplacementField),
]
files = pytest.mark.parametrize(
    ("transform", "name", "named", "kind"), FILES, ids=[f"{type(t).__name__}-{n}-{f}" for t, n, f, _ in FILES]
)


def needs(name: str) -> None:
    if name.endswith((".h5", ".tfm", ".txt")) or name == "a.mat":
        pytest.importorskip("SimpleITK")
    if name.endswith(".x5"):
        pytest.importorskip("nitransforms")


@files
def test_round_trip(transform: Transform, name: str, named: Any, kind: type[Transform], tmp_path: Path) -> None:
    """float32 of positions within 100 mm is right to 4e-6 mm; the voxel centres need no interpolation."""
    needs(name)
    write_transform(transform, tmp_path / name, format=named, fixed=GRID, moving=MOVING)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    needs_name = named in ("learn2reg", "fsl")
    found = read_transform(str(tmp_path / name), format=named if needs_name else None, fixed=GRID, moving=MOVING)
    assert type(found) is kind
    _, points = voxel_points(GRID)
    torch.testing.assert_close(found(points), transform(points), atol=3e-5, rtol=0)
    assert float((transform(points) - points).norm(dim=1).min()) > 0.1
    if kind is not DisplacementField:  # nothing was resampled
        points = some_points(GRID)
        torch.testing.assert_close(found(points), transform(points), atol=1e-5, rtol=0)


@files
def test_the_name_is_not_believed(
    transform: Transform, name: str, named: Any, kind: type[Transform], tmp_path: Path
) -> None:
    needs(name)
    write_transform(transform, tmp_path / name, format=named, fixed=GRID, moving=MOVING)
    other = "b.npz" if ".nii" in name else "b.nii.gz"
    (tmp_path / name).rename(tmp_path / other)
    if ".nii" in name:
        with pytest.raises(FileError, match="name of a NIfTI file must end in"):
            read_transform(tmp_path / other, fixed=GRID, moving=MOVING)
    elif named is None and (transform is AFFINE or not name.endswith((".tfm", ".txt", ".mat"))) and name != "a.mat":
        # SimpleITK goes by the names of its text and MATLAB files itself; a matrix as text is read without it
        assert type(read_transform(tmp_path / other, fixed=GRID, moving=MOVING)) is kind
    else:
        with pytest.raises(FileError, match=r"b\.nii\.gz"):
            read_transform(tmp_path / other, fixed=GRID, moving=MOVING)


@files
def test_damaged_files_are_named(
    transform: Transform, name: str, named: Any, kind: type[Transform], tmp_path: Path
) -> None:
    needs(name)
    write_transform(transform, tmp_path / name, format=named, fixed=GRID, moving=MOVING)
    whole = (tmp_path / name).read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - len(whole) // 10, len(whole) - 2):
        (tmp_path / name).write_bytes(whole[:length])
        for asked in (named, None):
            with pytest.raises(FileError, match=name.replace(".", r"\.")):
                read_transform(tmp_path / name, format=asked, fixed=GRID, moving=MOVING)


@files
def test_nothing_half_written(
    transform: Transform, name: str, named: Any, kind: type[Transform], tmp_path: Path
) -> None:
    needs(name)
    with pytest.raises(FileError, match="missing"):
        write_transform(transform, tmp_path / "missing" / name, format=named, fixed=GRID, moving=MOVING)
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match="folder"):
        write_transform(transform, tmp_path / name, format=named, fixed=GRID, moving=MOVING)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("half", [True, False])
def test_archives_of_learn2reg_are_told_apart(half: bool, tmp_path: Path) -> None:
    constant = torch.tensor([2.0, -1.5, 0.25]).reshape(3, 1, 1, 1)
    field = DisplacementField.from_voxels(constant.expand(3, *SHAPE).clone(), GRID)
    write_transform(field, tmp_path / "a.npz", format="learn2reg-2021" if half else None)
    found = read_transform(tmp_path / "a.npz", fixed=anatomy(GRID))
    torch.testing.assert_close(
        found.to_displacement_field(GRID).to_voxels(), field.to_voxels(), atol=2e-3, rtol=0
    )  # float16


MAY_BE = (
    r"may be an image of 3 channels or a .* Learn2Reg or VoxelMorph .* or a .* FSL .*; "
    "pass format='learn2reg' with fixed=, or pass format='fsl' with moving="
)


@pytest.mark.parametrize(
    ("shape", "intent", "message"),
    [
        (
            (*SHAPE, 3),
            0,
            MAY_BE,
        ),
        ((*SHAPE, 3), 1007, "intent 1007, which may be"),
        ((*SHAPE, 1, 3), 0, "intent 0, which does not tell the frame"),
        ((*SHAPE, 1, 3), 2006, None),
        ((*SHAPE, 1, 2), 1007, "must be of a known format"),
        (SHAPE, 0, "with read_image"),
    ],
)
def test_fields_without_a_convention_are_refused(
    shape: tuple[int, ...], intent: int, message: str | None, tmp_path: Path
) -> None:
    nifti: Any = nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4))
    nifti.header["intent_code"] = intent
    nibabel.save(nifti, tmp_path / "field.nii")
    with pytest.raises(FileError, match=rf"field\.nii.*{message or 'intent 2006'}"):
        read_transform(tmp_path / "field.nii", fixed=GRID, moving=MOVING)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "matrix.txt", np.eye(4))
    with pytest.raises(FileError, match=r"frame and direction; pass format='fsl' with fixed= and moving=, or wrap"):
        read_transform(tmp_path / "matrix.txt")
    (tmp_path / "note.txt").write_text("hello\n")
    with pytest.raises(FileError, match=r"known format \(itk, nifti, .*\), got a file that begins with b'hello"):
        read_transform(tmp_path / "note.txt")
    with gzip.open(tmp_path / "note.nii.gz", "wb") as file:
        file.write(b"hello")
    with pytest.raises(FileError, match=r"known format \(itk, nifti, .*\), got a file that begins with b'hello"):
        read_transform(tmp_path / "note.nii.gz")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "net.pt")
    with pytest.raises(FileError, match=r"got another file of torch\.save"):
        read_transform(tmp_path / "net.pt")
    np.savez(tmp_path / "two.npz", np.zeros(3), np.zeros(3))
    with pytest.raises(FileError, match="exactly one array"):
        read_transform(tmp_path / "two.npz", fixed=GRID)
    with pytest.raises(FileError, match="no file"):
        read_transform(tmp_path / "absent.h5")


def test_hdf5_of_others_is_refused(tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["values"] = np.zeros(3)
    with pytest.raises(FileError, match="got HDF5 without a transform"):
        read_transform(tmp_path / "a.h5")


def test_nothing_that_a_file_of_torch_holds_is_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"format": Harmful()}, tmp_path / "a.pt")
    with pytest.raises(FileError, match=r"a\.pt"):
        read_transform(tmp_path / "a.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("name", "named", "lacks"), [
    ("a.nii.gz", None, "fixed="), ("a.nii.gz", "nifti", "fixed="), ("a.npz", None, "fixed="), ("a.pt", None, "moving="),
    ("a.mat", "fsl", "moving="),
])  # fmt: skip
def test_missing_grids_are_named(name: str, named: Any, lacks: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=lacks):
        write_transform(AFFINE, tmp_path / name, format=named)
    with pytest.raises(ConfigError, match="fixed="):
        write_transform(AFFINE, tmp_path / name, format=named, moving=MOVING)
    assert list(tmp_path.iterdir()) == []


def test_missing_grids_are_named_on_reading(tmp_path: Path) -> None:
    write_transform(FIELD, tmp_path / "a.npz")
    with pytest.raises(ConfigError, match="pass fixed="):
        read_transform(tmp_path / "a.npz")
    write_transform(FIELD, tmp_path / "a.nii.gz", format="fsl", moving=MOVING)
    with pytest.raises(ConfigError, match="pass moving="):
        read_transform(tmp_path / "a.nii.gz")
    write_transform(AFFINE, tmp_path / "a.mat", format="fsl", fixed=GRID, moving=MOVING)
    with pytest.raises(ConfigError, match="pass fixed="):
        read_transform(tmp_path / "a.mat", format="fsl", moving=MOVING)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"must end in one of \.nii\.gz, .*got 'a\.field'"):
        write_transform(FIELD, tmp_path / "a.field")
    with pytest.raises(ConfigError, match=r"must be one of itk, .*, got 'ants'"):
        write_transform(FIELD, tmp_path / "a.h5", format="ants")
    with pytest.raises(ConfigError, match=r"must be one of itk, .*, got 'ants'"):
        read_transform(Path(__file__), format="ants")
    with pytest.raises(InputError, match="got ndarray"):
        write_transform(np.eye(4), tmp_path / "a.h5")  # type: ignore[arg-type]
    with pytest.raises(FileError, match=r"moving: there is no file moving\.nii"):
        write_transform(FIELD, tmp_path / "a.pt", moving="moving.nii")
    with pytest.raises(FileError, match="call it"):
        write_transform(FIELD, tmp_path / "a.mat")
    with pytest.raises(FileError, match="must be an Affine"):
        write_transform(FIELD, tmp_path / "a.mat", format="fsl", moving=MOVING)
    slanted = np.diag([1.0, 2, 3, 1])
    slanted[0, 1] = 0.4
    field = waves(Grid(SHAPE, slanted))
    for name in ("a.h5", "a.nii.gz"):
        with pytest.raises(GeometryError, match="right angles"):
            write_transform(field, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    write_transform(field, tmp_path / "a.nii.gz", format="nifti")  # NIfTI itself holds such grids
    assert read_transform(tmp_path / "a.nii.gz").fixed_grid.is_close(field.grid)  # type: ignore[union-attr]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("SimpleITK")
    pytest.importorskip("nitransforms")
    write_transform(AFFINE, tmp_path / "a.h5")
    write_transform(AFFINE, tmp_path / "a.x5")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    monkeypatch.setitem(sys.modules, "nitransforms.io.x5", None)
    for name, extra in (("a.h5", r"\[itk\]"), ("a.x5", r"\[nitransforms\]")):
        with pytest.raises(MissingExtraError, match=extra):
            read_transform(tmp_path / name)
        with pytest.raises(MissingExtraError, match=extra):
            write_transform(AFFINE, tmp_path / name)


def test_a_failure_of_itk_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sitk = pytest.importorskip("SimpleITK")

    def fails(*_: Any) -> None:
        raise RuntimeError("ITK ERROR: no space left")

    monkeypatch.setattr(sitk, "WriteTransform", fails)
    with pytest.raises(FileError, match="no space left"):
        write_transform(AFFINE, tmp_path / "a.mat")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"TransformGroup", b"X5"])
def test_hdf5_with_half_of_the_marks_of_x5_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + content)
    with pytest.raises(FileError, match="HDF5 without a transform"):
        read_transform(tmp_path / "a.h5")


def test_an_old_file_is_replaced_or_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_transform(FIELD, tmp_path / "a.pt", moving=MOVING)
    old = (tmp_path / "a.pt").read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(FileError, match="No space left"):
        write_transform(CHAIN, tmp_path / "a.pt", moving=MOVING, fixed=GRID)
    assert (tmp_path / "a.pt").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1
