"""Pairs on which settings are tried; what settings have in common is computed once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, final

import torch

from convexadam._typing import Triple
from convexadam.continuous import Ssd
from convexadam.errors import InputError
from convexadam.features import uses_labels
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.io import PairFiles
from convexadam.kernels import Backend, requested_backend, use_backend
from convexadam.kernels._precision import full_precision
from convexadam.registration import RegistrationConfig
from convexadam.registration.inputs import checked_image, checked_labels, checked_mask
from convexadam.registration.levels import Described, Subject, refine_spacings, search_spacings
from convexadam.registration.stages import (
    BothWays,
    Given,
    Placed,
    on_working_grid,
    placed,
    reach,
    refined_throughout,
    searched_throughout,
    transform_alone,
)
from convexadam.tuning.cache import Cache
from convexadam.tuning.space import ReadOff, without_refinement
from convexadam.tuning.truth import Entries, Truth, blind_entries

T = TypeVar("T")

Key: TypeAlias = tuple[Any, ...]

Start: TypeAlias = tuple[Triple, BothWays, bool]
"""Spacing of the last search, displacements in its nodes, and whether the images have contrast."""

MEMORY_BYTES = 2 * 2**30
"""Of what is kept, unless told otherwise."""


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """What settings came to on all pairs: figures by pair of each variant, and the time it took in s."""

    entries: tuple[dict[str, Entries], ...]
    seconds: float


@final
class Bench:
    """Tries settings on pairs.

    Images, linear alignments, images on the working grid, features and the results of searches are kept, up to
    ``memory_bytes``; those of settings that have them in common are the same.

    Parameters
    ----------
    pairs
        Their files.
    device
        Where to compute.
    memory_bytes
        Of what is kept; 0 keeps nothing.
    surface
        Whether surface distances count: the slow part of judging labels.
    """

    def __init__(
        self,
        pairs: Sequence[PairFiles],
        *,
        device: torch.device | str = "cpu",
        memory_bytes: int = MEMORY_BYTES,
        surface: bool = True,
    ) -> None:
        self.pairs, self._device, self._surface = tuple(pairs), device, surface
        self._cache = Cache(memory_bytes)

    def clear(self) -> None:
        """Let go of all that is kept."""
        self._cache.clear()

    def before(self) -> dict[str, Entries]:
        """Return the figures of each pair before registration."""
        return {files.name: self._truth(files).before() for files in self.pairs}

    def try_out(self, config: RegistrationConfig, read_off: ReadOff | None = None) -> Trial:
        """Register all pairs with settings, and judge the results of each variant.

        Raises
        ------
        ConvexAdamError
            If a pair cannot be registered with them.
        """
        began = time.perf_counter()
        variants = (read_off or ReadOff()).variants(config)
        found: list[dict[str, Entries]] = [{} for _ in variants]
        for files in self.pairs:
            for entries, figures in zip(found, self._judged(files, variants), strict=True):
                entries[files.name] = figures
        return Trial(entries=tuple(found), seconds=time.perf_counter() - began)

    def _judged(self, files: PairFiles, variants: Sequence[RegistrationConfig]) -> Iterator[Entries]:
        truth = self._truth(files)
        there = self._run(files, variants[-1], variants)
        if truth.known:
            yield from (truth.entries(there.transform(variant)) for variant in variants)
            return
        fixed, moving = self._images(files)
        back = self._run(_swapped(files), variants[-1], variants)
        for variant in variants:
            here = there.transform(variant)
            yield {**truth.entries(here), **blind_entries(fixed, moving, here, back.transform(variant))}

    @torch.inference_mode(False)
    @torch.no_grad()
    @full_precision
    def _run(self, files: PairFiles, config: RegistrationConfig, variants: Sequence[RegistrationConfig]) -> _Run:
        """Run what variants have in common: all but the steps and the smoothing at the end."""
        given = self._given(files, config)
        with use_backend(_backend(config)):
            key: Key = (files, config.backend, config.linear, config.foreground)
            begun = self._kept(("placed", *key), lambda: placed(given, config))
            key = (*key, config.grid, reach(config), given.labels[0] is None)
            subject = self._kept(("grid", *key), lambda: on_working_grid(given, begun, config))
            subject = dataclasses.replace(subject, config=config)
            start = self._kept(("found", *key, config.features, config.searches), lambda: self._searched(key, subject))
            spacing, fields = self._refined(key, subject, start, variants)
        return _Run(given=given, begun=begun, grid=subject.grid, spacing=spacing, fields=fields)

    def _searched(self, key: Key, subject: Subject) -> Start:
        config = without_refinement(subject.config)
        cells = tuple(search_spacings(config, subject.grid))
        alone = dataclasses.replace(subject, config=config)
        coarse = self._kept(("cells", *key, config.features, cells), lambda: alone.first()[0])
        level, fields = searched_throughout(alone, list(coarse))
        return level.spacing, fields or (level.still(), None), fields is not None

    def _refined(
        self, key: Key, subject: Subject, start: Start, variants: Sequence[RegistrationConfig]
    ) -> tuple[Triple, dict[int, BothWays]]:
        """Spacing of the last level, and displacements in its nodes after as many steps there as variants have."""
        config, (spacing, fields, contrast) = subject.config, start
        marks = tuple(dict.fromkeys(_steps(variant) for variant in variants))
        if config.continuous is None or not contrast:
            return spacing, dict.fromkeys(marks, fields)
        refine, spacings = config.continuous, refine_spacings(config, subject.grid)
        compared = config.continuous_features or config.features

        def level(number: int) -> Described:
            edges = refine.guided(number) and (config.symmetric,)
            kind = (compared, spacings[number], isinstance(refine.similarity, Ssd), edges)
            return self._kept(("nodes", *key, *kind), lambda: subject.refined(number))

        last, found = refined_throughout(subject, fields, spacing, level, marks=marks)
        return last.spacing, dict(zip(marks, found, strict=True))

    def _given(self, files: PairFiles, config: RegistrationConfig) -> Given:
        fixed, moving = self._images(files)
        wanted = any(map(uses_labels, config.compared))

        def read() -> Given:
            labels = (files.fixed_segmentation, files.moving_segmentation) if wanted else (None, None)
            masks = checked_mask(files.fixed_mask, fixed, "fixed"), checked_mask(files.moving_mask, moving, "moving")
            return Given(
                fixed=fixed,
                moving=moving,
                masks=masks,
                labels=checked_labels(labels, (fixed, moving), config.compared),
            )

        return self._kept(("given", files, wanted), read)

    def _images(self, files: PairFiles) -> tuple[Image, Image]:
        def read() -> tuple[Image, Image]:
            fixed = checked_image(files.fixed, None, self._device, "fixed")
            return fixed, checked_image(files.moving, None, self._device, "moving")

        try:
            return self._kept(("images", files), read)
        except InputError as error:
            raise InputError(f"pair {files.name}: {error}") from error

    def _truth(self, files: PairFiles) -> Truth:
        fixed, moving = self._images(files)
        return self._kept(("truth", files), lambda: Truth.read(files, fixed, moving, surface=self._surface))

    def _kept(self, key: Key, make: Callable[[], T]) -> T:
        return self._cache.get(key, make)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """Displacements in nodes after several numbers of steps, and where they belong."""

    given: Given
    begun: Placed
    grid: Grid
    spacing: Triple
    fields: dict[int, BothWays]

    @torch.inference_mode(False)
    @torch.no_grad()
    @full_precision
    def transform(self, config: RegistrationConfig) -> DisplacementField:
        """Return the transform of one variant."""
        with use_backend(_backend(config)):
            field = self.fields[_steps(config)][0]
            return transform_alone(self.given, self.begun, config, self.grid, self.spacing, field)


def _steps(config: RegistrationConfig) -> int:
    return 0 if config.continuous is None else config.continuous.levels[-1].iterations


def _backend(config: RegistrationConfig) -> Backend:
    return requested_backend() if config.backend == "auto" else config.backend


def _swapped(files: PairFiles) -> PairFiles:
    """Return the pair the other way round."""
    other = {"fixed": "moving", "moving": "fixed"}
    return dataclasses.replace(
        files,
        **{
            name: getattr(files, name.replace(side, other[side], 1))
            for name in vars(files)
            for side in other
            if name.startswith(side)
        },
    )
