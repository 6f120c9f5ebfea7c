"""Damages files of some formats at random and reads them: ``python tests/fuzz/readers.py FOLDER SEED SECONDS NAME...``.

In a process with a limit of memory, so that a crash or a hang of a reader in C is seen: then the last line names the
format. It prints one line for each damaged file that was neither read nor refused with an error of the library, and
keeps the file in FOLDER/NAME. The same seed damages the same bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from convexadam import (
    ConvexAdamError,
    Grid,
    Image,
    RegistrationConfig,
    preset,
    read_image,
    read_transform,
    write_image,
    write_transform,
)
from convexadam.geometry import Affine, DisplacementField
from convexadam.io import read_landmark_file, read_manifest, write_landmarks
from convexadam.learn2reg import read_task

GRID = Grid((6, 5, 4), np.array([[0, -1.5, 0, 20], [2.0, 0, 0, -30], [0, 0, 1.0, 5], [0, 0, 0, 1]]))
_MEMORY_BYTES = 6 * 2**30
_SECONDS_PER_FILE = 10
_NUMBERS = [0, 1, -1, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1]

Read = Callable[[Path], Any]


def images(path: Path) -> None:
    write_image(Image(torch.arange(120.0).reshape(1, 6, 5, 4), GRID), path)


def pairs(path: Path) -> None:
    (path.parent / "a.nii").touch()
    path.write_text("name,fixed,moving\none,a.nii,a.nii\ntwo,a.nii,a.nii\n")


def task(path: Path) -> None:
    names = {"fixed": "./imagesTr/A_0001_0000.nii.gz", "moving": "./imagesTr/A_0001_0001.nii.gz"}
    text = {"name": "A", "tensorImageShape": [6, 5, 4], "modality": {"0": "CT"}, "registration_val": [names]}
    path.write_text(json.dumps(text, indent=1))


def markups(path: Path) -> None:
    point = {"label": "a", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"}
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point, point]}
    path.write_text(json.dumps({"markups": [markup]}))


def field(path: Path, **options: Any) -> None:
    values = torch.linspace(-2, 2, 360).reshape(3, 6, 5, 4)
    write_transform(DisplacementField(values, GRID), path, **options)


def transform(path: Path) -> Any:
    return read_transform(path, fixed=GRID, moving=GRID)


def series(path: Path) -> None:
    """Write the slices of a DICOM series, and one of them again at the path, which replaces it in `read_series`."""
    import SimpleITK as sitk

    folder = path.parent / "series"
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(4):
        piece = sitk.GetImageFromArray(np.full((1, 5, 6), k, np.int16))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|000d": "1.2", "0008|0018": f"1.2.3.{k + 1}"}
        for tag, value in {**tags, "0020|0032": f"0\\0\\{k}", "0020|0037": "1\\0\\0\\0\\1\\0"}.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(piece)
    path.write_bytes((folder / "1.dcm").read_bytes())


def read_series(path: Path) -> None:
    (path.parent / "series" / "1.dcm").write_bytes(path.read_bytes())
    for source in (path.parent / "series", path):
        with contextlib.suppress(ConvexAdamError):
            read_image(source)


FORMATS: dict[str, tuple[Callable[[Path], None], Read]] = {
    "image.nii": (images, read_image),
    "image.nii.gz": (images, read_image),
    "image.mha": (images, read_image),
    "image.nrrd": (images, read_image),
    "image.mgz": (lambda p: nibabel.save(nibabel.MGHImage(np.ones((6, 5, 4), np.int16), np.eye(4)), p), read_image),
    "field.nii.gz": (field, transform),
    "spm.nii": (lambda p: field(p, format="spm"), transform),
    "niftyreg.nii": (lambda p: field(p, format="niftyreg"), transform),
    "fsl.nii": (lambda p: field(p, format="fsl", moving=GRID), transform),
    "field.npz": (field, transform),
    "field.tfm": (field, transform),
    "field.h5": (field, transform),
    "field.x5": (field, transform),
    "field.pt": (lambda p: field(p, moving=GRID), transform),
    "affine.tfm": (lambda p: write_transform(Affine(), p), transform),
    "affine.mat": (lambda p: write_transform(Affine(), p), transform),
    "points.csv": (lambda p: write_landmarks(torch.rand(5, 3), p), read_landmark_file),
    "points.fcsv": (lambda p: p.write_text("# CoordinateSystem = LPS\n1,2,3,4\n2,3,4,5\n"), read_landmark_file),
    "points.mrk.json": (markups, read_landmark_file),
    "pairs.csv": (pairs, read_manifest),
    "dataset.json": (task, read_task),
    "slice.dcm": (series, read_series),
    "settings.toml": (lambda p: preset("best").save(p), RegistrationConfig.load),
}  # fmt: skip
"""Name of a file, what writes it, and what reads it."""


def damage(content: bytes, random: np.random.Generator) -> bytes:
    """Change some bytes: bits, numbers of headers, ends, copies of parts."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        at = (
            int(random.integers(0, max(1, min(len(data), 600))))
            if random.random() < 0.7
            else int(random.integers(0, len(data) or 1))
        )
        how = int(random.integers(0, 6))
        if how == 0 and data:
            data[at % len(data)] ^= 1 << int(random.integers(0, 8))
        elif how == 1:
            data[at : at + 1] = random.bytes(int(random.integers(0, 4)))
        elif how == 2:
            number = _NUMBERS[int(random.integers(0, len(_NUMBERS)))]
            width = int(random.choice([2, 4, 8]))
            order = "little" if random.random() < 0.7 else "big"
            data[at : at + width] = (number % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
        elif how == 3:
            data[at : at + 4] = np.array(random.choice([np.nan, np.inf, -1e30, 1e-30, 1e30]), "<f4").tobytes()
        elif how == 4:
            del data[at if random.random() < 0.5 else -1 - at % 64 :]
        else:
            length = int(random.integers(1, 64))
            data[at:at] = data[at : at + length]
    return bytes(data)


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Damage a file; half of the time within its gzip archive, whose checksum hides the rest otherwise."""
    if content.startswith(b"\x1f\x8b") and random.random() < 0.7:
        return gzip.compress(damage(gzip.decompress(content), random), compresslevel=1)
    return damage(content, random)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise `TimeoutError` if a file takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {_SECONDS_PER_FILE} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS_PER_FILE)
    try:
        yield
    finally:
        signal.alarm(0)


def fuzz(folder: Path, seed: int, seconds: float, name: str) -> None:
    """Damage and read files of one format until the time is over."""
    write, read = FORMATS[name]
    folder.mkdir()
    write(folder / name)
    content = (folder / name).read_bytes()
    random = np.random.default_rng([seed, *name.encode()])
    end, number = time.monotonic() + seconds, 0
    target = folder / f"damaged.{name}" if "dataset" not in name else folder / name
    while time.monotonic() < end:
        number += 1
        target.write_bytes(damaged(content, random))
        try:
            with limited():
                read(target)
        except ConvexAdamError:
            continue
        except BaseException as error:
            kept = folder / f"{number}.{name}"
            kept.write_bytes(target.read_bytes())
            where = traceback.extract_tb(error.__traceback__)[-1]
            sys.stdout.write(f"{kept}: {type(error).__name__}: {error} at {where.filename}:{where.lineno}\n")
    sys.stdout.write(f"{name}: {number} files\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    warnings.simplefilter("ignore")
    for name in sys.argv[4:]:
        sys.stdout.write(f"{name}: begins\n")
        sys.stdout.flush()
        fuzz(Path(sys.argv[1]) / name, int(sys.argv[2]), float(sys.argv[3]), name)
