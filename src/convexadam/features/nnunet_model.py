"""Trained nnU-Net models. No other module imports nnU-Net."""

from __future__ import annotations

import functools
import importlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch

from convexadam.errors import ConfigError, FileError, InputError, MissingExtraError
from convexadam.features.model_files import check_checkpoint, check_plans
from convexadam.features.prediction_cache import Stamp, stat_file

Fold: TypeAlias = int | Literal["all"]

_DATASET, _PLANS = "dataset.json", "plans.json"
_RAS_READER = "NibabelIOWithReorient"
"""Image reader of nnU-Net that reorients images to RAS before training and prediction."""


@final
@dataclass(frozen=True, kw_only=True)
class Model:
    """Files of a trained model and settings of the prediction.

    Attributes
    ----------
    files
        Path, size and modification time of ``dataset.json``, ``plans.json`` and each checkpoint.
    folds
        Folds whose predictions are averaged.
    checkpoint
        File name of the weights within each fold.
    test_time_augmentation
        Whether to average over mirrored images.
    step
        Distance of the sliding windows, as a fraction of their size.
    """

    files: tuple[Stamp, ...]
    folds: tuple[Fold, ...]
    checkpoint: str
    test_time_augmentation: bool
    step: float

    @classmethod
    def find(
        cls, folder: str, folds: tuple[Fold, ...] | None, checkpoint: str, *, test_time_augmentation: bool, step: float
    ) -> Model:
        """Find the files of a model; ``None`` selects all numbered folds, or ``"all"`` if there is none.

        Raises
        ------
        FileError
            If the folder does not contain a trained model.
        ConfigError
            If the model lacks one of the folds.
        """
        root = Path(folder)
        advice = f"model_folder must contain {_DATASET}, {_PLANS} and folders such as fold_0 with {checkpoint}"
        if not root.is_dir():
            raise FileError(f"cannot read an nnU-Net model from {root}: there is no such folder; {advice}")
        if missing := [name for name in (_DATASET, _PLANS) if not (root / name).is_file()]:
            raise FileError(f"cannot read an nnU-Net model from {root}: {' and '.join(missing)} is missing; {advice}")
        paths = {p.name[5:]: p / checkpoint for p in sorted(root.glob("fold_*")) if (p / checkpoint).is_file()}
        if not paths:
            raise FileError(f"cannot read an nnU-Net model from {root}: there is no fold_*/{checkpoint}; {advice}")
        numbered = tuple(int(name) for name in paths if name.isdecimal())
        selected = folds or numbered or ("all",)
        if unknown := [fold for fold in selected if str(fold) not in paths]:
            raise ConfigError(
                f"folds must be among those of the model in {root}, {', '.join(paths)}, got {unknown[0]!r}; omit it to "
                "use all of them"
            )
        files = (root / _DATASET, root / _PLANS, *(paths[str(fold)] for fold in selected))
        return cls(
            files=tuple(stat_file(path) for path in files),
            folds=selected,
            checkpoint=checkpoint,
            test_time_augmentation=test_time_augmentation,
            step=step,
        )

    @property
    def folder(self) -> Path:
        """Folder of the model."""
        return Path(self.files[0][0]).parent

    def read_json(self, name: str) -> Any:
        """Read ``"dataset.json"`` or ``"plans.json"``.

        Raises
        ------
        FileError
            If the file is not a JSON object.
        """
        try:
            table = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {self.folder / name}: {error}; copy the model again") from error
        if not isinstance(table, dict):
            raise FileError(
                f"cannot read {self.folder / name}: it must be a JSON object, got {type(table).__name__}; copy the "
                "model again"
            )
        return table

    def check(self, channels: int, orientation: str, *, probabilities: bool) -> None:
        """Raise `ConfigError` unless the model fits the image and the output; `FileError` if it is damaged."""
        dataset, plans = self.read_json(_DATASET), self.read_json(_PLANS)
        names = dataset.get("channel_names", dataset.get("modality"))
        if not isinstance(names, dict):
            raise FileError(
                f"cannot read {self.folder / _DATASET}: channel_names must be a JSON object, got {names!r}; copy the "
                "model again"
            )
        if len(names) != channels:
            raise ConfigError(
                f"images must have {len(names)} channels for the model in {self.folder} "
                f"({', '.join(map(str, names.values()))}), got {channels}; pass these channels, or use another model"
            )
        if plans.get("image_reader_writer") == _RAS_READER and orientation != "RAS":
            raise ConfigError(
                f"orientation must be 'RAS' for the model in {self.folder}, whose training images were reoriented to "
                f"RAS, got {orientation!r}; omit it"
            )
        if probabilities and "regions_class_order" in dataset:
            raise ConfigError(
                f"output must be 'labels' for the model in {self.folder}, whose classes are overlapping regions, got "
                "'probabilities'; set output='labels'"
            )


