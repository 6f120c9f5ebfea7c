"""What a segmentation network of nnU-Net sees, as features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, final
from weakref import WeakKeyDictionary

import numpy as np
import torch

from convexadam._axes import checked_number
from convexadam._typing import Triple
from convexadam.errors import ConfigError
from convexadam.features.labels import LabelFeatures
from convexadam.features.nnunet_model import Fold, Model, predict
from convexadam.features.orientation import Turn, checked_orientation
from convexadam.features.prediction_cache import content, key_of, remembered
from convexadam.features.probabilities import ProbabilityFeatures
from convexadam.features.protocol import Pair, Scan
from convexadam.geometry import Image

_known: WeakKeyDictionary[Image, dict[str, Image]] = WeakKeyDictionary()
"""Predictions of images that are still in use: each level of a refinement describes the same ones anew."""


@final
@dataclass(frozen=True, kw_only=True)
class NNUNetFeatures:
    """What a trained model of nnU-Net finds in both images, as `LabelFeatures` or `ProbabilityFeatures`.

    The network sees the images as they are compared: on the working grid, and the moving one where the linear alignment
    or the initial transform has put it. nnU-Net brings them to the voxels it was trained with, and its answer back.

    nnU-Net knows arrays, not anatomy: it looks at voxels in the order in which the files of its training hold them.
    Images are therefore turned to ``orientation`` first, by reordering axes alone, and predictions are turned back, so
    that the orientation of the fixed image does not matter. Angles that remain (oblique scans) are ignored, as nnU-Net
    does. Whether the orientation is right shows in `predict` of an image of the kind that the model was trained on.

    Loading a model runs code that its checkpoint may hold (a pickle): use models that you trust. Needs the extra
    ``nnunet``; no environment variable of nnU-Net has to be set.

    Attributes
    ----------
    model_folder
        Folder of the trained model: ``dataset.json``, ``plans.json``, and folders ``fold_*`` with a checkpoint.
    folds
        Which of them, averaged: numbers, or ``"all"`` for ``fold_all``. ``None`` takes all that have a number, or else
        ``fold_all``.
    checkpoint
        File name of the weights in each of the folders.
    output
        ``"labels"`` compares the most probable class of each voxel, ``"probabilities"`` the probabilities.
    orientation
        Where the axes i, j, k of the training files point to: ``"RAS"``, ``"LPS"``, ``"LAS"``, ... Models whose plans
        name the reader ``NibabelIOWithReorient`` need ``"RAS"``.
    mirroring
        Whether mirror images are predicted as well and averaged, if the model was trained for it: more accurate, and
        up to eight times slower.
    step
        Distance of the windows that the network looks at, as a share of their size; smaller is slower.
    scale, balance, background
        As in `LabelFeatures` and `ProbabilityFeatures`.
    cache_dir
        Folder that keeps predictions, made where it is missing; nothing is ever deleted from it. They are found by the
        content of model and image, not by names, and on whichever device they were made. ``None`` keeps them only as
        long as a registration runs.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Isensee et al., Nature Methods 2021. One-hot labels as features: Siebert, Hansen and Heinrich, Learn2Reg 2021. On
    GPUs nnU-Net computes in half precision where that is enough.
    """

    model_folder: str
    folds: tuple[Fold, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    output: Literal["labels", "probabilities"] = "labels"
    orientation: str = "RAS"
    mirroring: bool = True
    step: float = 0.5
    scale: float = 5.0
    balance: float = 0.3
    background: bool = False
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        for name in ("model_folder", "checkpoint", *(() if self.cache_dir is None else ("cache_dir",))):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigError(f"{name} is text that is not empty, but {getattr(self, name)!r} came; use str(...)")
        if self.folds is not None and (
            not isinstance(self.folds, tuple) or not self.folds or not all(_is_fold(fold) for fold in self.folds)
        ):
            raise ConfigError(f"folds is a tuple of whole numbers or 'all', or None, but {self.folds!r} came")
        if self.output not in ("labels", "probabilities"):
            raise ConfigError(f"output is 'labels' or 'probabilities', but {self.output!r} came")
        checked_orientation(self.orientation)
        if not isinstance(self.mirroring, bool):
            raise ConfigError(f"mirroring is True or False, but {self.mirroring!r} came")
        checked_number(self.step, "step", above=True)
        if self.step > 1:
            raise ConfigError(f"step is at most 1, so that windows leave no gap, but {self.step} came")
        _ = self.compared  # checks the rest

    @property
    def uses_labels(self) -> bool:
        """No: it finds its own."""
        return False

    @property
    def compared(self) -> LabelFeatures | ProbabilityFeatures:
        """What its predictions are compared as."""
        kind = LabelFeatures if self.output == "labels" else ProbabilityFeatures
        return kind(scale=self.scale, balance=self.balance, background=self.background)

    def pooled_pair(self, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return the features of the labels or probabilities that are found in both images, for each spacing.

        Raises
        ------
        MissingExtraError, FileError, ConfigError
            As `predict`.
        InputError
            If nothing but background is found in an image.
        """
        here, there = (dataclasses.replace(scan, labels=self.predict(scan.image)) for scan in (fixed, moving))
        return self.compared.pooled_pair(here, there, spacings)

    def predict(self, image: Image) -> Image:
        """Return what the model finds in an image, on its grid and device: labels, or a probability for each class.

        Raises
        ------
        MissingExtraError
            If nnU-Net is not installed.
        FileError
            If the model is missing or damaged, or the cache cannot be written.
        ConfigError
            If the model has no such fold, or does not fit the image or the output asked for.
        InputError
            If the image is 0 everywhere.
        """
        probabilities, device = self.output == "probabilities", image.data.device
        model = Model.found(
            self.model_folder, self.folds, self.checkpoint, mirroring=self.mirroring, step=float(self.step)
        )
        model.check(image.data.shape[0], self.orientation, probabilities=probabilities)
        turn = Turn.towards(image.grid, self.orientation)
        array = turn(image.data).float().cpu().numpy().transpose(0, 3, 2, 1)
        spacing = turn.of_axes(image.grid.spacing_mm)[::-1]
        how = (self.output, content(model.files), model.folds, model.mirroring, model.step)
        key = key_of(array, (spacing, *how))
        kept = _known.setdefault(image, {})
        if key not in kept:
            found = remembered(
                self.cache_dir, key, lambda: predict(model, array, spacing, device, probabilities=probabilities)
            )
            values = torch.from_numpy(np.ascontiguousarray(found.transpose(0, 3, 2, 1)))
            kept[key] = Image(turn.back(values).contiguous().to(device), image.grid)
        return kept[key]


def _is_fold(fold: object) -> bool:
    return fold == "all" or (isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0)
