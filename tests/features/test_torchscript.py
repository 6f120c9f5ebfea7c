"""Extractors that were exported as TorchScript."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam import Concat, ConfigError, FileError, Image, MindSSC, RegistrationConfig, register
from convexadam.data import phantom_pair
from convexadam.features import (
    LocalFeatures,
    PooledFeatures,
    TorchScriptFeatures,
    extract_features,
    receptive_radius,
    torchscript,
)
from convexadam.geometry import Grid
from convexadam.kernels.resize import pool

EPS = 2.0**-23


class Identity(torch.nn.Module):
    """Shows what an extractor sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Convolutions(torch.nn.Module):
    """Looks three voxels far, one layer after the other, with zeros beyond the edge."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = torch.nn.Conv3d(channels, 4, 5, padding=2)
        self.second = torch.nn.Conv3d(4, 3, 3, padding=1)
        for layer in (self.first, self.second):
            with torch.no_grad():
                layer.weight.normal_(0, layer.weight[0].numel() ** -0.5, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def saved(module: torch.nn.Module, path: Path, channels: int = 1) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
        torch.jit.trace(module.eval(), torch.rand(1, channels, 8, 8, 8)).save(path)
    return str(path)


def noise(*shape: int, seed: int = 0) -> Image:
    return Image(oracles.noise(*shape, seed=seed).float(), Grid((shape[1], shape[2], shape[3])))


@pytest.fixture
def convolutions(tmp_path: Path) -> str:
    return saved(Convolutions(), tmp_path / "convolutions.pt")


def test_it_is_what_the_module_gives(convolutions: str) -> None:
    image = noise(1, 9, 12, 7)
    expected = Convolutions()(image.data[None])[0].detach()
    found = TorchScriptFeatures(path=convolutions, normalise="none", scale=0.5)(image)
    # Sums of 125 + 108 products, whose terms have a size of at most a few units.
    torch.testing.assert_close(found, 0.5 * expected, rtol=0, atol=4 * 233 * EPS)
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize(("patch", "overlap"), [(20, 12), ((20, 14, 17), 13), (24, 14)])
def test_patches_give_what_the_whole_gives(convolutions: str, patch: Any, overlap: int) -> None:
    image = noise(1, 37, 29, 17)  # the last axis holds a patch of 17, and is smaller than others
    settings: dict[str, Any] = {"path": convolutions, "normalise": "none"}
    whole = TorchScriptFeatures(**settings)(image)
    found = TorchScriptFeatures(**settings, patch=patch, overlap=overlap)(image)
    inside = (slice(None), slice(None), slice(None), slice(0, 14))  # beyond, edge values went on instead of zeros
    # As above, twice; weights that sum up to 1 within a few roundings.
    torch.testing.assert_close(found[inside], whole[inside], rtol=0, atol=8 * 233 * EPS)
    pieces = TorchScriptFeatures(**settings, patch=patch, overlap=0)(image)
    assert (pieces[inside] - whole[inside]).abs().max() > 0.01  # so that seams would show


def test_reach_is_thrown_away_as_well(convolutions: str) -> None:
    image = noise(1, 37, 20, 20)
    settings: dict[str, Any] = {"path": convolutions, "normalise": "none", "patch": 20, "overlap": 7}
    whole = TorchScriptFeatures(path=convolutions, normalise="none")(image)
    told = TorchScriptFeatures(**settings, receptive_radius=3)
    torch.testing.assert_close(told(image), whole, rtol=0, atol=8 * 233 * EPS)
    untold = TorchScriptFeatures(**settings)  # a quarter of the overlap is one voxel
    assert (untold(image) - whole).abs().max() > 1e-3
    assert receptive_radius(told) == 3
    assert receptive_radius(untold) == 0


def test_what_patches_see_sums_up_to_the_image(tmp_path: Path) -> None:
    image = noise(2, 23, 11, 16)
    path = saved(Identity(), tmp_path / "identity.pt", 2)
    for patch, overlap in ((7, 3), ((8, 5, 16), 4), (12, 0), (40, 9), (None, 16), (6, 5)):
        found = TorchScriptFeatures(path=path, normalise="none", patch=patch, overlap=overlap)(image)
        # Of patches of 6 that overlap by 5, up to 6^3 meet in a voxel: positive weights, each rounded, and their sum.
        torch.testing.assert_close(found, image.data, rtol=(6**3 + 2) * EPS, atol=0)


@pytest.mark.parametrize("patch", [None, 11, (20, 9, 13)])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooling_as_it_goes(convolutions: str, patch: Any, weighted: bool) -> None:
    image = noise(1, 26, 19, 23)
    weight = None
    if weighted:
        weight = oracles.uniform(26, 19, 23, seed=3).float()
        weight[:6, :6, :7] = 0
    features = TorchScriptFeatures(path=convolutions, patch=patch, overlap=8, receptive_radius=3)
    assert isinstance(features, PooledFeatures)
    assert isinstance(features, LocalFeatures)
    spacings = ((1, 1, 1), (2, 2, 2), (4, 3, 5), (26, 19, 23))
    whole = features(image, weight=weight)
    assert whole.shape == (3, 26, 19, 23)
    for spacing, found in zip(spacings, extract_features(features, image, spacings, weight=weight), strict=True):
        expected = pool(whole, spacing, weight=weight)
        largest = float(whole.abs().max())
        n = float(np.prod(spacing))
        torch.testing.assert_close(found, expected, rtol=0, atol=(16 + 4 * n**0.5) * EPS * largest)
    if weighted:
        assert not extract_features(features, image, ((6, 6, 7),), weight=weight)[0][:, 0, 0, 0].any()


def test_no_patch_is_larger_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x

    monkeypatch.setattr(torchscript, "_load", lambda file, device: watched)
    path = tmp_path / "any.pt"
    path.touch()
    image = noise(1, 40, 9, 12)
    turned = Image(image.data, Grid((40, 9, 12), oracles.oblique_affine(axes=(2, 0, 1), flips=(True, False, True))))
    TorchScriptFeatures(path=str(path), patch=(16, 10, 8), overlap=4)(image)
    assert set(seen) == {(1, 1, 16, 10, 8)}
    seen.clear()
    TorchScriptFeatures(path=str(path), patch=(16, 10, 8), overlap=4, orientation="RAS")(turned)
    assert set(seen) == {(1, 1, 16, 10, 8)}
    seen.clear()
    TorchScriptFeatures(path=str(path))(image)
    assert seen == [(1, 1, 40, 9, 12)]


@pytest.mark.parametrize("patch", [None, (10, 9, 11)])
def test_the_extractor_knows_one_orientation(convolutions: str, patch: Any) -> None:
    """The same voxels in another order give the same maps in that order, exactly but for the sums' order."""
    upright = Grid((21, 18, 15), oracles.oblique_affine(degrees=(10.0, -5.0, 15.0)))
    image = Image(oracles.noise(1, 21, 18, 15).float(), upright)
    features = TorchScriptFeatures(path=convolutions, orientation="RAS", patch=patch, overlap=8, receptive_radius=3)
    expected = features(image)
    torch.testing.assert_close(
        expected,
        TorchScriptFeatures(path=convolutions, patch=patch, overlap=8, receptive_radius=3)(image),
        rtol=0,
        atol=0,
    )
    for axes, flips in (((2, 0, 1), (True, False, True)), ((1, 0, 2), (False, True, False))):
        to_new = [axes[0] + 1, axes[1] + 1, axes[2] + 1]
        backwards = [n + 1 for n, flip in enumerate(flips) if flip]
        step = np.zeros((4, 4))
        step[3, 3] = 1
        for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
            step[old, new] = -1 if flip else 1
            step[old, 3] = upright.shape[old] - 1 if flip else 0
        data = image.data.permute(0, *to_new).flip(backwards)
        other = Image(data.contiguous(), Grid(tuple(data.shape[1:]), upright.affine @ step))
        found = features(other)
        torch.testing.assert_close(found, expected.permute(0, *to_new).flip(backwards), rtol=0, atol=8 * 233 * EPS)
        plain = TorchScriptFeatures(path=convolutions, patch=patch, overlap=8)(other)
        assert (plain - found).abs().max() > 0.01


