"""Intermediate results of trials, within a bound of memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar, cast, final

import torch

T = TypeVar("T")

_SMALL = 0.01
"""Share of the bound up to which a value counts as small."""


@final
class Cache:
    """Values by key, of at most ``max_bytes`` together.

    Trials visit all pairs in the same order: if these do not fit, a cache that evicts the least recently used value
    would evict each one just before it is needed. Therefore large values are evicted at random (with a fixed seed), and
    small ones, such as results of alignments and searches, only after all large ones.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._values: dict[Hashable, Any] = {}
        self._bytes: dict[Hashable, int] = {}
        self._random = random.Random(0)

    @property
    def bytes(self) -> int:
        """Memory of all values."""
        return sum(self._bytes.values())

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of a key, computed if it is missing. A value larger than the cache is not stored."""
        if key in self._values:
            return cast(T, self._values[key])
        value = compute()
        size = count_bytes(value)
        if size < self.max_bytes:
            self._evict_for(size)
            self._values[key], self._bytes[key] = value, size
        return value

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self._bytes.clear()

    def _evict_for(self, size: int) -> None:
        large = [key for key, taken in self._bytes.items() if taken > _SMALL * self.max_bytes]
        self._random.shuffle(large)
        while self.bytes + size > self.max_bytes:
            key = large.pop() if large else next(iter(self._bytes))
            del self._values[key], self._bytes[key]


def count_bytes(value: object) -> int:
    """Return the memory of all tensors in a value, at any depth; storage that several share counts once."""
    return sum({(s := t.untyped_storage()).data_ptr(): s.nbytes() for t in _iterate_tensors(value)}.values())


def _iterate_tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    parts: Iterable[object] = ()
    if isinstance(value, (list, tuple)):
        parts = value
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        parts = vars(value).values()
    for part in parts:
        yield from _iterate_tensors(part)
