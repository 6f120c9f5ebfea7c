"""Voxels in the order that a network was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

from convexadam._typing import Shaped, Tensor, Triple
from convexadam.errors import ConfigError
from convexadam.geometry import Grid

_TOWARDS, _AWAY = "RAS", "LPI"

_T = TypeVar("_T")

Three: TypeAlias = tuple[_T, _T, _T]


def checked_orientation(letters: object) -> None:
    """Raise unless ``letters`` names each of the three axes of the body once, such as ``"RAS"`` or ``"LPS"``."""
    if not isinstance(letters, str) or len(letters) != 3 or sorted(_worlds(letters)) != [0, 1, 2]:
        raise ConfigError(
            "orientation is three letters, one each of R or L, A or P, S or I, which say where the axes i, j, k point "
            f"to, such as 'RAS', but {letters!r} came"
        )


@final
@dataclass(frozen=True)
class Turn:
    """How voxels are reordered: new axis ``n`` is the old axis ``axes[n]``, backwards where ``flips[n]``.

    Nothing is interpolated: axes that are oblique to the body stay so.
    """

    axes: Triple = (0, 1, 2)
    flips: Three[bool] = (False, False, False)

    @classmethod
    def towards(cls, grid: Grid, letters: str) -> Turn:
        """Return the turn after which the axes of a grid run as closely as possible towards ``letters``."""
        axes, flips = grid.canonical_axes()
        first, second, third = _worlds(letters)
        backwards = [flips[w] != (letter in _AWAY) for w, letter in zip((first, second, third), letters, strict=True)]
        return cls((axes[first], axes[second], axes[third]), (backwards[0], backwards[1], backwards[2]))

    def __call__(self, data: Shaped[Tensor, "c _ _ _"]) -> Shaped[Tensor, "c _ _ _"]:
        """Reorder the voxels of ``[c, i, j, k]``."""
        return data.permute(0, *(a + 1 for a in self.axes)).flip(self._flipped)

    def back(self, data: Shaped[Tensor, "c _ _ _"]) -> Shaped[Tensor, "c _ _ _"]:
        """Undo it."""
        return data.flip(self._flipped).permute(0, *(self.axes.index(a) + 1 for a in range(3)))

    def of_axes(self, values: Three[_T]) -> Three[_T]:
        """Reorder one value for each axis, such as the spacing."""
        first, second, third = (values[a] for a in self.axes)
        return first, second, third

    def axes_of(self, values: Three[_T]) -> Three[_T]:
        """Undo `of_axes`."""
        i, j, k = (values[self.axes.index(a)] for a in range(3))
        return i, j, k

    @property
    def _flipped(self) -> list[int]:
        return [n + 1 for n, flip in enumerate(self.flips) if flip]


def _worlds(letters: str) -> list[int]:
    """Which axis of the body each letter means; -1 for none."""
    return [max(_TOWARDS.find(letter), _AWAY.find(letter)) for letter in letters]
