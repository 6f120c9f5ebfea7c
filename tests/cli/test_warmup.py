"""``convexadam warmup``."""

from __future__ import annotations

from typing import Any

import pytest
from numba.core import event

from convexadam import Image
from convexadam.cli.commands import main
from convexadam.data import phantom_pair
from convexadam.registration import preset_names, register


class Compiled(event.Listener):
    """Names of the functions that were compiled."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: Any) -> None:
        self.names.append(event.data["dispatcher"].py_func.__qualname__)

    def on_end(self, event: Any) -> None:
        pass


@pytest.mark.filterwarnings("ignore:the linear alignment found no transform better")
@pytest.mark.long
def test_all_presets_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    assert all(name in capsys.readouterr().err for name in preset_names()[:1])
    other = phantom_pair((30, 28, 16), spacing_mm=(1.5, 1.5, 4.0), contrasts=("ct", "t1"), seed=1)
    mask = Image(other.fixed_labels.data > 0, other.fixed.grid)
    compiled = Compiled()
    event.register("numba:compile", compiled)
    try:
        for name in preset_names():
            register(other.fixed, other.moving, name, fixed_mask=mask)
            register(other.fixed, Image(-other.fixed.data, other.fixed.grid), name)
    finally:
        event.unregister("numba:compile", compiled)
    assert not compiled.names
