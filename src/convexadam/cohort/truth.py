"""Labels and landmarks of a pair, by which its registration is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from convexadam._typing import Points
from convexadam.errors import GeometryError, InputError
from convexadam.geometry import Image
from convexadam.geometry.grid import HEADER_ROUNDING
from convexadam.io import PairFiles, read_image, read_landmarks_mm
from convexadam.metrics import evaluate_transform
from convexadam.metrics.summary import to_integer_labels
from convexadam.registration import RegistrationResult

SCORES = ("dice", "dice_before", "n_labels", "tre_mm", "tre_before_mm", "n_landmarks")


@final
@dataclass(frozen=True, kw_only=True)
class Truth:
    """Label maps, and landmarks in mm, as far as they are given.

    Attributes
    ----------
    fixed_labels, moving_labels
        Of the moving image alone if they are only to be warped.
    landmarks_mm
        Points of both images, row by row.
    """

    fixed_labels: Image | None = None
    moving_labels: Image | None = None
    landmarks_mm: tuple[Points, Points] | None = None

    @classmethod
    def read(cls, pair: PairFiles, fixed: Image, moving: Image) -> Truth:
        """Read what is given, before the registration: what cannot be used costs no time.

        Raises
        ------
        FileError
            If a file cannot be read.
        InputError, GeometryError
            If label maps are none, those of the fixed image lie on another grid, or landmarks do not correspond.
        """
        labels = [
            None if path is None else to_integer_labels(read_image(path, device=fixed.data.device), name)
            for path, name in ((pair.fixed_labels, "fixed_labels"), (pair.moving_labels, "moving_labels"))
        ]
        if labels[0] is not None and not labels[0].grid.is_close(fixed.grid, tolerance=HEADER_ROUNDING):
            raise GeometryError(
                f"fixed_labels must be on the grid of the fixed image, {fixed.grid!r}, got {labels[0].grid!r}; "
                "resample them"
            )
        if pair.fixed_landmarks is None or pair.moving_landmarks is None:
            return cls(fixed_labels=labels[0], moving_labels=labels[1])
        points = (
            read_landmarks_mm(pair.fixed_landmarks, fixed.grid),
            read_landmarks_mm(pair.moving_landmarks, moving.grid),
        )
        if len(points[0]) != len(points[1]):
            raise InputError(
                "fixed_landmarks and moving_landmarks must be row by row the same points, got "
                f"{len(points[0])} and {len(points[1])}"
            )
        return cls(fixed_labels=labels[0], moving_labels=labels[1], landmarks_mm=points)

    def score(self, result: RegistrationResult) -> dict[str, float]:
        """Return the scores of a registration, of `SCORES`, that there is truth for."""
        both = self.fixed_labels is not None
        if not both and self.landmarks_mm is None:
            return {}
        points = (None, None) if self.landmarks_mm is None else self.landmarks_mm
        found = evaluate_transform(
            result.transform.to_displacement_field(result.fixed),
            fixed_labels=self.fixed_labels,
            moving_labels=self.moving_labels if both else None,
            fixed_landmarks_mm=points[0],
            moving_landmarks_mm=points[1],
            surface=False,
            regularity=False,
        )
        return {name: float(value) for name, value in found.items() if name in SCORES}  # type: ignore[arg-type]
