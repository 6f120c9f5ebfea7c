"""What depends on the fixed image and the settings alone, computed once for all moving images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast, final

T = TypeVar("T")


@final
class Memo:
    """Values by key, each computed once; several threads may ask for them. A copy in another process begins empty."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[Memo], tuple[()]]:
        return Memo, ()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of a key, computed if it is missing."""
        with self._lock:
            if key not in self._values:
                self._values[key] = compute()
            return cast(T, self._values[key])


def reuse(memo: Memo | None, key: Hashable, compute: Callable[[], T]) -> T:
    """Return a value of a memo, or a new one if there is no memo."""
    return compute() if memo is None else memo.get(key, compute)
