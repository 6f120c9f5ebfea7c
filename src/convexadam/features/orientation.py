"""Reordering of voxels to the orientation of a network's training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

from convexadam._checks import show
from convexadam._typing import Shaped, Tensor, Triple
from convexadam.errors import ConfigError
from convexadam.geometry import Grid

_POSITIVE, _NEGATIVE = "RAS", "LPI"

_T = TypeVar("_T")

Three: TypeAlias = tuple[_T, _T, _T]


def check_orientation(letters: object) -> None:
    """Raise unless ``letters`` names each anatomical axis once, such as ``"RAS"`` or ``"LPS"``."""
    if not isinstance(letters, str) or len(letters) != 3 or sorted(_find_world_axes(letters)) != [0, 1, 2]:
        raise ConfigError(
            "orientation must be three letters, one each of R or L, A or P, S or I, the directions of the axes i, j, "
            f"k, got {show(letters)}; write for example 'RAS'"
        )


@final
@dataclass(frozen=True)
class Reorientation:
    """Permutation and reversal of voxel axes: new axis ``n`` is old axis ``axes[n]``, reversed where ``flips[n]``.

    Nothing is interpolated: axes that are oblique to the anatomical ones remain oblique.
    """

    axes: Triple = (0, 1, 2)
    flips: Three[bool] = (False, False, False)

    @classmethod
    def towards(cls, grid: Grid, letters: str) -> Reorientation:
        """Return the reorientation that brings the axes of a grid as close as possible to ``letters``."""
        axes, flips = grid.canonical_axes()
        first, second, third = _find_world_axes(letters)
        reverse = [flips[w] != (letter in _NEGATIVE) for w, letter in zip((first, second, third), letters, strict=True)]
        return cls((axes[first], axes[second], axes[third]), (reverse[0], reverse[1], reverse[2]))

    def __call__(self, data: Shaped[Tensor, "c _ _ _"]) -> Shaped[Tensor, "c _ _ _"]:
        """Reorder the voxels of ``[c, i, j, k]``."""
        return data.permute(0, *(a + 1 for a in self.axes)).flip(self._flip_dims)

    def invert(self, data: Shaped[Tensor, "c _ _ _"]) -> Shaped[Tensor, "c _ _ _"]:
        """Restore the original order of the voxels of ``[c, i, j, k]``."""
        return data.flip(self._flip_dims).permute(0, *(self.axes.index(a) + 1 for a in range(3)))

    def permute(self, values: Three[_T]) -> Three[_T]:
        """Reorder one value per axis, such as the spacing."""
        first, second, third = (values[a] for a in self.axes)
        return first, second, third

    def invert_permute(self, values: Three[_T]) -> Three[_T]:
        """Restore the original order of one value per axis."""
        i, j, k = (values[self.axes.index(a)] for a in range(3))
        return i, j, k

    @property
    def _flip_dims(self) -> list[int]:
        return [n + 1 for n, flip in enumerate(self.flips) if flip]


def _find_world_axes(letters: str) -> list[int]:
    """Return the anatomical axis of each letter, 0 to 2; -1 for any other letter."""
    return [max(_POSITIVE.find(letter), _NEGATIVE.find(letter)) for letter in letters]
