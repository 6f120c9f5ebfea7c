"""Values that are worth keeping, within a bound."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar, cast, final

import torch

T = TypeVar("T")

_SMALL = 0.01
"""Share of the whole up to which a value is small."""


@final
class Cache:
    """Values by key, within ``most_bytes``.

    Trials go through all pairs in the same order: a cache that drops what was not used for the longest would never find
    anything again, once the pairs do not fit. Therefore large values make room by chance (the same each time), and
    small ones, such as what alignments and searches found, stay.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._values: dict[Hashable, Any] = {}
        self._bytes: dict[Hashable, int] = {}
        self._chance = random.Random(0)

    @property
    def bytes(self) -> int:
        """What all values take."""
        return sum(self._bytes.values())

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made where it is not there. One too large for the cache is not kept."""
        if key in self._values:
            return cast(T, self._values[key])
        value = make()
        size = tensor_bytes(value)
        if size < self.most_bytes:
            self._make_room(size)
            self._values[key], self._bytes[key] = value, size
        return value

    def clear(self) -> None:
        """Let everything go."""
        self._values.clear()
        self._bytes.clear()

    def _make_room(self, size: int) -> None:
        large = [key for key, taken in self._bytes.items() if taken > _SMALL * self.most_bytes]
        self._chance.shuffle(large)
        while self.bytes + size > self.most_bytes:
            key = large.pop() if large else next(iter(self._bytes))
            del self._values[key], self._bytes[key]


def tensor_bytes(value: object) -> int:
    """Memory of all tensors in a value, however deep; memory that several share counts once."""
    return sum({(s := t.untyped_storage()).data_ptr(): s.nbytes() for t in _tensors(value)}.values())


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    inner: Iterable[object] = ()
    if isinstance(value, (list, tuple)):
        inner = value
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        inner = vars(value).values()
    for part in inner:
        yield from _tensors(part)
