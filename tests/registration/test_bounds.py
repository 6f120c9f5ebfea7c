"""Work is bounded before it begins: extreme settings and inputs end at once, with a result or an error of ours."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convexadam
from convexadam import (
    Affine,
    Concat,
    ConvexAdamError,
    ConvexSearch,
    Grid,
    Image,
    IsotropicGrid,
    MindSSC,
    RegistrationConfig,
    compose,
    estimate_memory,
    preset,
    register,
)
from convexadam.continuous import BoxSmoothing, GaussianSmoothing, KovesiSmoothing, Level, Lncc, Refinement
from convexadam.geometry import resample
from convexadam.kernels.window import Window
from convexadam.metrics import common_labels, dice, evaluate_transform, folded_percent, hd95, sdlogj, tail_mean, tre

FAST = RegistrationConfig(
    linear=None, discrete=ConvexSearch(spacing=4, radius=1), continuous=Refinement(levels=(Level(iterations=1),))
)
LIMIT_S = 30.0
"""On a busy machine; without a bound these take minutes to years."""


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < LIMIT_S


def volume() -> torch.Tensor:
    values = np.random.default_rng(0).normal(size=(20, 18, 16)).astype(np.float32)
    return torch.nn.functional.avg_pool3d(torch.from_numpy(values)[None, None], 3, 1, 1)[0, 0]


def long_voxels(ratio: float) -> np.ndarray:
    return np.diag([1.0, 1.0, ratio, 1.0])


def nest(depth: int, width: int = 1) -> Any:
    features: Any = MindSSC()
    for _ in range(depth):
        features = Concat(parts=(features,) * width)
    return features


SETTINGS: dict[str, Callable[[], Any]] = {
    "iterations": lambda: Level(iterations=10**9),
    "inverse_consistency": lambda: ConvexSearch(inverse_consistency=10**9),
    "coupling_weights": lambda: ConvexSearch(coupling_weights=(0.1,) * 10**6),
    "passes": lambda: BoxSmoothing(passes=10**9),
    "width": lambda: BoxSmoothing(width=10**9 + 1),
    "width and passes": lambda: BoxSmoothing(width=201, passes=100),
    "sigma": lambda: GaussianSmoothing(sigma=1e300),
    "sigma of Kovesi": lambda: KovesiSmoothing(sigma=1e12),
    "radius of Lncc": lambda: Lncc(radius=10**9),
    "radius of MindSSC": lambda: MindSSC(radius=10_000),
    "dilation": lambda: MindSSC(dilation=10**9),
    "levels": lambda: RegistrationConfig(continuous=Refinement(levels=(Level(),) * 10**5)),
    "searches": lambda: RegistrationConfig(discrete=(ConvexSearch(),) * 10**5),
    "parts": lambda: nest(50, width=2),
    "depth": lambda: nest(500),
    "an integer beyond float64": lambda: IsotropicGrid(spacing_mm=10**400),
    "voxels": lambda: Grid((10**30, 1, 1)),
    "a name": lambda: preset(3),  # type: ignore[arg-type]
    "a list of names": lambda: preset(["a"]),  # type: ignore[arg-type]
    "deep TOML": lambda: RegistrationConfig.from_toml("schema_version = 4\na = " + "[" * 10**5),
    "nested tables": lambda: RegistrationConfig.from_toml(
        "schema_version = 4\nfeatures = " + "{type='Concat', parts=[" * 300 + "{type='MindSSC'}" + "]}" * 300
    ),
    "long integer": lambda: RegistrationConfig.from_toml("schema_version = 4\nsymmetric = " + "9" * 10**4),
    "huge TOML": lambda: RegistrationConfig.from_toml("#" * 10**7),
    "no text": lambda: RegistrationConfig().with_settings(3),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    with pytest.raises(ConvexAdamError, match=r"\bmust\b"):
        SETTINGS[name]()


POINTS = np.random.default_rng(1).uniform(3, 14, (100_000, 3))

REFUSED: dict[str, Callable[[], Any]] = {
    "long voxels": lambda: register(volume(), volume(), fixed_affine=long_voxels(1e5), moving_affine=long_voxels(1e5)),
    "a long moving image": lambda: register(volume(), volume(), moving_affine=long_voxels(1e5)),
    "shear": lambda: register(volume(), volume(), fixed_affine=np.eye(4) + 1e5 * np.eye(4, k=1) * [0, 1, 0, 0]),
    "a coarse grid": lambda: register(volume(), volume(), RegistrationConfig(grid=IsotropicGrid(spacing_mm=1e9))),
    "a fine grid": lambda: register(volume(), volume(), RegistrationConfig(grid=IsotropicGrid(spacing_mm=1e-9))),
    "many landmarks": lambda: register(volume(), volume(), FAST, fixed_landmarks=POINTS, moving_landmarks=POINTS),
    "complex landmarks": lambda: register(
        volume(), volume(), FAST, fixed_landmarks=POINTS[:3] + 1j, moving_landmarks=POINTS[:3]
    ),
    "progress": lambda: register(volume(), volume(), progress=1),  # type: ignore[arg-type]
    "sparse": lambda: register(volume().to_sparse(), volume()),
    "meta": lambda: register(torch.empty(4, 4, 4, device="meta"), volume()),
    "float8": lambda: register(volume().to(torch.float8_e4m3fn), volume()),
    "a sparse mask": lambda: register(volume(), volume(), FAST, fixed_mask=(volume() > 0).to_sparse()),
    "features of one argument": lambda: RegistrationConfig(features=lambda image: image.data),  # type: ignore[arg-type]
    "features of two images": lambda: RegistrationConfig(features=lambda a, b, weight=None: a.data),  # type: ignore[arg-type]
    "features that fail": lambda: register(
        volume(), volume(), RegistrationConfig(linear=None, features=lambda image, *, weight=None: 1 / 0)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_inputs(name: str) -> None:
    with pytest.raises(ConvexAdamError, match=r"\bmust\b"):
        REFUSED[name]()


def test_equal_landmarks_are_one_of_their_weight() -> None:
    fixed = np.array([[5.0, 6, 7], [12, 9, 8]])
    moving = fixed + np.array([[1, 0, 0.5], [0, 1, 0]])
    one = register(
        volume(), volume(), FAST, fixed_landmarks=fixed, moving_landmarks=moving, landmark_weights=[1000.0, 1.0]
    )
    rows = [0] * 1000 + [1]
    many = register(volume(), volume(), FAST, fixed_landmarks=fixed[rows], moving_landmarks=moving[rows])
    assert torch.equal(one.transform.disp_mm, many.transform.disp_mm)
    assert many.diagnostics["landmarks_used"] == 1001


def test_nested_features_are_those_inside() -> None:
    expected = register(volume(), volume().roll(1, 0), FAST).transform.disp_mm
    config = RegistrationConfig(**{**vars(FAST), "features": nest(50)})
    assert torch.equal(register(volume(), volume().roll(1, 0), config).transform.disp_mm, expected)


def test_a_pipe_is_no_settings_file(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "settings.toml")
    with pytest.raises(ConvexAdamError, match="must be a file with settings in TOML, got a pipe"):
        RegistrationConfig.load(tmp_path / "settings.toml")


@pytest.mark.parametrize("radius", [(0, 0, 0), (1, 0, 2), (3, 2, 1), (5, 5, 5), (7, 4, 9)])
@pytest.mark.parametrize("ball", [False, True])
def test_the_number_of_displacements(radius: tuple[int, int, int], ball: bool) -> None:
    assert Window(radius, ball=ball).count == len(Window(radius, ball=ball).steps)


def test_a_mask_of_a_lesion() -> None:
    mask = torch.zeros(20, 18, 16)
    mask[8:12, 8:12, 6:10] = 1
    with pytest.warns(UserWarning, match=r"fixed_mask covers 1\.1 % of the fixed image.*pass its complement"):
        register(volume(), volume(), FAST, fixed_mask=mask)
    register(volume(), volume(), FAST, fixed_mask=1 - mask)


def test_a_voxel_that_is_nan_stays_one() -> None:
    values = volume()
    values[3, 4, 5] = torch.nan
    grid = Grid((30, 28, 26), np.array([[1.0, 0, 0, -4], [0, 1, 0, -4], [0, 0, 1, -4], [0, 0, 0, 1]]))
    found = resample(Image.from_array(values), grid).data[0]
    assert 1 <= int(found.isnan().sum()) <= 8  # and the voxels that it has a weight of 0 for
    assert bool(found[7, 8, 9].isnan())
    assert float(found[0, 0, 0]) == float(values[~values.isnan()].min())


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_values_beyond_float32(scale: float) -> None:
    pair = [volume().double(), volume().double().roll(1, 0)]
    expected = register(*pair).transform.disp_mm
    result = register(*(scale * v for v in pair))
    assert result.linear is not None
    assert np.isfinite(result.linear.dissimilarity_after)
    assert all(np.isfinite(value) for value in result.diagnostics.values())
    assert (result.transform.disp_mm - expected).abs().max() < 0.05


OFFSETS = {
    "float64": lambda v: 1e9 + v.double() / 2**10,
    "int32": lambda v: v.int() + 1_500_000_000,
    "int64": lambda v: v.long() + 10**15,
}


@pytest.mark.parametrize("settings", [FAST, preset("rigid")], ids=["mask", "rigid"])
@pytest.mark.parametrize("kind", OFFSETS)
def test_an_offset_hides_no_contrast(kind: str, settings: RegistrationConfig) -> None:
    """The witness has no offset; float32 would hold one to three values of each image."""
    pair = [(20 * v).round() for v in (volume(), volume().roll(1, 0))]
    masks = dict.fromkeys(("fixed_mask", "moving_mask"), torch.ones(pair[0].shape, dtype=torch.uint8))
    masks["fixed_mask"][:3] = 0
    expected, found = (register(*images, settings, **masks) for images in (pair, [OFFSETS[kind](v) for v in pair]))
    points = pair[0].nonzero()[::50].double()
    assert (expected.transform(points) - points).norm(dim=1).max() > 0.3
    torch.testing.assert_close(found.transform(points), expected.transform(points), rtol=0, atol=0.01)


def test_contrast_that_float32_has_lost() -> None:
    fixed, moving = volume(), volume().roll(1, 0)
    with pytest.warns(UserWarning, match=r"^the fixed image has values from 9999999 to .* distinguishes 2;.*offset"):
        register(1e7 + fixed, moving, FAST)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**30), 2**63, 0]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just(object()),
    st.just({}),
    st.lists(st.floats(), max_size=4),
    st.lists(st.lists(st.integers(-3, 3), max_size=4), max_size=4),
    st.sampled_from([int, Image, len]),
    st.sampled_from([np.zeros((4, 4, 4)), np.zeros((2, 3)), np.array("a"), np.array([object()]), np.zeros(0)]),
    st.sampled_from(
        [
            torch.zeros(4, 4, 4),
            torch.zeros(3, 3, dtype=torch.complex64),
            torch.zeros(4, 4, 4).to_sparse(),
            torch.empty(4, 4, 4, device="meta"),
            torch.zeros(3, 4, 4, 4),
            torch.zeros(()),
        ]
    ),
    st.just(Grid((4, 4, 4))),
    st.just(Image(torch.zeros(1, 4, 4, 4, dtype=torch.int16), Grid((4, 4, 4)))),
    st.just(Affine()),
)
FIELD = convexadam.DisplacementField(torch.zeros(3, 4, 4, 4), Grid((4, 4, 4)))
PUBLIC: dict[str, Callable[..., Any]] = {
    "register": lambda a, b: register(a, torch.zeros(4, 4, 4), FAST, fixed_mask=b),
    "register landmarks": lambda a, b: register(
        torch.zeros(4, 4, 4), torch.zeros(4, 4, 4), FAST, fixed_landmarks=a, moving_landmarks=b
    ),
    "register device": lambda a, b: register(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4), FAST, device=a, progress=b),
    "register initial": lambda a, b: register(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4), a, initial_transform=b),
    "as_image": convexadam.as_image,
    "Image": convexadam.Image,
    "from_array": Image.from_array,
    "Grid": convexadam.Grid,
    "pool": lambda a, b: (Grid((4, 4, 4)).pool(a), Grid((4, 4, 4)).with_spacing(b)),
    "index_to_world": lambda a, b: (Grid((4, 4, 4)).index_to_world(a), Grid((4, 4, 4)).world_to_index(b)),
    "Affine": lambda a, b: (Affine(a), Affine()(b)),
    "compose": compose,
    "DisplacementField": convexadam.DisplacementField,
    "warp": FIELD.warp,
    "warp mode": lambda a, b: FIELD.warp(Image(torch.zeros(1, 4, 4, 4), FIELD.grid), mode=a, fill_value=b),
    "warp_points": lambda a, b: FIELD.warp_points(a, space=b),
    "inverse": lambda a, b: (FIELD.inverse(a), FIELD.jacobian(b)),
    "resample": resample,
    "estimate_memory": lambda a, b: estimate_memory((4, 4, 4), a, spacing_mm=b),
    "estimate_memory shape": lambda a, b: estimate_memory(a, channels=b),
    "preset": lambda a, _: preset(a),
    "use_backend": lambda a, _: convexadam.use_backend(a).__enter__(),
    "from_toml": lambda a, b: (RegistrationConfig.from_toml(a), RegistrationConfig().with_settings(b)),
    "RegistrationConfig": lambda a, b: RegistrationConfig(grid=a, features=b),
    "RegistrationConfig stages": lambda a, b: RegistrationConfig(discrete=a, continuous=b),
    "ConvexSearch": lambda a, b: ConvexSearch(spacing=a, radius=b),
    "ConvexSearch coupling": lambda a, b: ConvexSearch(window=a, coupling_weights=b),
    "Refinement": lambda a, b: Refinement(levels=a, similarity=b),
    "Concat": lambda a, b: Concat(parts=a, weights=b),
    "MindSSC": lambda a, b: MindSSC(radius=a, dilation=b),
    "IsotropicGrid": lambda a, b: IsotropicGrid(spacing_mm=a, max_voxels=b)(Grid((4, 4, 4))),
    "dice": dice,
    "common_labels": common_labels,
    "hd95": lambda a, b: hd95(a, a, spacing_mm=b),
    "tre": tre,
    "evaluate_transform": lambda a, b: evaluate_transform(a, fixed_labels=b, moving_labels=b),
    "folding": lambda a, b: (folded_percent(a, b), sdlogj(a)),
    "tail_mean": lambda a, _: tail_mean([1.0], a, highest=True),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", PUBLIC)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(first=ANYTHING, second=ANYTHING)
def test_public_functions_answer_or_refuse(name: str, first: Any, second: Any) -> None:
    try:
        PUBLIC[name](first, second)
    except ConvexAdamError as error:
        assert len(str(error)) < 2000
