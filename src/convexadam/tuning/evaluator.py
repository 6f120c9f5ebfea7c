"""Pairs on which settings are tried; what settings have in common is computed once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam.continuous.protocols import prefers_channels_last
from convexadam.errors import InputError
from convexadam.features import receptive_radius, uses_labels
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.io import PairFiles
from convexadam.kernels import override_backend
from convexadam.kernels._precision import full_precision
from convexadam.kernels._waiting import wait_passively
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.registration import RegistrationConfig
from convexadam.registration.inputs import RegistrationInputs, parse_images, parse_mask, parse_segmentations
from convexadam.registration.pair import WorkingPair, refinement_spacings, search_spacings
from convexadam.registration.pipeline import (
    Initialisation,
    initialise,
    make_transform,
    refine,
    resample_to_working_grid,
    search,
)
from convexadam.tuning.cache import Cache
from convexadam.tuning.reference import Entries, Reference, evaluate_without_reference
from convexadam.tuning.space import Checkpoints

T = TypeVar("T")

Key: TypeAlias = tuple[Any, ...]

MEMORY_BYTES = 2 * 2**30
"""Of what is kept, unless told otherwise."""


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """What settings came to on all pairs: figures by pair of each variant, and the time it took in s.

    Examples
    --------
    >>> from convexadam.tuning import Trial
    >>> Trial(entries=({"pair 1": {"tre_mm": (1.2, 2.0)}},), seconds=0.5).entries[0]["pair 1"]["tre_mm"]
    (1.2, 2.0)
    """

    entries: tuple[dict[str, Entries], ...]
    seconds: float


@final
class Evaluator:
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

    Examples
    --------
    >>> import torch
    >>> from convexadam import as_image, preset, write_image
    >>> from convexadam.io import PairFiles
    >>> from convexadam.tuning import Evaluator
    >>> labels = torch.zeros(12, 12, 12, dtype=torch.uint8)
    >>> labels[3:9, 3:9, 3:9] = 1
    >>> write_image(as_image(labels), "labels.nii.gz")
    >>> write_image(as_image(100.0 * labels), "scan.nii.gz")
    >>> pair = PairFiles(
    ...     id="same", fixed="scan.nii.gz", moving="scan.nii.gz",
    ...     fixed_labels="labels.nii.gz", moving_labels="labels.nii.gz",
    ... )
    >>> evaluator = Evaluator([pair], surface=False)
    >>> evaluator.evaluate(preset("rigid")).entries[0]["same"]["dice"]
    [1.0]
    """

    @check_arguments
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

    def score_before(self) -> dict[str, Entries]:
        """Return the figures of each pair before registration."""
        return {files.id: self._reference(files).evaluate_before() for files in self.pairs}

    def evaluate(self, config: RegistrationConfig, checkpoints: Checkpoints | None = None) -> Trial:
        """Register all pairs with settings, and judge the results of each variant.

        Raises
        ------
        ConvexAdamError
            If a pair cannot be registered with them.
        """
        began = time.perf_counter()
        variants = (checkpoints or Checkpoints()).configs(config)
        found: list[dict[str, Entries]] = [{} for _ in variants]
        for files in self.pairs:
            for entries, figures in zip(found, self._evaluate_variants(files, variants), strict=True):
                entries[files.id] = figures
        return Trial(entries=tuple(found), seconds=time.perf_counter() - began)

    def _evaluate_variants(self, files: PairFiles, variants: Sequence[RegistrationConfig]) -> Iterator[Entries]:
        reference = self._reference(files)
        forward = self._run(files, variants[-1], variants)
        if reference.is_available:
            yield from (reference.evaluate(forward.transform(variant)) for variant in variants)
            return
        fixed, moving = self._images(files)
        backward = self._run(_swap_pair(files), variants[-1], variants)
        for variant in variants:
            transform = forward.transform(variant)
            consistency = evaluate_without_reference(fixed, moving, transform, backward.transform(variant))
            yield {**reference.evaluate(transform), **consistency}

    @torch.inference_mode(False)
    @torch.no_grad()
    @full_precision
    @wait_passively
    def _run(self, files: PairFiles, config: RegistrationConfig, variants: Sequence[RegistrationConfig]) -> _Run:
        """Run what the variants share: all but the last iterations and the final smoothing."""
        inputs = self._inputs(files, config)
        with override_backend(config.backend):
            key: Key = (files, config.backend, config.linear, config.foreground, config.restrict_deformation)
            initialisation = self._reuse(("initialisation", *key), lambda: initialise(inputs, config))
            margin = max(map(receptive_radius, config.extractors))
            key = (*key, config.grid, margin, inputs.segmentations[0] is None)
            pair = self._reuse(("working pair", *key), lambda: resample_to_working_grid(inputs, initialisation, config))
            pair = dataclasses.replace(pair, config=config)
            start, searched_contrast = self._reuse(
                ("search", *key, config.features, config.searches), lambda: self._search(key, pair)
            )
            fields = self._refine(key, pair, start, searched_contrast, variants)
        return _Run(inputs=inputs, initialisation=initialisation, grid=pair.grid, fields=fields)

    def _search(self, key: Key, pair: WorkingPair) -> tuple[ForwardBackward, bool]:
        """Return the displacements of the searches, and whether the images have contrast."""
        config = dataclasses.replace(pair.config, continuous=None, continuous_features=None)
        alone = dataclasses.replace(pair, config=config)
        spacings = tuple(search_spacings(config, pair.grid))
        levels = self._reuse(("search levels", *key, config.features, spacings), lambda: list(alone.extract()[0]))
        fields, level = search(alone, iter(levels))
        zero = ForwardBackward(forward=level.zero_displacement(), spacing=level.spacing)
        return fields or zero, fields is not None

    def _refine(
        self,
        key: Key,
        pair: WorkingPair,
        start: ForwardBackward,
        searched_contrast: bool,
        variants: Sequence[RegistrationConfig],
    ) -> dict[int, ForwardBackward]:
        """Return the displacements after as many iterations on the last level as each variant has."""
        config, iterations = pair.config, tuple(map(_iterations, variants))
        if config.continuous is None:
            return dict.fromkeys(iterations, start)
        settings, spacings = config.continuous, refinement_spacings(config, pair.grid)

        def extract(number: int) -> FeatureLevel:
            guide = settings.needs_guide(number) and (config.symmetric,)
            extractor = config.continuous_features or config.features
            kind = (extractor, spacings[number], prefers_channels_last(settings.similarity), guide)
            return self._reuse(("refinement level", *key, *kind), lambda: pair.extract_refinement(number))

        # without a search the features of the refinement decide, as in `register`
        if not (searched_contrast if config.searches else extract(0).range.contrast):
            return dict.fromkeys(iterations, start)
        last, fields, snapshots = len(spacings) - 1, start, {}
        for snapshot in refine(pair, start, extract, iterations=iterations):
            fields = snapshot.fields
            if snapshot.level == last and snapshot.iteration in iterations:
                snapshots[snapshot.iteration] = fields
        # a tolerance may end the refinement before the iterations of a variant: its result is the last one
        return {iteration: snapshots.get(iteration, fields) for iteration in iterations}

    def _inputs(self, files: PairFiles, config: RegistrationConfig) -> RegistrationInputs:
        fixed, moving = self._images(files)
        used = any(map(uses_labels, config.extractors))

        def read() -> RegistrationInputs:
            segmentations = (files.fixed_segmentation, files.moving_segmentation) if used else (None, None)
            return RegistrationInputs(
                fixed=fixed,
                moving=moving,
                masks=(
                    parse_mask(files.fixed_mask, fixed, "fixed_mask"),
                    parse_mask(files.moving_mask, moving, "moving_mask"),
                ),
                segmentations=parse_segmentations(segmentations, (fixed, moving), config),
            )

        return self._reuse(("inputs", files, used), read)

    def _images(self, files: PairFiles) -> tuple[Image, Image]:
        def read() -> tuple[Image, Image]:
            return parse_images(files.fixed, files.moving, self._device)

        try:
            return self._reuse(("images", files), read)
        except InputError as error:
            raise InputError(f"pair {files.id}: {error}") from error

    def _reference(self, files: PairFiles) -> Reference:
        fixed, moving = self._images(files)
        return self._reuse(("reference", files), lambda: Reference.read(files, fixed, moving, surface=self._surface))

    def _reuse(self, key: Key, make: Callable[[], T]) -> T:
        return self._cache.get(key, make)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """Displacements after several numbers of iterations, and what they belong to."""

    inputs: RegistrationInputs
    initialisation: Initialisation
    grid: Grid
    fields: dict[int, ForwardBackward]

    @torch.inference_mode(False)
    @torch.no_grad()
    @full_precision
    def transform(self, config: RegistrationConfig) -> DisplacementField:
        """Return the transform of one variant."""
        with override_backend(config.backend):
            fields = self.fields[_iterations(config)]
            return make_transform(self.inputs, self.initialisation, config, self.grid, fields)[0]


def _iterations(config: RegistrationConfig) -> int:
    return 0 if config.continuous is None else config.continuous.levels[-1].iterations


def _swap_pair(files: PairFiles) -> PairFiles:
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
