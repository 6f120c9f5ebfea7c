"""Functions that `torch.compile` compiles and that call the library, which it cannot trace."""

from __future__ import annotations

import pytest
import torch

from convexadam import Image, MindSSC, RegistrationConfig, register
from convexadam.errors import InputError
from convexadam.metrics import dice

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Dynamo about what it cannot trace


@pytest.fixture
def volumes() -> tuple[torch.Tensor, torch.Tensor]:
    one, other = torch.rand(2, 20, 18, 16, generator=torch.Generator().manual_seed(0))
    return one, other


def test_registers_as_without(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    def move(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        scaled = fixed * 2
        return register(scaled, moving, RegistrationConfig(linear=None), progress=False).moved.data + 1

    compiled = torch.compile(backend="eager")(move)
    assert torch.equal(compiled(*volumes), move(*volumes))
    assert torch.equal(compiled(*volumes), move(*volumes))


def test_features_and_metrics_are_as_without(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    def compare(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        overlap = dice((one > 0.5).long(), (other > 0.5).long())
        return MindSSC()(Image.from_array(one)) * overlap[1]

    assert torch.equal(torch.compile(backend="eager")(compare)(*volumes), compare(*volumes))


def test_arguments_are_checked_as_without() -> None:
    def compare(one: torch.Tensor) -> object:
        return MindSSC()(one)  # type: ignore[arg-type]

    for function in (compare, torch.compile(backend="eager")(compare)):
        with pytest.raises(InputError, match="image must be an Image"):
            function(torch.zeros(4, 4, 4))
