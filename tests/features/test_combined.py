"""Feature maps that exist, several kinds together, and what counts as features."""

from __future__ import annotations

from typing import Any

import jaxtyping
import oracles
import pytest
import torch

from convexadam.errors import ConfigError
from convexadam.features import Concat, Features, Intensity, LocalFeatures, MindSSC, Precomputed, receptive_radius
from convexadam.geometry import Grid, Image

SHAPE = (5, 7, 6)
GRID = Grid(SHAPE)
COMPONENTS = [MindSSC(), Intensity(), Precomputed(), Concat(parts=(MindSSC(), Intensity()))]


def _image(seed: int = 0, channels: int = 1) -> Image:
    return Image(oracles.noise(channels, *SHAPE, seed=seed).float(), GRID)


def _mean(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Features as a plain function."""
    return image.data.mean(0, keepdim=True) if weight is None else (image.data * weight).mean(0, keepdim=True)


class _Wide:
    """Features of somebody else, that say how far they look."""

    receptive_radius = 7

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        return image.data


# Precomputed --------------------------------------------------------------------------------------------------------


def test_precomputed_features_are_passed_on() -> None:
    image = _image(channels=4)
    assert torch.equal(Precomputed()(image), image.data)
    assert torch.equal(Precomputed()(image, weight=torch.zeros(SHAPE)), image.data)  # statistics of nothing
    assert torch.equal(Precomputed(weight=0.5)(image), 0.5 * image.data)
    assert receptive_radius(Precomputed()) == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64, torch.bool])
def test_precomputed_features_become_float32(dtype: torch.dtype) -> None:
    data = (oracles.uniform(2, *SHAPE) * 9).to(dtype)
    found = Precomputed(weight=2.0)(Image(data, GRID))
    assert found.dtype == torch.float32
    assert torch.equal(found, 2 * data.float())


# Concat -------------------------------------------------------------------------------------------------------------


def test_channels_follow_each_other_in_the_order_of_the_parts() -> None:
    image, weight = _image(channels=2), oracles.uniform(*SHAPE, seed=1).float()
    parts: tuple[Features, ...] = (Intensity(), MindSSC(), _mean)
    found = Concat(parts=parts)(image, weight=weight)
    assert torch.equal(found, torch.cat([part(image, weight=weight) for part in parts]))
    assert found.shape[0] == 2 + 24 + 1
    assert torch.equal(found, Concat(parts=parts, weights=(1.0, 1.0, 1.0))(image, weight=weight))
    assert torch.equal(Concat(parts=parts[:1])(image), Intensity()(image))


def test_weights_act_on_squared_differences() -> None:
    parts: tuple[Features, ...] = (Intensity(), MindSSC(), Precomputed())
    weights = (0.25, 3.0, 0.0)
    fixed, moving = _image(seed=1), _image(seed=2)

    def difference(features: Features) -> torch.Tensor:
        return (features(fixed) - features(moving)).double().square().sum(0)

    expected = sum((w * difference(part) for w, part in zip(weights, parts, strict=True)), torch.zeros(SHAPE))
    found = difference(Concat(parts=parts, weights=weights))
    # Each feature, of at most 1, is scaled with one rounding by a root of one rounding: an eps of at most 2 in each of
    # 13 differences, doubled by the square of a difference that is at most 2.
    torch.testing.assert_close(found, expected, rtol=0, atol=13 * 2 * 2 * 2 * 2**-23)
    assert not Concat(parts=parts, weights=weights)(fixed)[13:].any()


def test_the_farthest_part_says_how_far_all_look() -> None:
    assert Concat(parts=(Intensity(), _mean)).receptive_radius == 0
    assert Concat(parts=(Intensity(), MindSSC(), MindSSC(radius=3, dilation=1))).receptive_radius == 4
    nested = Concat(parts=(Concat(parts=(MindSSC(), _Wide())), MindSSC()))
    assert nested.receptive_radius == 7
    assert receptive_radius(nested) == 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"parts": ()}, "at least one"),
        ({"parts": (MindSSC(),), "weights": ()}, "weights must be a tuple of 1 numbers"),
        ({"parts": (MindSSC(),), "weights": (1.0, 2.0)}, "one weight"),
        ({"parts": (MindSSC(), Intensity()), "weights": (1.0,)}, "one weight"),
        ({"parts": (MindSSC(), Intensity()), "weights": (1.0, -0.5)}, "each of weights"),
        ({"parts": (MindSSC(),), "weights": (float("nan"),)}, "each of weights"),
        ({"parts": (MindSSC(),), "weights": (float("inf"),)}, "each of weights"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        Concat(**setting)


# The protocol -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_are_features(component: Features) -> None:
    assert isinstance(component, Features)
    found = component(_image(), weight=oracles.uniform(*SHAPE).float())
    assert found.dtype == torch.float32
    assert found.shape[1:] == SHAPE
    assert bool(found.isfinite().all())
    assert hash(component) == hash(component)  # values: the same settings are the same component


def test_who_says_how_far_a_description_looks() -> None:
    local: list[Features] = [MindSSC(), Concat(parts=(Intensity(),)), _Wide()]
    assert all(isinstance(f, LocalFeatures) for f in local)
    others: list[Features] = [Intensity(), Precomputed(), _mean]
    assert all(isinstance(f, Features) and not isinstance(f, LocalFeatures) for f in others)


def test_reach() -> None:
    assert receptive_radius(MindSSC(radius=2, dilation=3)) == 5
    assert receptive_radius(_Wide()) == 7
    assert [receptive_radius(f) for f in (_mean, Intensity(), Precomputed())] == [0, 0, 0]
