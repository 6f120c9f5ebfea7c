"""Settings of one level of a multi-resolution refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from convexadam._axes import per_axis
from convexadam._checks import check_component, check_count, check_flag
from convexadam._typing import PerAxis
from convexadam.continuous.smoothing import Smoothing, TotalSmoothing

_MOST_ITERATIONS = 100_000


@final
@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a multi-resolution refinement.

    Attributes
    ----------
    spacing
        Spacing of the control points: one number or one for each axis, in the unit of the `Refinement`.
    iterations
        Largest number of steps.
    update_smoothing, total_smoothing
        Override those of the `Refinement` and of its parametrisation; ``None`` keeps them.
    forward_only
        Refine from fixed to moving only, even if the registration is symmetric; for the last levels, where averaging
        both directions would blur what one of them resolves.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> from convexadam.continuous import Level, Refinement
    >>> Refinement(levels=(Level(spacing=4, iterations=40), Level(spacing=2, iterations=20))).levels[1].spacing
    2
    """

    spacing: PerAxis = 2
    iterations: int = 80
    update_smoothing: Smoothing | None = None
    total_smoothing: TotalSmoothing | None = None
    forward_only: bool = False

    def __post_init__(self) -> None:
        per_axis(self.spacing, "spacing", least=0.0, above=True)
        check_count(self.iterations, "iterations", most=_MOST_ITERATIONS)
        check_component(self.update_smoothing, Smoothing | None, "update_smoothing")
        check_component(self.total_smoothing, TotalSmoothing | None, "total_smoothing")
        check_flag(self.forward_only, "forward_only")
