"""Values that are worth keeping, within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar, cast, final

import torch

T = TypeVar("T")


@final
class Cache:
    """Values by key; those not asked for the longest go first once all together take more than ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}
        self.made = 0

    @property
    def bytes(self) -> int:
        """What all values take."""
        return sum(self._bytes.values())

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made where it is not there. One too large for the cache is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return cast(T, self._values[key])
        value = make()
        self.made += 1
        size = tensor_bytes(value)
        if size < self.most_bytes:
            self._values[key], self._bytes[key] = value, size
            while self.bytes > self.most_bytes:
                oldest, _ = self._values.popitem(last=False)
                del self._bytes[oldest]
        return value


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
