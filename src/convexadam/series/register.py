"""Registration of all frames of a series to one reference."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import torch

from convexadam._atomic import make_folder
from convexadam._checks import check_choice, check_count, check_number
from convexadam._lock import lock_folder
from convexadam._typing import PerAxis
from convexadam._version import VERSION
from convexadam.errors import ConvexAdamError
from convexadam.geometry import Affine, Image, Transform, compose
from convexadam.geometry.composite import invert_transform
from convexadam.io import atomic_path, read_transform, write_image, write_transform
from convexadam.io.reading import StrPath
from convexadam.registration import PreparedImage, RegistrationConfig, RegistrationResult, prepare
from convexadam.registration.files import name_transform
from convexadam.registration.presets import parse_config
from convexadam.series.frames import FrameSeries, average_frames, read_series, write_series
from convexadam.series.motion import FrameMotion, measure_motion, smooth_transforms, write_motion

_ITERATIONS = 0.7
"""Share of the iterations of a frame by itself that one which starts at the frame before takes."""

_WORSE = 1.2
"""Factor of the dissimilarity of the frame before from which on a start there is doubted."""

Order: TypeAlias = Literal["reference", "chain"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesResult:
    """Result of `register_series`.

    Attributes
    ----------
    reference
        The image that frames were registered to.
    transforms
        From the reference to each frame, after smoothing over time.
    moved
        All frames on the grid of the reference.
    motion
        Motion of each frame.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, as_image
    >>> from convexadam.series import FrameSeries, SeriesResult, measure_motion
    >>> frame = as_image(torch.rand(8, 8, 8))
    >>> result = SeriesResult(
    ...     reference=frame, transforms=(Affine(),) * 2, moved=FrameSeries(frames=(frame, frame)),
    ...     motion=tuple(measure_motion([Affine()] * 2, frame.grid)),
    ... )  # as `register_series` returns it
    >>> labels = as_image(torch.ones(8, 8, 8, dtype=torch.uint8))
    >>> [warped.data.unique().tolist() for warped in result.warp_labels(labels)]
    [[1], [1]]
    """

    reference: Image
    transforms: tuple[Transform, ...]
    moved: FrameSeries
    motion: tuple[FrameMotion, ...]

    def warp_labels(self, labels: Image) -> Iterator[Image]:
        """Yield labels of the reference on each frame, on its grid."""
        for transform in self.transforms:
            inverse = invert_transform(transform, self.reference.grid)
            yield inverse.warp(labels, self.reference.grid, mode="label")


def register_series(
    frames: StrPath | Sequence[StrPath] | FrameSeries,
    *,
    output_dir: StrPath | None = None,
    config: RegistrationConfig | str | None = None,
    reference: int | Literal["mean"] = 0,
    passes: int = 2,
    order: Order = "reference",
    warm_start: bool | None = None,
    temporal_sigma: float = 0.0,
    on_frame: Callable[[int, int], None] | None = None,
) -> SeriesResult:
    """Register all frames of a series to a reference, such as for the correction of motion.

    Parameters
    ----------
    frames
        The series, or its files (see `read_series`).
    output_dir
        Folder for the results (see `convexadam.series`), from which an interrupted call continues; ``None`` writes
        nothing.
    config
        Settings, or the name of a preset; ``None`` is ``"rigid"``.
    reference
        Number of the frame to register to; or ``"mean"``, the average of the frames, which are registered to frame 0
        first.
    passes
        With ``"mean"``, how often the average is made anew.
    order
        ``"reference"`` registers each frame to the reference; ``"chain"`` each frame to the one before it, and composes
        the transforms.
    warm_start
        Start each frame at the transform of the one before it. Fields are searched around that of the frame before,
        within half of the radius and without a new linear alignment, and refined by seven tenths of the iterations;
        a frame that then differs from the reference by a fifth more than the one before is registered by itself as
        well, and the more similar result is kept. ``None`` does so if frames deform, and registers them by themselves
        otherwise. With ``"chain"`` it has no effect.
    temporal_sigma
        Standard deviation, in frames, of a Gaussian that smooths the transforms over time; 0 for none.
    on_frame
        Called with the number of frames that are done, and of those to do, over all passes.

    Raises
    ------
    InputError, FileError, GeometryError
        If frames cannot be read, or lie on different grids.
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, preset
    >>> from convexadam.series import FrameSeries, register_series
    >>> frame = Image(torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(0)), Grid((16, 16, 16)))
    >>> result = register_series(FrameSeries(frames=(frame, frame)), config=preset("default"))
    >>> result.motion[1].mean_displacement_mm < 0.01
    True
    """
    series = frames if isinstance(frames, FrameSeries) else read_series(frames)
    config = parse_config(config, "rigid")
    check_choice(order, "order", get_args(Order))
    check_count(passes, "passes", least=1)
    check_number(temporal_sigma, "temporal_sigma")
    middle = 0 if reference == "mean" else _check_reference(reference, len(series.frames))
    rounds = 1 + (passes if reference == "mean" else 0)
    folder = None if output_dir is None else make_folder(output_dir)
    warm = not config.is_linear if warm_start is None else warm_start
    run = _Run(series=series, config=config, order=order, warm_start=warm, total=rounds, on_frame=on_frame)
    if folder is None:
        return run.finish(series.frames[middle], middle, rounds, temporal_sigma, None)
    with lock_folder(folder, "series"):
        return run.finish(series.frames[middle], middle, rounds, temporal_sigma, folder)


def _check_reference(reference: object, count: int) -> int:
    check_count(reference, "reference", most=count - 1)
    assert isinstance(reference, int)
    return reference


@dataclass(frozen=True, kw_only=True)
class _Aligned:
    """A transform to a frame, the affine one that its search began with, and the dissimilarity, if that is known."""

    transform: Transform
    affine: Affine = field(default_factory=Affine)
    dissimilarity: float | None = None

    @classmethod
    def make(cls, result: RegistrationResult, affine: Affine | None = None) -> _Aligned:
        linear = Affine() if result.linear is None else result.linear.transform
        return cls(
            transform=result.transform,
            affine=affine or linear,
            dissimilarity=result.diagnostics["dissimilarity_after"],
        )

    def is_better(self, other: _Aligned, factor: float = 1.0) -> bool:
        """Whether the dissimilarity is at most that of another frame times a factor."""
        if self.dissimilarity is None or other.dissimilarity is None:
            return False
        return self.dissimilarity <= factor * other.dissimilarity


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all passes have in common."""

    series: FrameSeries
    config: RegistrationConfig
    order: Order
    warm_start: bool
    total: int
    on_frame: Callable[[int, int], None] | None

    def finish(self, target: Image, middle: int, rounds: int, sigma: float, folder: Path | None) -> SeriesResult:
        transforms = list[Transform]()
        for number in range(rounds):
            place = None if folder is None else make_folder(folder / "passes" / f"{number:02d}")
            if number:  # the average of the frames as they are now
                target, middle = average_frames(self._warp(transforms, target)), -1
            transforms = self._register(target, middle, number, place)
        transforms = smooth_transforms(transforms, sigma)
        result = SeriesResult(
            reference=target,
            transforms=tuple(transforms),
            moved=FrameSeries(frames=tuple(self._warp(transforms, target)), step_s=self.series.step_s),
            motion=tuple(measure_motion(transforms, target.grid)),
        )
        if folder is not None:
            _write(result, folder)
        return result

    def _warp(self, transforms: list[Transform], target: Image) -> list[Image]:
        """Return the frames on the grid of the target, interpolated also where they hold whole numbers."""
        pairs = zip(transforms, self.series.frames, strict=True)
        return [transform.warp(frame, target.grid, mode="linear") for transform, frame in pairs]

    def _register(self, target: Image, middle: int, number: int, folder: Path | None) -> list[Transform]:
        """Return the transform from the target to each frame; ``middle`` is the frame that it is, or -1."""
        count = len(self.series.frames)
        found: dict[int, _Aligned] = {} if middle < 0 else {middle: _Aligned(transform=Affine())}
        start = max(middle, 0)
        cold = prepare(target, self.config)
        prepared = cold, replace(cold, config=make_warm_config(self.config))  # they share features
        for frame in [*range(start, count), *range(start - 1, -1, -1)]:
            if frame not in found:
                before = frame - 1 if frame > start else frame + 1
                previous = found.get(before)
                align = partial(self._align, prepared, frame, previous, before)
                with warnings.catch_warnings():  # a frame that has not moved is nothing to warn of
                    warnings.filterwarnings("ignore", message="the linear alignment found no transform better")
                    found[frame] = self._load_or(folder, frame, target, previous, align)
            if self.on_frame is not None:
                self.on_frame(number * count + len(found), self.total * count)
        return [found[frame].transform for frame in range(count)]

    def _align(
        self, prepared: tuple[PreparedImage, PreparedImage], frame: int, previous: _Aligned | None, before: int
    ) -> _Aligned:
        image = self.series.frames[frame]
        if self.order == "chain" and previous is not None:
            step = prepare(self.series.frames[before], self.config).register(image).transform
            chained = compose(previous.transform, step)
            linear = isinstance(chained, Affine)
            return _Aligned(transform=chained if linear else chained.to_displacement_field(image.grid))
        cold, warm = prepared
        if not self.warm_start or previous is None:
            return _Aligned.make(cold.register(image))
        if self.config.is_linear:
            return _Aligned.make(cold.register(image, initial_transform=previous.transform))
        if previous.dissimilarity is not None:
            start = previous.transform
            result = warm.register(image, initial_transform=previous.affine, search_start=start)
            found = _Aligned.make(result, previous.affine)
            if found.is_better(previous, _WORSE):
                return found
            alone = _Aligned.make(cold.register(image))
            return alone if alone.is_better(found) else found
        return _Aligned.make(cold.register(image))

    def _load_or(
        self,
        folder: Path | None,
        frame: int,
        target: Image,
        previous: _Aligned | None,
        align: Callable[[], _Aligned],
    ) -> _Aligned:
        """Return the result of an earlier call with the same frames and settings, or a new one, which is kept."""
        if folder is None:
            return align()
        path = folder / f"{frame:04d}_{name_transform(linear=self.config.is_linear)}"
        key = self._fingerprint(frame, target, previous)
        record = folder / f"{frame:04d}.json"
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            if known["fingerprint"] == key:
                affine = Affine(np.array(known["affine"]))
                return _Aligned(transform=read_transform(path), affine=affine, dissimilarity=known["dissimilarity"])
        except (OSError, ValueError, KeyError, TypeError, ConvexAdamError):
            pass
        found = align()
        write_transform(found.transform, path)
        known = {"fingerprint": key, "affine": found.affine.matrix.tolist(), "dissimilarity": found.dissimilarity}
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")
        return replace(found, transform=read_transform(path))  # as it will be read when the call is repeated

    def _fingerprint(self, frame: int, target: Image, previous: _Aligned | None) -> str:
        found = hashlib.sha256(f"{VERSION} {self.config.to_toml()} {self.order} {self.warm_start}".encode())
        for image in (target, self.series.frames[frame]):
            found.update(np.ascontiguousarray(image.data.cpu().numpy()).tobytes())
            found.update(image.grid.affine.tobytes())
        if previous is not None and (self.warm_start or self.order == "chain"):
            points = self.series.frames[0].grid.index_to_world(_lattice(target.grid.shape))
            found.update(np.ascontiguousarray(previous.transform(points).numpy()).tobytes())
        return found.hexdigest()


