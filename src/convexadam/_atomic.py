"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convexadam.errors import FileError


def made_folder(path: str | os.PathLike[str]) -> Path:
    """Return a folder, made with those above it where it does not exist.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {error.strerror}; choose another") from error
    return folder


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes the place of ``path`` once the block has ended well.

    The temporary name ends like the real one (``.nii.gz`` and all), since writers choose their format by it, and is
    gone after a failure. Readers never see half a file, and a run that is killed leaves the old one as it was.

    Raises
    ------
    FileError
        If the folder does not exist, or the operating system refuses anything in the block or the replacement.
    """
    target = Path(path)
    if target.is_dir():
        raise FileError(f"{target} is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileError(f"cannot write {target}: {target.parent} is not a folder; create it first, or choose another")
    temporary = target.with_name(f".{secrets.token_hex(6)}.part.{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"cannot write {target}: {reason}; check permissions and free space") from error
    finally:
        temporary.unlink(missing_ok=True)
