"""Valid arguments of public callables, and one call of one of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Refinement,
    RegistrationConfig,
)
from convexadam.continuous import Level

SHAPE = (6, 5, 4)
GRID = Grid(SHAPE)
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = (VALUES > 0.5).short()
IMAGE, LABEL_IMAGE = Image(VALUES[None], GRID), Image(LABELS[None], GRID)
ZEROS = torch.zeros(3, *SHAPE)
FIELD = DisplacementField(ZEROS, GRID)
SHIFT = Affine(np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
POINTS = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
MAPS = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2))
SEARCH = ConvexSearch(spacing=2, radius=1, inverse_consistency=1)
REFINEMENT = Refinement(levels=(Level(iterations=1),))
FAST = RegistrationConfig(linear=None, discrete=SEARCH, continuous=REFINEMENT)
PER_VOXEL = ((2, 2, 2),)


@final
@dataclass(frozen=True)
class Call:
    """A function and valid arguments; ``args`` are positional."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def slots(self) -> list[int | str]:
        """Positions and names of the arguments."""
        return [*range(len(self.args)), *self.options]

    def replace(self, slot: int | str, value: object) -> Any:
        """Call the function with another value of one argument."""
        args = tuple(value if n == slot else a for n, a in enumerate(self.args))
        options = {name: value if name == slot else option for name, option in self.options.items()}
        result = self.function(*args, **options)
        if isinstance(result, AbstractContextManager):
            with result:
                return None
        return list(itertools.islice(result, 3)) if isinstance(result, Iterator) else result


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Call:
    return Call(function, args, options)


def make_component(kind: type, **required: Any) -> Call:
    """Return a call of a dataclass with all its fields."""
    value = kind(**required)
    return Call(kind, (), {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init})