def test_intensities_before_the_extractor(tmp_path: Path) -> None:
    path = saved(Identity(), tmp_path / "identity.pt", 2)
    image = noise(2, 12, 14, 13)
    image = Image(image.data * torch.tensor([300.0, 2.0])[:, None, None, None] + 1000, image.grid)
    weight = torch.ones(12, 14, 13)
    image.data[:, :4] = 9000
    weight[:4] = 0
    found = TorchScriptFeatures(path=path, normalise="range")(image, weight=weight)
    assert float(found[:, 4:].amin()) == 0
    assert float(found.amax()) == 1
    found = TorchScriptFeatures(path=path, normalise="deviation")(image, weight=weight)[:, 4:].double()
    # Float32 in units of half the range, 4000, in which a deviation of 2 is 5e-4: each value is right to EPS / 5e-4.
    np.testing.assert_allclose(found.mean((1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(found.std((1, 2, 3), correction=0), 1, rtol=1e-3)
    none = TorchScriptFeatures(path=path, normalise="none")(image)
    assert torch.equal(none, image.data)
    flat = Image(torch.full((2, 12, 14, 13), 7), image.grid)
    assert not TorchScriptFeatures(path=path, normalise="deviation")(flat).any()


def test_the_image_is_left_alone(tmp_path: Path) -> None:
    path = saved(Identity(), tmp_path / "identity.pt")
    image = noise(1, 6, 7, 8)
    before = image.data.clone()
    weight = torch.full((6, 7, 8), 0.5)
    TorchScriptFeatures(path=path, normalise="none", scale=3.0).extract_pooled(image, ((1, 1, 1),), weight=weight)
    assert torch.equal(image.data, before)


def test_the_default_device_does_not_matter(convolutions: str) -> None:
    features = TorchScriptFeatures(path=convolutions, patch=14, overlap=8)
    image = noise(1, 20, 18, 22)
    expected = features(image)
    torch.set_default_device("meta")  # whatever strays there cannot come back
    try:
        found = features(image)
        assert torch.equal(found, expected)
    finally:
        torch.set_default_device(None)


# Files --------------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    image = noise(1, 6, 7, 8)
    path = saved(Identity(), tmp_path / "a.pt")
    features = TorchScriptFeatures(path=path)
    assert len(features(image)) == 1
    loaded = torchscript._load.cache_info().misses
    features(image)
    assert TorchScriptFeatures(path=path, scale=2.0)(image) is not None
    assert torchscript._load.cache_info().misses == loaded
    saved(Convolutions(), tmp_path / "a.pt")
    os.utime(path, ns=(1, 1))
    assert len(features(image)) == 3


def test_files_that_are_no_torchscript(tmp_path: Path) -> None:
    image = noise(1, 6, 7, 8)
    torch.save(Convolutions().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no archive")
    whole = Path(saved(Convolutions(), tmp_path / "whole.pt")).read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("weights.pt", "text.pt", "short.pt"):
        with pytest.raises(FileError, match=rf"{name}: it must be a TorchScript file; write it with torch\.jit\.trace"):
            TorchScriptFeatures(path=str(tmp_path / name))(image)
    with zipfile.ZipFile(tmp_path / "damaged.pt", "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version", "code/a.py"):
            archive.writestr(f"damaged/{name}", "no such thing")
    with pytest.raises(FileError, match=r"cannot read .*damaged\.pt as TorchScript: "):
        TorchScriptFeatures(path=str(tmp_path / "damaged.pt"))(image)
    with pytest.raises(FileError, match=r"cannot read .*missing\.pt: No such file"):
        TorchScriptFeatures(path=str(tmp_path / "missing.pt"))(image)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Pickled:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Pickled(), tmp_path / "pickle.pt")
    with pytest.raises(FileError, match="must be a TorchScript file"):
        TorchScriptFeatures(path=str(tmp_path / "pickle.pt"))(noise(1, 6, 7, 8))
    assert not (tmp_path / "ran").exists()


class Answers(torch.nn.Module):
    """Gives what it was made for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        return {
            "smaller": x[..., 1:],
            "flat": x[0, 0],
            "several": (x, x),
            "infinite": x / 0,
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("smaller", r"returns \[1, f, 6, 7, 8\] for \(1, 1, 6, 7, 8\) voxels, got \(1, 1, 6, 7, 7\) from"),
        ("flat", r"got \(6, 7, 8\) from"),
        ("several", "got tuple from"),
        ("infinite", r"features must be finite, got NaN or Inf .*; check that normalise='range' is"),
    ],
)
def test_answers_that_are_no_features(kind: str, message: str, tmp_path: Path) -> None:
    path = saved(Answers(kind), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=message):
        TorchScriptFeatures(path=path)(noise(1, 6, 7, 8))


def test_an_extractor_of_other_channels(convolutions: str) -> None:
    with pytest.raises(
        ConfigError, match=r"accepts \(1, 2, 6, 7, 8\) voxels, got an error from .*convolutions\.pt: .*2 channels"
    ):
        TorchScriptFeatures(path=convolutions)(noise(2, 6, 7, 8))


def test_too_little_memory_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torchscript, "_load", lambda file, device: full)
    (tmp_path / "any.pt").touch()
    with pytest.raises(RuntimeError, match="allocate memory"):
        TorchScriptFeatures(path=str(tmp_path / "any.pt"))(noise(1, 6, 7, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "path must be a non-empty string"),
        ({"path": Path("a.pt")}, r"path must be a non-empty string, got .*str\("),
        ({"patch": 0}, "patch must be a whole number of at least 1"),
        ({"patch": (32, 32)}, "patch must be one size or three"),
        ({"patch": 2.5}, "patch must be a whole number"),
        ({"patch": 16}, r"larger than overlap \(16\), got 16"),
        ({"patch": 16, "overlap": 8, "receptive_radius": 4}, r"more than twice receptive_radius \(4\), got 8"),
        ({"overlap": -1}, "overlap must be a whole number"),
        ({"receptive_radius": 1.5}, "receptive_radius must be a whole number"),
        ({"normalise": "zscore"}, "normalise must be one of 'range', 'deviation', 'none'"),
        ({"orientation": "RAR"}, "orientation must be three letters"),
        ({"orientation": "ras"}, "orientation must be three letters"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        TorchScriptFeatures(**{"path": "a.pt"} | settings)


# In a registration --------------------------------------------------------------------------------------------------


def test_registration_with_an_exported_extractor(convolutions: str) -> None:
    pair = phantom_pair((32, 28, 26), displacement_mm=20, seed=4)
    before = (pair.fixed.data - pair.moving.data).abs().mean()
    features = TorchScriptFeatures(path=convolutions, patch=24, overlap=12, scale=3.0)
    for extractor in (features, Concat(parts=(MindSSC(), features), weights=(0.5, 1.0))):
        config = RegistrationConfig(features=extractor)
        result = register(pair.fixed, pair.moving, config)
        assert (pair.fixed.data - result.moved.data).abs().mean() < 0.8 * before
        assert RegistrationConfig.from_toml(config.to_toml()) == config
        assert hash(extractor) == hash(RegistrationConfig.from_toml(config.to_toml()).features)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(convolutions: str) -> None:
    image = noise(1, 20, 18, 22)
    features = TorchScriptFeatures(path=convolutions, patch=14, overlap=8)
    found = features(image.to("cuda"))
    assert found.is_cuda
    # Convolutions of GPUs may round products to eleven bits of mantissa.
    torch.testing.assert_close(found.cpu(), features(image), rtol=0, atol=0.02)
