"""Where studies are kept: a file in the folder of the results, that one process at a time works on."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from convexadam.errors import ConfigError, FileError, MissingExtraError

StorageKind: TypeAlias = Literal["journal", "sqlite"]


@contextmanager
def opened(folder: Path, kind: StorageKind) -> Iterator[Any]:
    """Open the storage of studies in a folder, with Optuna's own messages off.

    Raises
    ------
    MissingExtraError
        If Optuna is not installed.
    FileError
        If another process works there, or what is there cannot be read.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError('a search needs Optuna; pip install "convexadam-torch[tune]"') from error
    if kind not in get_args(StorageKind):
        raise ConfigError(f"a storage is one of {', '.join(get_args(StorageKind))}, but {kind!r} came")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    path = folder / ("study.sqlite" if kind == "sqlite" else "study.journal")
    try:
        with _alone(folder):
            try:
                storage: Any = _sqlite(path) if kind == "sqlite" else _journal(path)
            except Exception as error:  # whatever a damaged file leads to
                raise FileError(
                    f"cannot go on from {path} ({error}); move it away, or choose another folder"
                ) from error
            try:
                yield storage
            finally:
                if kind == "sqlite":
                    storage.engine.dispose()
    finally:
        optuna.logging.set_verbosity(level)


def _sqlite(path: Path) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    # a name pasted into an address would end at the first # or ?
    return RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path), "poolclass": NullPool})


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of a process that was killed: we are alone
    if path.exists():
        with path.open("r+b") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)  # a killed process may leave half a line, which the next one would go on with
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder, where that is possible; the operating system lets it go with the process, however that ends."""
    try:
        file = (folder / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error.strerror}; check permissions, or choose another") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(f"another search runs in {folder}; wait for it, or choose another folder") from error
        except (ImportError, OSError):  # neither Windows nor every file system can: nobody checks
            pass
        yield
