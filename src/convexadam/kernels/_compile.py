"""Compilation of the CPU kernels, once for all processes, with a cache on disk wherever there is room for one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numba
from numba.core.caching import FunctionCache, NullCache

_LOGGER = logging.getLogger("convexadam")

Find = Callable[[Callable[..., Any], Any, Any], Any]
"""Finds a compiled function for its source, a signature and numba's target, or returns ``None``."""

_ANNOUNCED: set[str] = set()


def _find_nothing(*_: Any) -> None:
    return None


def compile_cached(function: Callable[..., Any], *, find_prebuilt: Find = _find_nothing, **options: Any) -> Any:
    """Return a dispatcher of numba that compiles a function at its first call.

    The result is kept on disk, beside the source or in the user's cache (``NUMBA_CACHE_DIR``), or in memory only if
    neither can be written. Of several processes one compiles, and the others wait for it and read its result. A damaged
    entry is made again. What ``find_prebuilt`` finds is neither compiled nor kept.
    """
    dispatcher: Any = numba.njit(**options)(function)
    try:
        dispatcher._cache = _SafeCache(function, find_prebuilt)
    except RuntimeError:  # no place for a cache
        dispatcher._cache = _NoCache(function, find_prebuilt)
        return dispatcher
    compile_one, folder = dispatcher.compile, Path(dispatcher._cache.cache_path)

    def compile_alone(signature: Any) -> Any:
        with _lock(folder):
            return compile_one(signature)

    dispatcher.compile = compile_alone
    return dispatcher


class _NoCache(NullCache):
    """What stands in for a cache where none can be written."""

    def __init__(self, function: Callable[..., Any], find: Find) -> None:
        self._function, self._find = function, find

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        found = self._find(self._function, signature, target_context)
        if found is None:
            _announce(
                "memory",
                "no folder for compiled CPU kernels can be written: each process compiles them; set "
                "NUMBA_CACHE_DIR to one that can",
            )
        return found


class _SafeCache(FunctionCache):
    """A cache of numba whose damaged or unwritable files are no errors."""

    def __init__(self, function: Callable[..., Any], find: Find) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._find = find

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(signature, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:  # of any type, depending on how a file is damaged
            _announce(
                "damaged", f"a compiled CPU kernel in {self.cache_path} cannot be read ({error!r}) and is made again"
            )
            self._discard()
            found = None
        return self._find(self._py_func, signature, target_context) if found is None else found

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)  # type: ignore[no-untyped-call]
        except Exception as error:  # a full disk, or an index that was damaged meanwhile
            _announce("unwritable", f"compiled CPU kernels cannot be kept in {self.cache_path} ({error!r})")
            self._discard()

    def _discard(self) -> None:
        with suppress(OSError):  # read-only: it is compiled for this process
            Path(self._cache_file._index_path).unlink(missing_ok=True)


class _Held:
    """The lock of one folder: held once by this process, however deeply its kernels call each other."""

    def __init__(self) -> None:
        self.depth, self.file = 0, None  # type: int, IO[bytes] | None


_guard = threading.RLock()
_held: dict[Path, _Held] = {}


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, if the system supports it; the system releases it when the process ends."""
    with _guard:
        held = _held.setdefault(folder, _Held())
        if held.depth == 0:
            held.file = _open_locked(folder / "convexadam.lock")
        held.depth += 1
        try:
            yield
        finally:
            held.depth -= 1
            if held.depth == 0 and held.file is not None:
                held.file.close()
                held.file = None


def _open_locked(path: Path) -> IO[bytes] | None:
    try:
        import fcntl

        file = path.open("ab")
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        file.close()
        return None
    return file


def _announce(what: str, message: str) -> None:
    """Log a message once for each kind."""
    if what not in _ANNOUNCED:
        _ANNOUNCED.add(what)
        _LOGGER.warning("convexadam: %s", message)
