"""Nothing in a registration is drawn at random: the same inputs and settings give the same field, bit by bit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import convexadam
from convexadam import preset, register
from convexadam.data import phantom_pair

PROGRAM = """
import hashlib, sys
import torch
from convexadam import preset, register
from convexadam.data import phantom_pair

torch.set_num_threads(2)
pair = phantom_pair((28, 24, 20), contrasts=("ct", "t1"))
field = register(pair.fixed, pair.moving, preset("default")).transform.disp_mm
sys.stdout.write(hashlib.sha256(field.numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    ("name", "threads"), [("default", 1), ("default", 2), pytest.param("best", 1, marks=pytest.mark.long)]
)
def test_the_same_inputs_give_the_same_field(name: str, threads: int) -> None:
    pair = phantom_pair((28, 24, 20))
    config = dataclasses.replace(preset(name), backend="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second = (register(pair.fixed, pair.moving, config).transform.disp_mm for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)


@pytest.mark.long
def test_another_process_gives_the_same_field() -> None:
    source = str(Path(convexadam.__file__).parents[1])
    found = {
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{PROGRAM}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop()) == 64
