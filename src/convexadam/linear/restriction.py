"""Linear transforms that move along some axes of the fixed image only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch

from convexadam._typing import AxisWeights, Float, Tensor
from convexadam.geometry import Grid
from convexadam.kernels._device import send


@final
@dataclass(frozen=True, kw_only=True)
class Restriction:
    """Axes along which a linear transform may move points of the fixed image.

    Attributes
    ----------
    grid
        Of the fixed image.
    weights
        Of motion along the axes of ``grid.canonical()``; 0 forbids it, other weights do not.
    """

    grid: Grid
    weights: AxisWeights

    @property
    def is_free(self) -> bool:
        """Whether no axis is forbidden."""
        return all(self.weights)

    @property
    def free_axes(self) -> list[int]:
        """Numbers of the axes that are not forbidden."""
        return [axis for axis, weight in enumerate(self.weights) if weight]

    @cached_property
    def directions(self) -> np.ndarray:
        """Unit vectors along the axes, in mm RAS+, as columns."""
        columns = self.grid.canonical().affine[:3, :3]
        return np.asarray(columns / np.linalg.norm(columns, axis=0))

    @cached_property
    def _forbidden(self) -> np.ndarray:
        """4x4: what takes the part of a vector in mm along the forbidden axes."""
        result = np.zeros((4, 4))
        forbidden = np.diag([float(w == 0) for w in self.weights])
        result[:3, :3] = self.directions @ forbidden @ np.linalg.inv(self.directions)
        return result

    def project(self, matrix: Float[Tensor, "4 4"], start: Float[Tensor, "4 4"] | None = None) -> Float[Tensor, "4 4"]:
        """Return ``matrix`` without the motion along forbidden axes that it adds to ``start``, before it is applied.

        With ``M = matrix`` and ``P`` the part along these axes, ``M - P (M - I)`` where there is no start, else
        ``start`` times that of ``start^-1 matrix``.
        """
        if self.is_free:
            return matrix
        identity = torch.eye(4, dtype=matrix.dtype, device=matrix.device)
        added = matrix if start is None else torch.linalg.inv_ex(start)[0] @ matrix
        kept: Tensor = added - send(torch.from_numpy(self._forbidden), matrix) @ (added - identity)
        return kept if start is None else start @ kept
