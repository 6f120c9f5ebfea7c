"""Checks of single settings."""

from __future__ import annotations

from typing import Any

import pytest

from convexadam._checks import check_component
from convexadam.continuous import Adam, BoxSmoothing, Optimiser, Similarity, Smoothing, Ssd
from convexadam.errors import ConfigError


class OwnSimilarity:
    """Fits the protocol, without a base class of the library."""

    def prepare(self, fixed: Any, moving: Any, start: Any, weights: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Ssd(), Similarity),
        (OwnSimilarity(), Similarity),
        (Adam(), Optimiser),
        (BoxSmoothing(), Smoothing),
        (BoxSmoothing(), Smoothing | None),
        (None, Smoothing | None),
        (Ssd(), Ssd),
    ],
)
def test_instances_of_classes_protocols_and_unions_are_accepted(value: Any, kind: Any) -> None:
    check_component(value, kind, "setting")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(Ssd, Similarity), (OwnSimilarity, Similarity), (BoxSmoothing, Smoothing | None), (Ssd, Ssd), (int, Ssd)],
)
def test_a_class_raises_even_if_it_has_the_members_of_the_protocol(value: Any, kind: Any) -> None:
    name = value.__name__
    with pytest.raises(
        ConfigError, match=rf"^setting must be an instance, got the class {name}; write {name}\(\.\.\.\)$"
    ):
        check_component(value, kind, "setting")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (3, Similarity, "setting must be a Similarity, got 3"),
        (None, Similarity, "setting must be a Similarity, got None"),
        ("box", Smoothing | None, "setting must be a Smoothing or None, got 'box'"),
        (Adam(), Ssd | BoxSmoothing, r"setting must be a Ssd or a BoxSmoothing, got Adam\("),
    ],
)
def test_other_values_raise(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        check_component(value, kind, "setting")
