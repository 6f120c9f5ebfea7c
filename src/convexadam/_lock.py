"""A folder that one process uses at a time."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from convexadam.errors import FileError

_NAME = ".lock"


@contextmanager
def lock_folder(folder: Path, purpose: str) -> Iterator[None]:
    """Lock a folder against other processes, and remove what a killed one was writing in it.

    The system releases the lock when the process ends, however it ends. File systems without locks do not protect the
    folder.

    Parameters
    ----------
    folder
        An existing folder.
    purpose
        What uses it, for the message: ``"search"``.

    Raises
    ------
    FileError
        If another process uses the folder (the message says which), or nothing can be written to it.
    """
    try:
        file = (folder / _NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise FileError(
            f"cannot write to {folder}: {error.strerror}; check permissions, or choose another folder"
        ) from error
    with file:
        try:
            _lock(file)
        except BlockingIOError as error:
            raise FileError(
                f"the folder {folder} must not be in use by another {purpose}, got {_read_holder(file)}; wait for "
                "it to end, or choose another folder"
            ) from error
        _write_holder(file)
        try:
            for part in folder.glob(".*.part.*"):
                part.unlink(missing_ok=True)
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _lock(file: IO[str]) -> None:
    """Lock a file until it is closed.

    Raises
    ------
    BlockingIOError
        If another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return


def _write_holder(file: IO[str]) -> None:
    with suppress(OSError):  # a full disk: the lock itself needs no room
        file.truncate(0)
        json.dump({"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
        file.flush()


def _read_holder(file: IO[str]) -> str:
    """Return which process has locked a file."""
    try:
        file.seek(0)
        holder = json.load(file)
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "one that is"
