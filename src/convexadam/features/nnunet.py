"""Predictions of nnU-Net segmentation networks as features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, final
from weakref import WeakKeyDictionary

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_choice, check_flag, check_number, show
from convexadam._typing import Triple
from convexadam.errors import ConfigError
from convexadam.features.labels import LabelFeatures
from convexadam.features.nnunet_model import Fold, Model, predict
from convexadam.features.orientation import Reorientation, check_orientation
from convexadam.features.prediction_cache import hash_files, hash_input, load_or_predict
from convexadam.features.probabilities import ProbabilityFeatures
from convexadam.features.protocol import FeatureInput, Pair
from convexadam.geometry import Image

_predictions: WeakKeyDictionary[Image, dict[str, Image]] = WeakKeyDictionary()
"""Predictions of images that are still referenced: every level of a refinement extracts features of the same ones."""


@final
@dataclass(frozen=True, kw_only=True)
class NNUNetFeatures:
    """Predictions of a trained nnU-Net model for both images, used as `LabelFeatures` or `ProbabilityFeatures`.

    The network is applied to the images on the working grid, the moving image after the linear alignment or the initial
    transform. nnU-Net resamples them to the voxel size of its training and its output back.

    nnU-Net uses arrays without their orientation: it depends on the order in which the training files store voxels.
    Images are therefore reordered to ``orientation``, by permuting and reversing axes, and predictions are reordered
    back, so that the orientation of the fixed image does not matter. Remaining angles (oblique scans) are ignored, as
    in nnU-Net. To check the orientation, look at `predict` of an image like those of the training.

    A model whose checkpoint holds more than weights and plain values, or whose plans name other classes than networks
    and layers, is refused, so that no code in it is executed. Needs the extra
    ``nnunet``; the environment variables of nnU-Net are not needed.

    Attributes
    ----------
    model_folder
        Folder of the trained model: ``dataset.json``, ``plans.json``, and folders ``fold_*`` with a checkpoint.
    folds
        Folds whose predictions are averaged: numbers, or ``"all"`` for ``fold_all``. ``None`` for all numbered folds,
        or ``fold_all`` if there is none.
    checkpoint
        File name of the weights in each of the folders.
    output
        ``"labels"`` for the most probable class of each voxel, ``"probabilities"`` for the probabilities.
    orientation
        Directions of the axes i, j, k of the training files: ``"RAS"``, ``"LPS"``, ``"LAS"``, ... Must be ``"RAS"``
        for models whose plans name the reader ``NibabelIOWithReorient``.
    test_time_augmentation
        Whether to average over mirrored images as well, if the model was trained with mirroring: more accurate, and
        up to eight times slower.
    step
        Distance of the sliding windows as a fraction of their size, in (0, 1]; smaller is slower.
    scale, class_balance, include_background
        As in `LabelFeatures` and `ProbabilityFeatures`.
    cache_dir
        Folder in which predictions are saved, created if missing; nothing is ever deleted from it. Predictions are
        identified by the contents of model and image, not by file names or device. ``None`` keeps them in memory only,
        for the duration of a registration.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Isensee et al., Nature Methods 2021. One-hot labels as features: Siebert, Hansen and Heinrich, Learn2Reg 2021. On
    GPUs nnU-Net uses automatic mixed precision.

    Examples
    --------
    >>> from convexadam import RegistrationConfig, register
    >>> from convexadam.features import NNUNetFeatures
    >>> config = RegistrationConfig(features=NNUNetFeatures(model_folder="model"))  # doctest: +SKIP
    >>> result = register("fixed.nii.gz", "moving.nii.gz", config)  # doctest: +SKIP
    """

    model_folder: str
    folds: tuple[Fold, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    output: Literal["labels", "probabilities"] = "labels"
    orientation: str = "RAS"
    test_time_augmentation: bool = True
    step: float = 0.5
    scale: float = 5.0
    class_balance: float = 0.3
    include_background: bool = False
    cache_dir: str | None = None
    uses_labels: ClassVar[bool] = False
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("model_folder", "checkpoint", *(() if self.cache_dir is None else ("cache_dir",))):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{name} must be a non-empty string, got {show(value)}; convert paths with str(...)")
        if self.folds is not None and (
            not isinstance(self.folds, tuple) or not self.folds or not all(_is_fold(fold) for fold in self.folds)
        ):
            raise ConfigError(
                f"folds must be None or a tuple of whole numbers or 'all', got {show(self.folds)}; write for example "
                "folds=(0, 1)"
            )
        check_choice(self.output, "output", ("labels", "probabilities"))
        check_orientation(self.orientation)
        check_flag(self.test_time_augmentation, "test_time_augmentation")
        check_number(self.step, "step", above=True)
        if self.step > 1:
            raise ConfigError(f"step must be at most 1, got {self.step}; larger ones leave gaps between windows")
        _ = self.label_features  # checks the remaining settings

    @property
    def channels_last(self) -> bool:
        """As the features that are extracted from the predictions; see `MapLayout`."""
        return self.label_features.channels_last

    @property
    def label_features(self) -> LabelFeatures | ProbabilityFeatures:
        """Extractor that is applied to the predictions."""
        kind = LabelFeatures if self.output == "labels" else ProbabilityFeatures
        return kind(scale=self.scale, class_balance=self.class_balance, include_background=self.include_background)

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return ``None``: the number of classes depends on the model and on the images."""
        return None

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory beyond that of the network, in bytes per voxel; see `EstimatesMemory`."""
        return self.label_features.memory_bytes_per_voxel(channels)

    @check_arguments
    def segmentation_bytes_per_voxel(self, channels: int) -> float:
        """Return the memory of both predictions in bytes per voxel; see `HoldsSegmentations`."""
        return self.label_features.segmentation_bytes_per_voxel(channels)

    @check_arguments
    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return the features of the predictions of both images for each spacing.

        Raises
        ------
        MissingExtraError, FileError, ConfigError
            As `predict`.
        InputError
            If only background is predicted in an image.
        """
        fixed, moving = (dataclasses.replace(side, segmentation=self.predict(side.image)) for side in (fixed, moving))
        return self.label_features.extract_pair(fixed, moving, spacings)

    @check_arguments
    def predict(self, image: Image) -> Image:
        """Predict labels, or a probability of each class, on the grid and device of an image.

        Raises
        ------
        MissingExtraError
            If nnU-Net is not installed.
        FileError
            If the model is missing or damaged, or the cache cannot be written.
        ConfigError
            If the model lacks one of the folds, or does not fit the image or the output.
        InputError
            If the image is 0 everywhere.
        """
        probabilities, device = self.output == "probabilities", image.data.device
        model = Model.find(
            self.model_folder,
            self.folds,
            self.checkpoint,
            test_time_augmentation=self.test_time_augmentation,
            step=float(self.step),
        )
        model.check(image.data.shape[0], self.orientation, probabilities=probabilities)
        reorient = Reorientation.towards(image.grid, self.orientation)
        array = reorient(image.data).float().cpu().numpy().transpose(0, 3, 2, 1)
        spacing = reorient.permute(image.grid.spacing_mm)[::-1]
        settings = (self.output, hash_files(model.files), model.folds, model.test_time_augmentation, model.step)
        key = hash_input(array, (spacing, *settings))
        known = _predictions.setdefault(image, {})
        if key not in known:
            prediction = load_or_predict(
                self.cache_dir, key, lambda: predict(model, array, spacing, device, probabilities=probabilities)
            )
            values = torch.from_numpy(np.ascontiguousarray(prediction.transpose(0, 3, 2, 1)))
            known[key] = Image(reorient.invert(values).contiguous().to(device), image.grid)
        return known[key]


def _is_fold(fold: object) -> bool:
    return fold == "all" or (isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0)
