"""Presets of tasks: their sources, their values, and registrations with them."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from convexadam import Affine, ConfigError, Image, RegistrationConfig, register
from convexadam.cli.learn2reg import TaskName
from convexadam.continuous import Diffusion
from convexadam.data import PhantomPair, phantom_pair
from convexadam.discrete import ConvexSearch
from convexadam.features import LabelFeatures
from convexadam.learn2reg import TASK_PRESETS, task_preset
from convexadam.metrics import folded_percent, tre

named = pytest.mark.parametrize("name", TASK_PRESETS)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return phantom_pair((64, 52, 48), displacement_mm=20.0, noise=0.3)


def test_there_is_a_preset_for_each_task() -> None:
    assert set(TASK_PRESETS) == {"CuRIOUS", "Hippocampus", "LungCT", "AbdomenCTCT", "AbdomenMRCT", "OASIS", "NLST"}
    assert get_args(TaskName) == TASK_PRESETS
    with pytest.raises(ConfigError, match=r"task must be one of .*, got 'LungCt' .did you mean 'LungCT'"):
        task_preset("LungCt")


@named
def test_sources_and_deviations(name: str) -> None:
    found = task_preset(name)
    assert found.task == name
    assert len(found.source.split()) > 4
    assert len(found.deviations.split()) > 4
    assert found.required_inputs
    published = name in ("CuRIOUS", "LungCT", "AbdomenMRCT", "OASIS")
    assert found.source.startswith("the ConvexAdam container" if published else "no published settings")
    assert found.uses_labels == (name == "OASIS")


@named
def test_toml(name: str) -> None:
    config = task_preset(name).config
    assert RegistrationConfig.from_toml(config.to_toml()) == config


@pytest.mark.parametrize(
    ("name", "search_spacing", "radius", "consistency", "spacing", "iterations", "weight"),
    [
        ("AbdomenMRCT", 4, 8, 15, 3, 40, 0.6),
        ("LungCT", 4, 6, 0, 2, 50, 0.65),
        ("OASIS", 2, 3, 0, 2, 100, 1.25),
        ("Hippocampus", 4, 4, 15, 2, 60, 1.0),
        ("AbdomenCTCT", 6, 6, 15, 2, 60, 1.0),
        ("NLST", 6, 6, 15, 2, 60, 1.0),
    ],
)
def test_the_values(
    name: str, search_spacing: int, radius: int, consistency: int, spacing: int, iterations: int, weight: float
) -> None:
    config = task_preset(name).config
    search, refinement = config.discrete, config.continuous
    assert isinstance(search, ConvexSearch)
    assert refinement is not None
    assert (search.spacing, search.radius, search.inverse_consistency) == (search_spacing, radius, consistency)
    (level,) = refinement.levels
    assert (level.spacing, level.iterations) == (spacing, iterations)
    assert refinement.regularisers == (Diffusion(weight=weight),)
    if name == "OASIS":
        assert config.features == LabelFeatures(scale=10.0, class_balance=0.3, include_background=True)


@pytest.mark.parametrize("name", [name for name in TASK_PRESETS if name != "CuRIOUS"])
def test_it_registers_a_phantom(name: str, pair: PhantomPair) -> None:
    found = task_preset(name)
    labels = (
        {"fixed_segmentation": pair.fixed_labels, "moving_segmentation": pair.moving_labels}
        if found.uses_labels
        else {}
    )
    result = register(pair.fixed, pair.moving, found.config, **labels)
    before = tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm).mean()
    after = tre(pair.fixed_landmarks_mm, pair.moving_landmarks_mm, result.transform).mean()
    assert after < 0.5 * before
    assert folded_percent(result.transform.to_voxels()) < 1.0


def test_the_rigid_one_finds_a_rigid_motion(pair: PhantomPair) -> None:
    turn = np.eye(4)
    angle = np.radians(8)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = 15, -10, 5
    motion = Affine(turn)
    fixed = Image(motion.warp(pair.moving, reference=pair.moving.grid, fill_value=-1000.0).data, pair.moving.grid)
    points = pair.moving_landmarks_mm
    there = motion.warp_points(points, space="mm")
    result = register(fixed, pair.moving, task_preset("CuRIOUS").config)
    assert result.linear is not None
    assert result.linear.model == "rigid"
    before, after = tre(points, there).mean(), tre(points, there, result.transform).mean()
    assert after < 0.25 * before
    determinants = result.transform.jacobian(result.fixed)
    assert torch.allclose(determinants, torch.ones_like(determinants), atol=1e-3)
