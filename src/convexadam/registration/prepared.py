"""A fixed image that many moving images are registered to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch

from convexadam.geometry import Image, Transform
from convexadam.io import as_image
from convexadam.io.convert import parse_on_grid_of
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import parse_fixed_image, parse_mask
from convexadam.registration.memo import Memo
from convexadam.registration.presets import parse_config
from convexadam.registration.progress import Progress, open_progress
from convexadam.registration.register import register_with_memo
from convexadam.registration.result import RegistrationResult
from convexadam.report import mirror_image


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage:
    """A fixed image with its settings; see `prepare`.

    Attributes
    ----------
    fixed
        The fixed image.
    fixed_mask
        Its mask, as weights.
    config
        The settings.
    others
        The other arguments of `register` that belong to the fixed image, by name.

    Examples
    --------
    >>> import torch
    >>> from convexadam.registration import prepare
    >>> volume = torch.rand(24, 20, 16, generator=torch.Generator().manual_seed(0))
    >>> prepared = prepare(volume)  # features of the fixed image are computed once
    >>> [prepared.register(volume).diagnostics["folded_percent"] for _ in range(2)]
    [0.0, 0.0]
    """

    fixed: Image
    fixed_mask: Image | None
    config: RegistrationConfig
    others: dict[str, Any]
    _memo: Memo = field(default_factory=Memo, repr=False)

    def register(
        self,
        moving: Any,
        *,
        moving_affine: Any = None,
        moving_mask: Any = None,
        moving_segmentation: Any = None,
        initial_transform: Any = None,
        search_start: Transform | None = None,
        fixed_landmarks: Any = None,
        moving_landmarks: Any = None,
        landmark_weights: Any = None,
        progress: Progress | bool | None = False,
    ) -> RegistrationResult:
        """Register a moving image to the fixed one; the arguments and the result are those of `register`.

        No progress is shown unless it is asked for. The first search covers its radius around ``search_start``, a
        transform from fixed to moving such as that of a similar image, and the refinement begins there if there is no
        search; the moving image is not resampled by it beforehand, unlike by ``initial_transform``.
        """
        with open_progress(progress) as report:
            return register_with_memo(
                self.fixed,
                moving,
                self.config,
                memo=self._memo,
                fixed_mask=self.fixed_mask,
                moving_affine=moving_affine,
                moving_mask=moving_mask,
                moving_segmentation=moving_segmentation,
                initial_transform=initial_transform,
                search_start=search_start,
                fixed_landmarks=fixed_landmarks,
                moving_landmarks=moving_landmarks,
                landmark_weights=landmark_weights,
                progress=report,
                **self.others,
            )

    def register_mirrored(
        self, moving: Any, *, moving_mask: Any = None, moving_segmentation: Any = None, initial_transform: Any = None
    ) -> RegistrationResult:
        """Register the mirror image of a moving image: ``mirrored`` of `convexadam.report.measure_quality`.

        The arguments are those of `register`: the mask and the segmentation are mirrored as well, the initial transform
        is not.

        Examples
        --------
        >>> import torch
        >>> from convexadam.registration import prepare
        >>> from convexadam.report import measure_quality
        >>> volume = torch.rand(24, 20, 16, generator=torch.Generator().manual_seed(0))
        >>> prepared = prepare(volume)
        >>> result, mirrored = prepared.register(volume), prepared.register_mirrored(volume)
        >>> measure_quality(result, volume, volume, mirrored=mirrored).mirror_gain < 0
        True
        """
        image = as_image(moving, device=self.fixed.data.device)
        mask = parse_mask(moving_mask, image, "moving_mask")
        if moving_segmentation is not None:
            labels = parse_on_grid_of(image, moving_segmentation, "moving_segmentation", "moving", channels=True)
            moving_segmentation = mirror_image(labels, about=image.grid)
        return self.register(
            mirror_image(image),
            moving_mask=None if mask is None else mirror_image(mask, about=image.grid),
            moving_segmentation=moving_segmentation,
            initial_transform=initial_transform,
        )


def prepare(
    fixed: Any,
    config: RegistrationConfig | str | None = None,
    *,
    fixed_affine: Any = None,
    fixed_mask: Any = None,
    fixed_segmentation: Any = None,
    volume_preserving_mask: Any = None,
    sliding_regions: Any = None,
    device: torch.device | str | None = None,
) -> PreparedImage:
    """Prepare a fixed image for the registration of many moving images to it.

    What depends on the fixed image alone, such as its features, is computed with the first moving image and kept for
    the others. The results are those of `register`, bit by bit.

    Parameters
    ----------
    fixed, config, fixed_affine, fixed_mask, fixed_segmentation, volume_preserving_mask, sliding_regions, device
        As for `register`.

    Returns
    -------
    The prepared image, whose method ``register`` takes a moving image. It can be called from several threads.

    Raises
    ------
    InputError, GeometryError, FileError, ConfigError, OutOfMemoryError
        As `register`, about the image, its mask, the settings or the device; about the other arguments later.

    Examples
    --------
    >>> volume = torch.rand(24, 20, 16, generator=torch.Generator().manual_seed(0))
    >>> prepared = prepare(volume)
    >>> results = [prepared.register(moving) for moving in (volume, volume.flip(0))]
    """
    config = parse_config(config)
    image = parse_fixed_image(fixed, fixed_affine, device)
    others = {
        "fixed_segmentation": fixed_segmentation,
        "volume_preserving_mask": volume_preserving_mask,
        "sliding_regions": sliding_regions,
    }
    return PreparedImage(
        fixed=image, fixed_mask=parse_mask(fixed_mask, image, "fixed_mask"), config=config, others=others
    )
