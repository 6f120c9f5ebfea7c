"""Settings of the tests of this folder that no preset has."""

from __future__ import annotations

import dataclasses

from convexadam import RegistrationConfig, preset

CONTRASTS = {"one": -1.0, "different": 1.0}
"""Coherence from which on images have one contrast: stand-ins of kernels leave no images of which it could be found."""


def make_best(contrasts: str) -> RegistrationConfig:
    """Return the preset ``best`` that takes all images for such of ``"one"`` contrast, or of ``"different"`` ones."""
    config = preset("best")
    assert config.continuous is not None
    assert config.continuous.different_contrasts is not None
    other = dataclasses.replace(config.continuous.different_contrasts, coherence=CONTRASTS[contrasts])
    return dataclasses.replace(config, continuous=dataclasses.replace(config.continuous, different_contrasts=other))


def make_best_of_one_contrast() -> RegistrationConfig:
    """Return the preset ``best`` without a decision of the host, so that all of it can be recorded."""
    config = preset("best")
    assert config.continuous is not None
    return dataclasses.replace(config, continuous=dataclasses.replace(config.continuous, different_contrasts=None))
