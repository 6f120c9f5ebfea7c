"""Atomic replacement of files, and creation of folders."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convexadam._checks import show
from convexadam.errors import FileError

_LONGEST_NAME = 255
"""Bytes of a name that common file systems allow."""


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents if they do not exist, and return it.

    Raises
    ------
    FileError
        If it cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot create folder {folder}: {error.strerror}; choose another path") from error
    return folder


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to, and rename it to ``path`` after the block succeeds.

    The temporary name has the same ending (such as ``.nii.gz``), since writers choose the format by it; the file is
    removed after a failure. Readers never see an incomplete file, and an existing file is kept if the process is
    killed. The new one has its permissions; a symbolic link is replaced, and what it points to stays as it is.

    Raises
    ------
    FileError
        If the folder does not exist, or the block or the renaming raises `OSError`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.io import atomic_path
    >>> with atomic_path("numbers.txt") as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> Path("numbers.txt").read_text()
    '1 2 3'
    """
    target = _check_target(path)
    temporary = _name_temporary(target)
    try:
        yield temporary
        if target.is_file():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"cannot write {target}: {reason}; check permissions and free space") from error
    finally:
        with suppress(OSError):  # a name that is too long, for example, which was said already
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless a file can be written, before the work whose result it will hold.

    An empty file is created beside it and removed, since permissions alone do not tell: the folder may be on a disk
    that is full or read-only.

    Raises
    ------
    FileError
        If the folder does not exist, or nothing can be written to it.
    """
    target = _check_target(path)
    probe = _name_temporary(target)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"cannot write {target}: {reason}; check permissions and free space") from error


def _check_target(path: str | os.PathLike[str]) -> Path:
    try:
        target = Path(path)
        if "\0" in str(target):
            raise ValueError("a name must not have a NUL")
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
        is_special = target.exists() and not is_folder and not target.is_file()
    except (OSError, ValueError, TypeError) as error:  # too long, with a NUL, or no path
        raise FileError(f"path must be a file name that the system allows, got {show(path)}; choose another") from error
    if is_folder:
        raise FileError(f"cannot write {target}: path must be a file, got a folder; pass the name of a file in it")
    if is_special:  # it would be replaced by a file
        raise FileError(f"cannot write {target}: path must be a file, got a pipe or device; choose the name of a file")
    if not has_folder:
        raise FileError(
            f"cannot write {target}: {target.parent} is not a folder; create it first, or choose another path"
        )
    return target


def _name_temporary(target: Path) -> Path:
    name, prefix = target.name, f".{secrets.token_hex(6)}.part."
    while name and len(os.fsencode(prefix + name)) > _LONGEST_NAME >= len(os.fsencode(target.name)):
        name = name[1:]  # a name that the system allows; its ending stays
    return target.with_name(prefix + name)
