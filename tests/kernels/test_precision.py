"""Results have the full precision of float32, for any settings of the calling program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import oracles
import pytest
import torch
from torch.overrides import TorchFunctionMode

from convexadam import (
    ConfigError,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Refinement,
    RegistrationConfig,
    register,
)
from convexadam.continuous import Compositional, Level, LevenbergMarquardt, StationaryVelocity
from convexadam.kernels import use_backend
from convexadam.kernels._precision import full_precision
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward

SHAPE = (15, 18, 13)


@pytest.fixture(autouse=True)
def settings_are_restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    assert not torch.is_autocast_enabled("cpu")
    torch.set_float32_matmul_precision(before)


class _Products(TorchFunctionMode):
    """Records the precision of each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.precisions: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "matmul" in getattr(func, "__name__", ""):
            self.precisions.add(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


def _smooth(channels: int, seed: int) -> torch.Tensor:
    positions = oracles.indices(SHAPE)
    return torch.from_numpy(oracles.blobs(positions + 0.7 * seed, SHAPE, channels=channels, sigma=2.5)).float()


def _images() -> tuple[Image, Image]:
    grid = Grid(SHAPE, oracles.oblique_affine())
    return Image(_smooth(1, 0), grid), Image(_smooth(1, 1), grid)


def _register() -> torch.Tensor:
    config = RegistrationConfig(
        discrete=ConvexSearch(spacing=3, radius=2),
        continuous=Refinement(levels=(Level(iterations=5),), parametrisation=Compositional()),
    )
    return register(*_images(), config).transform.disp_mm


def _search() -> torch.Tensor:
    return ConvexSearch(spacing=3, radius=2)(_smooth(3, 0), _smooth(3, 1))


def _refine() -> torch.Tensor:
    return Refinement(levels=(Level(iterations=5),))(_smooth(3, 0), _smooth(3, 1))


def _level() -> FeatureLevel:
    return FeatureLevel(fixed=_smooth(3, 0), moving=_smooth(3, 1))


def _search_features() -> torch.Tensor:
    found = ConvexSearch().search_features(_level(), (1, 2, 1))
    assert found.backward is not None
    return torch.stack([found.forward, found.backward])


def _search_features_again() -> torch.Tensor:
    start = ForwardBackward(forward=0.3 * _smooth(3, 2))
    return ConvexSearch(inverse_consistency=0).search_features(_level(), (1, 2, 1), start=start).forward


def _refine_level() -> torch.Tensor:
    return Refinement(levels=(Level(iterations=5),)).refine_level(_level())


def _refine_second_order() -> torch.Tensor:
    refinement = Refinement(
        levels=(Level(iterations=5),), optimiser=LevenbergMarquardt(), parametrisation=StationaryVelocity()
    )
    return refinement(_smooth(3, 0), _smooth(3, 1))


def _convert_to_voxels() -> torch.Tensor:
    field = oracles.noise(3, *SHAPE, dtype=torch.float32)
    return DisplacementField(field, Grid(SHAPE, oracles.oblique_affine())).to_voxels()


JOBS = [
    *(_register, _search, _search_features, _search_features_again),
    *(_refine, _refine_level, _refine_second_order, _convert_to_voxels),
]


# Each job restores the settings by itself, whatever the backend; kernels leave torch a part of the work.
CASES: list[tuple[str, Any]] = [
    *(("reference", job) for job in JOBS if job is not _register),  # takes ten seconds without kernels
    ("auto", _register),
    ("auto", _refine_second_order),
]


@pytest.mark.parametrize(("backend", "job"), CASES)
def test_autocast_changes_nothing(job: Callable[[], torch.Tensor], backend: Any) -> None:
    with use_backend(backend):
        expected = job()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = job()
            assert torch.is_autocast_enabled("cpu")
    assert found.dtype == expected.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("backend", "job", "precision"), [(*case, ("medium", "high")[n % 2]) for n, case in enumerate(CASES)]
)
def test_matrix_products_of_lower_precision_change_nothing(
    job: Callable[[], torch.Tensor], precision: str, backend: Any
) -> None:
    with use_backend(backend):
        expected = job()
        torch.set_float32_matmul_precision(precision)
        products = _Products()
        with products:
            found = job()
    assert torch.get_float32_matmul_precision() == precision
    assert torch.equal(found, expected)
    # without hardware for such products the results are equal in any case
    assert products.precisions <= {"highest"}
    assert products.precisions or backend == "auto"  # some jobs have no matrix product with the CPU kernels


def _failing(_: Image, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.is_autocast_enabled("cpu")
    raise KeyError("features")


def test_settings_are_restored_after_an_exception() -> None:
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ConfigError, match=r"KeyError: .features."):
            register(*_images(), RegistrationConfig(features=_failing))
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"


def _get_settings() -> tuple[bool, str]:
    return torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()


@pytest.mark.parametrize("around", [lambda: torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_settings_within_and_around_a_call(around: Callable[[], AbstractContextManager[Any]], precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    with around():
        before = _get_settings()
        assert full_precision(_get_settings)() == (False, "highest")
        assert full_precision(full_precision(_get_settings))() == (False, "highest")
        assert _get_settings() == before
    assert _get_settings() == (False, precision)


def test_the_decorator_keeps_name_and_arguments() -> None:
    @full_precision
    def join(a: str, *, b: str) -> str:
        """Join two strings."""
        return a + b

    assert join("a", b="b") == "ab"
    assert join.__name__ == "join"
    assert join.__doc__ == "Join two strings."


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has no such setting")
@pytest.mark.parametrize("where", ["torch.backends", "torch.backends.cuda.matmul"])
def test_fp32_precision_set_by_the_caller(where: str) -> None:
    # in a process of its own: after this setting torch refuses the older one for good
    program = f"""
import torch
from convexadam.kernels._precision import full_precision
{where}.fp32_precision = "tf32"
products = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
before = [product.fp32_precision for product in products]
found = full_precision(lambda: [product.fp32_precision for product in products])()
assert found == ["ieee", "ieee"], found
assert [product.fp32_precision for product in products] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)
