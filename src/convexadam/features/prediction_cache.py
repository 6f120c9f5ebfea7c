"""Cache of network predictions on disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from convexadam._atomic import atomic_path
from convexadam._claims import check_arrays
from convexadam.errors import FileError

_CHUNK_BYTES = 2**22

Stamp: TypeAlias = tuple[str, int, int]
"""Path, size in bytes and modification time in ns of a file, which change when it is replaced."""


def stat_file(path: Path) -> Stamp:
    """Return the path, size and modification time of a file.

    Raises
    ------
    FileError
        If the file cannot be accessed.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    return str(path), status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=16)
def hash_files(files: tuple[Stamp, ...]) -> str:
    """Hash the contents of files; their paths do not matter."""
    digest = hashlib.blake2b(digest_size=20)
    for path, size, _ in files:
        digest.update(str(size).encode())
        try:
            with Path(path).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    return digest.hexdigest()


def hash_input(array: np.ndarray, settings: Iterable[object]) -> str:
    """Hash an array and all settings that a prediction depends on."""
    digest = hashlib.blake2b(repr((array.shape, array.dtype.str, *settings)).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_or_predict(folder: str | None, key: str, predict: Callable[[], np.ndarray]) -> np.ndarray:
    """Load the prediction of a key from a folder, or predict and save it there; ``None`` does not save.

    A damaged file is replaced. Files are written atomically, so that several processes may share a folder.

    Raises
    ------
    FileError
        If the folder cannot be created or written to.
    """
    if folder is None:
        return predict()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot save predictions in {folder}: {error.strerror or error}; choose another cache_dir"
        ) from error
    path = Path(folder) / f"{key}.npz"
    prediction = _load(path)
    if prediction is None:
        prediction = predict()
        # compression hardly reduces the size of probabilities
        write = np.savez if prediction.dtype.kind == "f" else np.savez_compressed
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write(file, prediction=prediction)
    return prediction


def _load(path: Path) -> np.ndarray | None:
    """Load a prediction; ``None`` if the file is missing or damaged, which the checksums of zip files reveal."""
    try:
        check_arrays(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive["prediction"])
    except Exception:  # numpy fails in any way on a damaged file, which is replaced then
        return None
