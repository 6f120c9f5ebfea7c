"""Values that the cache stores and evicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from convexadam.tuning.cache import Cache, count_bytes


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    rest: tuple[object, ...]


def test_bytes_of_nested_tensors_shared_storage_once() -> None:
    memory = torch.zeros(100)
    value = Pair(memory, (memory[10:20], [torch.zeros(5, dtype=torch.float64)], None, "text", 3, Pair))
    assert count_bytes(value) == 400 + 40


def test_within_the_bound_each_value_is_computed_once() -> None:
    cache, made = Cache(1000), []

    def get(name: str, size: int) -> torch.Tensor:
        return cache.get(name, lambda: made.append(name) or torch.zeros(size, dtype=torch.uint8))  # type: ignore[func-returns-value]

    for _ in range(3):
        assert get("a", 400) is get("a", 400)
        get("b", 500)
    assert made == ["a", "b"]
    assert cache.bytes == 900
    cache.clear()
    assert cache.bytes == 0
    get("a", 400)
    assert made == ["a", "b", "a"]


def test_a_cache_that_is_a_little_too_small_still_serves_cyclic_access() -> None:
    cache, made = Cache(1000), []

    def get(name: str, size: int) -> None:
        cache.get(name, lambda: made.append(name) or torch.zeros(size, dtype=torch.uint8))  # type: ignore[func-returns-value]

    for _ in range(50):
        for name in "abcdefghijk":  # eleven of which ten would fit
            get(f"small {name}", 1)
            get(name, 98)
            assert cache.bytes <= 1000
    assert sum(name.startswith("small") for name in made) == 11  # small values stay
    assert 11 < len(made) - 11 < 0.6 * 550  # one that drops the oldest would make all 550


def test_a_value_that_is_too_large_is_not_stored() -> None:
    cache = Cache(10)
    cache.get("a", lambda: torch.zeros(3))
    assert cache.bytes == 0
