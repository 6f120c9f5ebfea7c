"""A prepared fixed image: the results are those of `register`, bit by bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from convexadam import ConfigError, Image, RegistrationConfig, preset, register
from convexadam.data import phantom_pair
from convexadam.features import Concat, Intensity, MindSSC
from convexadam.registration import PreparedImage, prepare


@pytest.mark.parametrize(
    "config", [preset("default"), preset("rigid"), RegistrationConfig(features=Concat(parts=(MindSSC(), Intensity())))]
)
def test_the_same_results_for_each_moving_image(config: RegistrationConfig) -> None:
    first, second = (phantom_pair((24, 22, 20), seed=seed) for seed in (0, 1))
    mask = first.fixed_labels.numpy() > 0
    prepared = prepare(first.fixed, config, fixed_mask=mask)
    for moving in (first.moving, second.moving, first.moving):
        found = prepared.register(moving)
        expected = register(first.fixed, moving, config, fixed_mask=mask)
        points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
        assert torch.equal(found.transform(points), expected.transform(points))
        assert found.diagnostics == expected.diagnostics


def test_what_cannot_be_prepared() -> None:
    with pytest.raises(ConfigError, match="config must be a RegistrationConfig"):
        prepare(torch.rand(8, 8, 8), 3)  # type: ignore[arg-type]


def test_the_mirror_image_and_its_mask() -> None:
    pair = phantom_pair((24, 22, 20), displacement_mm=2.0, contrasts=("t1", "t1"))
    config = RegistrationConfig(linear=None, continuous=None)
    mask = torch.zeros(pair.moving.grid.shape, dtype=torch.uint8)
    mask[4:] = 1
    axis = pair.moving.grid.canonical_axes()[0][0]
    found = prepare(pair.fixed, config).register_mirrored(pair.moving, moving_mask=mask)
    flipped = Image(pair.moving.data.flip(axis + 1), pair.moving.grid)
    expected = register(pair.fixed, flipped, config, moving_mask=mask.flip(axis))
    assert torch.equal(found.transform.disp_mm, expected.transform.disp_mm)
    plain = register(pair.fixed, flipped, config, moving_mask=mask)
    assert not torch.equal(found.transform.disp_mm, plain.transform.disp_mm)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda prepared: pickle.loads(pickle.dumps(prepared))])
def test_a_copy_gives_the_same_results(copied: Callable[[PreparedImage], PreparedImage]) -> None:
    pair = phantom_pair((24, 22, 20))
    prepared = prepare(pair.fixed)
    expected = prepared.register(pair.moving)
    found = copied(prepared).register(pair.moving)
    assert torch.equal(found.moved.data, expected.moved.data)
