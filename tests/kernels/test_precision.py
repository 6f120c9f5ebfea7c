"""Results have all digits of float32, whatever the program around has switched on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import oracles
import pytest
import torch
from torch.overrides import TorchFunctionMode

from convexadam import ConvexSearch, DisplacementField, Grid, Image, Refinement, RegistrationConfig, register
from convexadam.continuous import Compositional, Level, LevenbergMarquardt, StationaryVelocity
from convexadam.kernels import use_backend
from convexadam.kernels._precision import full_precision

SHAPE = (15, 18, 13)


@pytest.fixture(autouse=True)
def settings_come_back() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    assert not torch.is_autocast_enabled("cpu")
    torch.set_float32_matmul_precision(before)


class _Products(TorchFunctionMode):
    """Notes the precision that each matrix product is made with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "matmul" in getattr(func, "__name__", ""):
            self.seen.add(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


def _smooth(channels: int, seed: int) -> torch.Tensor:
    positions = oracles.indices(SHAPE)
    return torch.from_numpy(oracles.blobs(positions + 0.7 * seed, SHAPE, channels=channels, sigma=2.5)).float()


def _images() -> tuple[Image, Image]:
    grid = Grid(SHAPE, oracles.oblique_affine())
    return Image(_smooth(1, 0), grid), Image(_smooth(1, 1), grid)


def _registered() -> torch.Tensor:
    config = RegistrationConfig(
        discrete=ConvexSearch(spacing=3, radius=2),
        continuous=Refinement(levels=(Level(iterations=5),), parametrisation=Compositional()),
    )
    return register(*_images(), config).transform.disp_mm


def _searched() -> torch.Tensor:
    return ConvexSearch(spacing=3, radius=2)(_smooth(3, 0), _smooth(3, 1))


def _refined() -> torch.Tensor:
    return Refinement(levels=(Level(iterations=5),))(_smooth(3, 0), _smooth(3, 1))


def _searched_on_cells() -> torch.Tensor:
    forward, backward = ConvexSearch().on_cells(_smooth(3, 0), _smooth(3, 1), (1, 2, 1))
    assert backward is not None
    return torch.stack([forward, backward])


def _searched_again() -> torch.Tensor:
    start = 0.3 * _smooth(3, 2), None
    return ConvexSearch(inverse_consistency=0).on_cells(_smooth(3, 0), _smooth(3, 1), (1, 2, 1), start=start)[0]


def _refined_on_nodes() -> torch.Tensor:
    return Refinement(levels=(Level(iterations=5),)).on_nodes(_smooth(3, 0), _smooth(3, 1))


def _refined_by_second_order() -> torch.Tensor:
    refinement = Refinement(
        levels=(Level(iterations=5),), optimiser=LevenbergMarquardt(), parametrisation=StationaryVelocity()
    )
    return refinement(_smooth(3, 0), _smooth(3, 1))


def _in_voxels() -> torch.Tensor:
    field = oracles.noise(3, *SHAPE, dtype=torch.float32)
    return DisplacementField(field, Grid(SHAPE, oracles.oblique_affine())).to_voxels()


JOBS = [
    *(_registered, _searched, _searched_on_cells, _searched_again),
    *(_refined, _refined_on_nodes, _refined_by_second_order, _in_voxels),
]


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("job", JOBS)
def test_autocast_changes_nothing(job: Callable[[], torch.Tensor], backend: Any) -> None:
    with use_backend(backend):
        expected = job()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = job()
            assert torch.is_autocast_enabled("cpu")
    assert found.dtype == expected.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("precision", ["medium", "high"])
@pytest.mark.parametrize("job", JOBS)
def test_shortened_products_change_nothing(job: Callable[[], torch.Tensor], precision: str, backend: Any) -> None:
    with use_backend(backend):
        expected = job()
        torch.set_float32_matmul_precision(precision)
        products = _Products()
        with products:
            found = job()
    assert torch.get_float32_matmul_precision() == precision
    assert torch.equal(found, expected)
    # Not every machine has such products: there the results are equal in any case.
    assert products.seen <= {"highest"}
    assert products.seen or backend == "auto"  # kernels leave some of them without any product


def _failing(_: Image, *, weight: torch.Tensor | None = None) -> torch.Tensor:
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.is_autocast_enabled("cpu")
    raise KeyError("features")


def test_settings_come_back_after_an_exception() -> None:
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(KeyError, match="features"):
            register(*_images(), RegistrationConfig(features=_failing))
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"


def _seen() -> tuple[bool, str]:
    return torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()


@pytest.mark.parametrize("around", [lambda: torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_within_and_without(around: Callable[[], AbstractContextManager[Any]], precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    with around():
        before = _seen()
        assert full_precision(_seen)() == (False, "highest")
        assert full_precision(full_precision(_seen))() == (False, "highest")
        assert _seen() == before
    assert _seen() == (False, precision)


def test_keeps_name_and_arguments() -> None:
    @full_precision
    def joined(a: str, *, b: str) -> str:
        """Join."""
        return a + b

    assert joined("a", b="b") == "ab"
    assert joined.__name__ == "joined"
    assert joined.__doc__ == "Join."
