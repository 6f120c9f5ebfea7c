"""Squared differences of parts of the channels: scales, local windows, and what they stand for."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from scipy import ndimage

from convexadam.continuous import JointSsd, Part, Ssd
from convexadam.errors import ConfigError, InputError
from convexadam.kernels.local_normalisation import normalise_locally

SHAPE = (7, 9, 8)
NO_WEIGHTS = (None, None)


def _maps(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(channels, *SHAPE), oracles.noise(channels, *SHAPE, seed=1)


def _field() -> torch.Tensor:
    return oracles.uniform(3, *SHAPE, seed=4, low=0.1, high=0.4)


def _slope(channel: np.ndarray) -> float:
    return sum(float((np.diff(channel, axis=a) ** 2).sum()) for a in range(3)) / channel.size


def test_one_part_is_a_multiple_of_squared_differences() -> None:
    fixed, moving = _maps(3)
    scale = 1 / sum(_slope(c.double().numpy()) for f in (fixed, moving) for c in f[1:])
    expected = Ssd().prepare(fixed[1:], moving[1:], _field(), NO_WEIGHTS)(_field())
    value, gradient = JointSsd(parts=(Part(channels=2, first=1),)).prepare(fixed, moving, _field(), NO_WEIGHTS)(
        _field()
    )
    torch.testing.assert_close(value, scale * expected[0])
    torch.testing.assert_close(gradient, scale * expected[1])


def test_weights_do_not_depend_on_the_units_of_the_channels() -> None:
    fixed, moving = _maps(2)
    similarity = JointSsd(parts=(Part(channels=1), Part(channels=1, first=1, weight=2.0)), robust_scale=1.0)
    units = torch.tensor([1.0, 1000.0]).reshape(2, 1, 1, 1)
    one, other = (similarity.prepare(fixed * u, moving * u, _field(), NO_WEIGHTS)(_field()) for u in (1.0, units))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_local_windows_agree_with_scipy() -> None:
    channel = _maps(1)[0][0].double().numpy()
    values = (channel - channel.mean()) / channel.std()
    known = ndimage.uniform_filter(np.ones(SHAPE), 5, mode="constant")
    mean = ndimage.uniform_filter(values, 5, mode="constant") / known
    variance = ndimage.uniform_filter(values**2, 5, mode="constant") / known - mean**2
    expected = (values - mean) / np.sqrt(variance + 1e-3)
    found = normalise_locally(torch.from_numpy(channel[None]).float(), radius=2, floor=1e-3)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_brightness_and_contrast_that_vary_slowly_do_not_matter_in_local_windows() -> None:
    fixed = oracles.noise(1, 16, 16, 16)
    ramp = torch.linspace(0, 1, 16).reshape(1, 1, 1, 16).expand_as(fixed)
    moving = fixed * (1 + ramp) + 3 * ramp
    still = torch.zeros(3, 16, 16, 16)
    local, plain = (
        JointSsd(parts=(Part(channels=1, radius=radius),)).prepare(fixed, moving, still, NO_WEIGHTS)(still)[0]
        for radius in (2, None)
    )
    assert local < 0.05 * plain


def test_points_without_weight_do_not_enter_a_window() -> None:
    channel = _maps(1)[0]
    weight = torch.ones(SHAPE)
    weight[:, :, 5:] = 0
    spoiled = torch.where(weight > 0, channel, 1e3)
    one, other = (normalise_locally(c, radius=1, floor=1e-3, weight=weight)[0] for c in (channel, spoiled))
    torch.testing.assert_close(one[:, :, :5], other[:, :, :5], rtol=1e-3, atol=1e-4)


def test_what_has_no_weight_does_not_enter_the_scale_of_a_part() -> None:
    maps = _maps(2)
    weight = torch.ones(SHAPE)
    weight[:, :, 5:] = 0
    still, parts = torch.zeros(3, *SHAPE), (Part(channels=1), Part(channels=1, first=1, radius=1))

    def evaluate(padding: float) -> torch.Tensor:
        fixed, moving = (torch.where(weight > 0, m, padding) for m in maps)
        return JointSsd(parts=parts).prepare(fixed, moving, still, (weight, weight))(still)[0]

    torch.testing.assert_close(evaluate(0.0), evaluate(50.0), rtol=1e-4, atol=0)


def test_a_weight_by_distance_grows_with_its_fifth_power_along_a_ramp() -> None:
    ramp = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 9, 8).contiguous()
    fixed, moving = torch.cat([ramp, ramp.square()]), torch.cat([ramp + 1.5, ramp.square()])  # 1.5 points apart
    still = torch.zeros(3, 12, 9, 8)

    def evaluate(by_distance: bool) -> float:
        part = Part(channels=1, weight=2.0, by_distance=by_distance)
        return float(JointSsd(parts=(part,)).prepare(fixed, moving, still, NO_WEIGHTS)(still)[0])

    slopes = 2 * 11 / 12  # of both images, one per point but for the last
    assert evaluate(False) == pytest.approx(2 * 1.5**2 / slopes, rel=1e-5)
    assert evaluate(True) == pytest.approx(evaluate(False) * (1.5**2 / slopes) ** 2.5, rel=1e-5)


def test_constant_channels_have_no_influence() -> None:
    fixed, moving = _maps(1)
    constant = torch.ones_like(fixed)
    parts = Part(channels=1), Part(channels=1, first=1, radius=1)
    both = JointSsd(parts=parts).prepare(
        torch.cat([fixed, constant]), torch.cat([moving, constant]), _field(), NO_WEIGHTS
    )
    alone = JointSsd(parts=parts[:1]).prepare(fixed, moving, _field(), NO_WEIGHTS)
    torch.testing.assert_close(both(_field()), alone(_field()))


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(InputError, match="features must have at least 4 channels for the parts of the JointSsd, got 3"):
        JointSsd(parts=(Part(channels=2, first=2),)).prepare(*_maps(3), _field(), NO_WEIGHTS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JointSsd(parts=()), "parts must be a tuple of at least one Part"),
        (lambda: JointSsd(parts=(Part(channels=1),), robust_scale=0.0), "robust_scale must be a finite number above 0"),
        (lambda: Part(channels=0), "channels must be a whole number from 1"),
        (lambda: Part(channels=1, first=-1), "first must be a whole number from 0"),
        (lambda: Part(channels=1, weight=0.0), "weight must be a finite number above 0"),
        (lambda: Part(channels=1, radius=0), "radius must be a whole number from 1"),
        (lambda: Part(channels=1, variance_floor=0.0), "variance_floor must be a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_packed_maps_are_16_bits_and_as_good() -> None:
    fixed, moving = (m.float() for m in _maps(3))
    weights, u = (torch.ones(SHAPE), torch.ones(SHAPE)), _field().float()
    parts = Part(channels=1, by_distance=True), Part(channels=1, radius=2), Part(channels=2, first=1, radius=2)
    similarity = JointSsd(parts=parts, robust_scale=3.0)
    exact = similarity.prepare(fixed, moving, u, weights)(u)
    compared, packed = similarity.pack([fixed, moving], u, weights)
    assert all(p.rows.dtype == torch.int16 and p.rows.shape == (*SHAPE, 16) and p.channels == 4 for p in packed)
    assert packed[0].scale is packed[1].scale
    value, gradient = compared.prepare(*packed, u, weights)(u)
    # a step of the widest range is 3e-4 standard deviations, that of the intensities 2e-4 of their range
    torch.testing.assert_close(value, exact[0], rtol=2e-4, atol=0)
    torch.testing.assert_close(gradient, exact[1], rtol=2e-3, atol=2e-4 * float(exact[1].abs().max()))


@pytest.mark.parametrize("channels", [1, 2])
def test_too_few_channels_or_maps_are_refused_when_packed(channels: int) -> None:
    similarity, maps = JointSsd(parts=(Part(channels=1, first=2),)), [m.float() for m in _maps(channels)]
    with pytest.raises(InputError, match="at least 3 channels"):
        similarity.pack(list(maps), _field().float(), NO_WEIGHTS)
    with pytest.raises(InputError, match="must be those of the fixed and of the moving image, got 1"):
        similarity.pack(maps[:1], _field().float(), NO_WEIGHTS)


def test_a_constant_channel_can_be_packed() -> None:
    maps = [torch.cat([m.float(), torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)]) for m in _maps(1)]
    parts = tuple(Part(channels=1, first=n, radius=r) for n in range(3) for r in (None, 1))
    similarity, u = JointSsd(parts=parts), _field().float()
    compared, packed = similarity.pack(maps, u, NO_WEIGHTS)
    assert compared.prepare(*packed, u, NO_WEIGHTS)(u)[0].isfinite()
