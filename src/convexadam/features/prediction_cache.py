"""Predictions of networks on disk, so that no image is predicted twice."""

from __future__ import annotations

import functools
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from convexadam._atomic import atomic_path
from convexadam.errors import FileError

_CHUNK_BYTES = 2**22

Stamp: TypeAlias = tuple[str, int, int]
"""Path, size and time of the last change of a file: what tells it from one that took its place."""


def stamp(path: Path) -> Stamp:
    """Say which state a file is in.

    Raises
    ------
    FileError
        If it cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    return str(path), found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=16)
def content(files: tuple[Stamp, ...]) -> str:
    """Hash of what files hold, whatever they are called and wherever they lie."""
    digest = hashlib.blake2b(digest_size=20)
    for path, size, _ in files:
        digest.update(str(size).encode())
        try:
            with Path(path).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def key_of(array: np.ndarray, told: Iterable[object]) -> str:
    """Hash of an array and of all else that a prediction depends on."""
    digest = hashlib.blake2b(repr((array.shape, array.dtype.str, *told)).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def remembered(folder: str | None, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what was made for a key before, or make it and keep it in the folder; ``None`` keeps nothing.

    A file that is damaged is made anew. Files appear whole or not at all, so that several runs may share a folder.

    Raises
    ------
    FileError
        If the folder cannot be made, or a file cannot be written to it.
    """
    if folder is None:
        return make()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot keep predictions in {folder}: {error.strerror or error}") from error
    path = Path(folder) / f"{key}.npz"
    found = _read(path)
    if found is None:
        found = make()
        write = np.savez if found.dtype.kind == "f" else np.savez_compressed  # probabilities hardly get smaller
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write(file, prediction=found)
    return found


def _read(path: Path) -> np.ndarray | None:
    """Return the prediction that a file holds; none where there is no file or a damaged one (zip files know)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive["prediction"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
