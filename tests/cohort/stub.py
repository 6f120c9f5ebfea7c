"""A registration that costs nothing, to measure what surrounds it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from convexadam import Affine, Image, RegistrationConfig
from convexadam.registration import RegistrationResult
from convexadam.report import QualityMeasures

CONFIG = RegistrationConfig()


def stub_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the registration of a pair, and the measures of its quality, in this process."""

    def register(prepared: Any, moving: Image, **_: Any) -> RegistrationResult:
        return RegistrationResult(
            transform=Affine(), fixed=prepared.fixed, moving=moving, config=CONFIG, timings={}, diagnostics={}
        )

    quality = QualityMeasures(**{item.name: math.nan for item in fields(QualityMeasures)})
    monkeypatch.setattr("convexadam.registration.PreparedImage.register", register)
    monkeypatch.setattr("convexadam.cohort.job.measure_quality", lambda *_, **__: quality)