def predict(
    model: Model, array: np.ndarray, spacing: tuple[float, float, float], device: torch.device, *, probabilities: bool
) -> np.ndarray:
    """Predict labels ``[1, k, j, i]`` (integers) or probabilities ``[classes, k, j, i]`` (float32).

    Parameters
    ----------
    model
        Trained model.
    array
        Image, float32 ``[c, k, j, i]``: the axis order of SimpleITK, slowest axis first.
    spacing
        Voxel size in mm, in the same order.
    device
        Device on which the network runs.
    probabilities
        Whether to return probabilities instead of labels.

    Raises
    ------
    MissingExtraError
        If nnU-Net is not installed.
    FileError, ConfigError
        If the model cannot be loaded, or is the second stage of a cascade.
    InputError
        If the image is 0 everywhere, because nnU-Net crops images to their non-zero voxels.
    """
    if not array.any():
        raise InputError("image must have a voxel other than 0 for nnU-Net, got 0 everywhere; check the image")
    predictor = _load(model, device)
    with _silence():
        result = predictor.predict_single_npy_array(
            array, {"spacing": list(spacing)}, save_or_return_probabilities=probabilities
        )
    return np.asarray(result[1], dtype=np.float32) if probabilities else np.asarray(result)[None]


@functools.lru_cache(maxsize=2)
def _load(model: Model, device: torch.device) -> Any:
    nnunet = _import_nnunet()
    with _silence():
        predictor = nnunet.nnUNetPredictor(
            tile_step_size=model.step, use_mirroring=model.test_time_augmentation, device=device, allow_tqdm=False
        )
        check_plans(model.read_json(_PLANS), model.folder / _PLANS)
        for stamp in model.files[2:]:
            check_checkpoint(Path(stamp[0]))
        try:
            predictor.initialize_from_trained_model_folder(str(model.folder), model.folds, model.checkpoint)
            cascaded = predictor.configuration_manager.previous_stage_name is not None
        except MemoryError:
            raise
        except Exception as error:  # unpickling a checkpoint may raise anything
            raise FileError(
                f"cannot load the nnU-Net model in {model.folder}: {type(error).__name__}: {error}; check that no file "
                "is damaged and that its version of nnU-Net and its trainer are installed"
            ) from error
    if cascaded:
        raise ConfigError(
            f"model_folder must be a model of a single stage, got {model.folder}, the second stage of a cascade, which "
            "needs the output of the first; use another configuration"
        )
    return predictor


def _import_nnunet() -> Any:
    """Import the predictor of nnU-Net."""
    try:
        with _silence():
            return importlib.import_module("nnunetv2.inference.predict_from_raw_data")
    except ImportError as error:
        raise MissingExtraError(
            "nnU-Net must be installed for NNUNetFeatures, got no package nnunetv2; run "
            "pip install 'convexadam-torch[nnunet]'"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress output and warnings of nnU-Net, and restore the global settings of torch that it changes."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
