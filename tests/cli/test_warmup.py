"""``convexadam warmup``."""

from __future__ import annotations

import pytest

from convexadam.cli.commands import main
from convexadam.registration import preset_names


@pytest.mark.long
def test_all_presets_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    assert all(name in capsys.readouterr().err for name in preset_names()[:1])
