"""Several pairs of one shape on a pretended GPU: how much is launched for each, and that replays are right."""

from __future__ import annotations

import dataclasses

import oracles
import pytest
import torch
from pretend import DEVICE, PretendedGpu
from settings import make_best_of_one_contrast

from convexadam import Intensity, Refinement, RegistrationConfig, preset, register, register_batch
from convexadam.continuous import Level
from convexadam.registration import preset_names
from convexadam.registration.recordings import is_recordable

PAIRS = 5


def _count(gpu: PretendedGpu) -> tuple[int, int]:
    """Return operations and launches of the host, and its waits, since the last call."""
    record = gpu.record
    counts = (
        sum(record.operations.values()) + sum(record.launches.values()),
        sum(record.waits.values()) + sum(record.copies_to_device.values()),
    )
    record.start()
    return counts


@pytest.mark.parametrize(
    "config", [preset("published"), make_best_of_one_contrast()], ids=["published", "best of one contrast"]
)
def test_a_pair_more_takes_a_replay(counted: PretendedGpu, config: RegistrationConfig) -> None:
    config = dataclasses.replace(config, linear=None)
    volumes = [torch.rand(24, 22, 20, generator=torch.Generator().manual_seed(s)).to(DEVICE) for s in range(PAIRS + 1)]
    register(volumes[0], volumes[1], config)  # what is sent once
    counted.record.start()
    register(volumes[0], volumes[1], config)
    alone = _count(counted)
    register_batch(volumes[:-2], volumes[1:-1], config)
    batch = _count(counted)
    register_batch(volumes[:-1], volumes[1:], config)
    more = [b - a for a, b in zip(batch, _count(counted), strict=True)]
    assert counted.record.faults() == []
    assert more[0] <= 25
    assert more[0] < 0.25 * alone[0]
    assert more[1] <= 3


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")
def test_a_replay_gives_the_field_of_a_single_registration(interpreted: PretendedGpu) -> None:
    refinement = Refinement(levels=(Level(spacing=2, iterations=4),), regularisers=(), update_smoothing=None)
    config = RegistrationConfig(  # all that does not take a minute to interpret
        linear=None, features=Intensity(), discrete=None, continuous=refinement
    )
    coarse = oracles.noise(4, 1, 5, 5, 5, dtype=torch.float32)
    volumes = list(torch.nn.functional.interpolate(coarse, size=(8, 7, 6), mode="trilinear")[:, 0].to(DEVICE))
    volumes[3] = torch.zeros_like(volumes[3])  # without contrast, of which no replay knows
    moving = [volume.roll(1, 0) for volume in volumes]
    results = register_batch(volumes, moving, config)
    assert interpreted.record.launches["replay"] == 3 + 3  # steps of the first pair, and the three other pairs
    assert interpreted.record.faults() == []
    alone = register(volumes[2], moving[2], config)
    assert alone.transform.disp_mm.cpu().abs().max() > 0.3
    torch.testing.assert_close(results[2].transform.disp_mm.cpu(), alone.transform.disp_mm.cpu(), rtol=0, atol=1e-5)
    assert results[2].diagnostics == pytest.approx(alone.diagnostics, abs=1e-5)
    assert not results[3].transform.disp_mm.cpu().any()


def test_what_is_recorded() -> None:
    recorded = {name for name in preset_names() if is_recordable(preset(name))}
    assert {"default", "published"} <= recorded
    assert not recorded & {"best", "rigid", "similarity", "affine"}  # the host decides, or nothing is deformed
