"""What nibabel says of a header, and would print itself: logged under the name of this library, with the file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_LOGGER = logging.getLogger("convexadam")

_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)


class _Collector(logging.Filter):
    """Keeps messages from the handlers of nibabel while this thread opens a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        messages = _collected.get()
        if messages is not None:
            messages.append(record.getMessage())
        return messages is None


_COLLECTOR = _Collector()


@contextmanager
def take_over_messages(path: Path) -> Iterator[None]:
    """Log each message of nibabel about a file once."""
    from nibabel.imageglobals import logger

    logger.addFilter(_COLLECTOR)  # which is there once, however often it is added
    messages: list[str] = []
    token = _collected.set(messages)
    try:
        yield
    finally:
        _collected.reset(token)
    for message in dict.fromkeys(messages):
        _log(path, message)


@functools.lru_cache(maxsize=1000)
def _log(path: Path, message: str) -> None:
    _LOGGER.warning("convexadam: %s: %s", path, message)
