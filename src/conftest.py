"""The examples of docstrings write their files to a folder of their own, and what they register ends with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from convexadam.io import formats
from convexadam.registration import presets


@pytest.fixture(autouse=True)
def _leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(presets, "_registered", {})
    monkeypatch.setattr(formats, "_REGISTERED", {})
