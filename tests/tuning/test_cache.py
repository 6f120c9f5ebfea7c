"""What is kept, and what goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from convexadam.tuning.cache import Cache, tensor_bytes


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    rest: tuple[object, ...]


def test_bytes_of_all_that_is_inside_shared_memory_once() -> None:
    memory = torch.zeros(100)
    value = Pair(memory, (memory[10:20], [torch.zeros(5, dtype=torch.float64)], None, "text", 3, Pair))
    assert tensor_bytes(value) == 400 + 40


def test_made_once_and_the_one_not_asked_for_the_longest_goes() -> None:
    cache, made = Cache(1000), []

    def get(name: str, size: int) -> torch.Tensor:
        return cache.get(name, lambda: made.append(name) or torch.zeros(size, dtype=torch.uint8))  # type: ignore[func-returns-value]

    assert get("a", 400) is get("a", 400)
    get("b", 400)
    get("a", 400)
    get("c", 400)  # b goes
    assert cache.bytes == 800
    get("a", 400)
    get("b", 400)
    assert made == ["a", "b", "c", "b"]


def test_what_is_too_large_is_not_kept() -> None:
    cache = Cache(10)
    cache.get("a", lambda: torch.zeros(3))
    assert cache.bytes == 0
