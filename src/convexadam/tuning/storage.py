"""Storage of the studies: a file in the output folder, locked against a second process."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from convexadam._checks import check_choice
from convexadam._lock import lock_folder
from convexadam.errors import FileError, MissingExtraError

StorageKind: TypeAlias = Literal["journal", "sqlite"]


@contextmanager
def open_storage(folder: Path, kind: StorageKind) -> Iterator[Any]:
    """Open the storage of the studies in a folder, with the messages of Optuna switched off.

    Raises
    ------
    MissingExtraError
        If Optuna is not installed.
    FileError
        If another process uses the folder, or the file in it cannot be read.
    ConfigError
        If there is no such kind of storage.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError('tuning needs Optuna; pip install "convexadam-torch[tune]"') from error
    check_choice(kind, "storage", get_args(StorageKind))
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    path = folder / ("study.sqlite" if kind == "sqlite" else "study.journal")
    existed = path.exists()
    try:
        with lock_folder(folder, "search"):
            try:
                storage: Any = _open_sqlite(path) if kind == "sqlite" else _open_journal(path)
            except Exception as error:  # of any type, depending on how the file is damaged
                raise FileError(
                    f"cannot read the study {path}: {error}; remove it, or choose another folder"
                ) from error
            try:
                yield storage
            finally:
                if kind == "sqlite":
                    storage.engine.dispose()
                    if not existed and not storage.get_all_studies():  # refused before anything was stored
                        storage.engine.dispose()
                        path.unlink(missing_ok=True)
    finally:
        optuna.logging.set_verbosity(level)


def _open_sqlite(path: Path) -> Any:
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    # not by a URL: it would end at the first # or ? in the path
    return RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path), "poolclass": NullPool})


def _open_journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.with_name(f"{path.name}.lock").unlink(
        missing_ok=True
    )  # left by a killed process: the folder is locked by this one
    if path.exists():
        with path.open("r+b") as file:
            # a killed process may have written half a line, to which the next entry would be appended
            file.truncate(file.read().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
