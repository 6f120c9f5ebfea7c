"""Settings of registrations that start at the result of a similar one: the frame or the round before."""

from __future__ import annotations

import math
from dataclasses import replace

from convexadam._typing import PerAxis
from convexadam.registration.config import RegistrationConfig

_ITERATIONS = 0.7
"""Share of the iterations of a registration from the beginning."""


def make_warm_config(config: RegistrationConfig) -> RegistrationConfig:
    """Return settings for a registration that starts at the field of a similar one (``search_start``).

    What is left to find is the difference between both. So there is no linear alignment; the search covers half of the
    radius and is not made inverse consistent, which would take longer than all the rest of it.
    """
    searches = tuple(replace(search, radius=_halve(search.radius), inverse_consistency=0) for search in config.searches)
    refine = config.continuous
    if refine is not None:
        levels = tuple(replace(level, iterations=math.ceil(_ITERATIONS * level.iterations)) for level in refine.levels)
        refine = replace(refine, levels=levels)
    discrete = searches if isinstance(config.discrete, tuple) else next(iter(searches), None)
    return config if config.is_linear else replace(config, linear=None, discrete=discrete, continuous=refine)


def _halve(radius: PerAxis) -> PerAxis:
    """Return half of a radius, rounded up."""
    if isinstance(radius, tuple):
        i, j, k = (math.ceil(r / 2) for r in radius)
        return i, j, k
    return math.ceil(radius / 2)