def make_warm_config(config: RegistrationConfig) -> RegistrationConfig:
    """Return settings for a frame that starts at the field of the one before, see `register_series`.

    What is left to find is the motion between two frames. The search is not made inverse consistent, which would take
    longer than all the rest of it.
    """
    searches = tuple(replace(search, radius=_halve(search.radius), inverse_consistency=0) for search in config.searches)
    refine = config.continuous
    if refine is not None:
        levels = tuple(replace(level, iterations=math.ceil(_ITERATIONS * level.iterations)) for level in refine.levels)
        refine = replace(refine, levels=levels)
    discrete = searches if isinstance(config.discrete, tuple) else next(iter(searches), None)
    return config if config.is_linear else replace(config, linear=None, discrete=discrete, continuous=refine)


def _halve(radius: PerAxis) -> PerAxis:
    """Return half of a radius, rounded up."""
    if isinstance(radius, tuple):
        i, j, k = (math.ceil(r / 2) for r in radius)
        return i, j, k
    return math.ceil(radius / 2)


def _lattice(shape: Sequence[int]) -> torch.Tensor:
    """Return points of a grid that tell transforms apart."""
    return torch.cartesian_prod(*[torch.linspace(0, n - 1, 5, dtype=torch.float64, device="cpu") for n in shape])


def _write(result: SeriesResult, folder: Path) -> None:
    write_series(result.moved, folder / "moved.nii.gz")
    write_image(average_frames(result.moved.frames), folder / "mean.nii.gz")
    write_motion(result.motion, folder / "motion.csv")
    place = make_folder(folder / "transforms")
    for number, transform in enumerate(result.transforms):
        write_transform(transform, place / f"{number:04d}_{name_transform(linear=isinstance(transform, Affine))}")
