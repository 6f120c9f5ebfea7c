"""Trained models of nnU-Net. The only module that knows nnU-Net."""

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
from convexadam.features.prediction_cache import Stamp, stamp

Fold: TypeAlias = int | Literal["all"]

_DESCRIPTIONS = ("dataset.json", "plans.json")
_TURNS = "NibabelIOWithReorient"
"""The reader of nnU-Net that turns images before the network sees them: to RAS."""


@final
@dataclass(frozen=True, kw_only=True)
class Model:
    """Files of a trained model, in a state that was looked at, and how to predict with it."""

    files: tuple[Stamp, ...]
    folds: tuple[Fold, ...]
    checkpoint: str
    mirroring: bool
    step: float

    @classmethod
    def found(
        cls, folder: str, folds: tuple[Fold, ...] | None, checkpoint: str, *, mirroring: bool, step: float
    ) -> Model:
        """Look for a model's files; ``None`` takes all folds but ``"all"``, or that one where there is no other.

        Raises
        ------
        FileError
            If the folder holds no trained model.
        ConfigError
            If it has no such fold.
        """
        root = Path(folder)
        needed = f"needed is the folder with dataset.json, plans.json, and in fold_0 and the like {checkpoint}"
        if not root.is_dir():
            raise FileError(f"there is no folder {root} with a model of nnU-Net; {needed}")
        if missing := [name for name in _DESCRIPTIONS if not (root / name).is_file()]:
            raise FileError(f"{root} holds no model of nnU-Net: {' and '.join(missing)} is missing; {needed}")
        there = {p.name[5:]: p / checkpoint for p in sorted(root.glob("fold_*")) if (p / checkpoint).is_file()}
        if not there:
            raise FileError(f"{root} holds no trained fold: no fold_*/{checkpoint}; {needed}")
        numbered = tuple(int(name) for name in there if name.isdecimal())
        taken = folds or numbered or ("all",)
        if unknown := [fold for fold in taken if str(fold) not in there]:
            raise ConfigError(f"the model in {root} has no fold {unknown[0]!r}; it has {', '.join(there)}")
        files = (*(root / name for name in _DESCRIPTIONS), *(there[str(fold)] for fold in taken))
        return cls(
            files=tuple(stamp(path) for path in files),
            folds=taken,
            checkpoint=checkpoint,
            mirroring=mirroring,
            step=step,
        )

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return Path(self.files[0][0]).parent

    def described(self, name: str) -> Any:
        """Return what ``"dataset.json"`` or ``"plans.json"`` says.

        Raises
        ------
        FileError
            If it is no JSON table.
        """
        try:
            table = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"{self.folder / name} cannot be read: {error}") from error
        if not isinstance(table, dict):
            raise FileError(f"{self.folder / name} is no description of a model of nnU-Net")
        return table

    def check(self, channels: int, orientation: str, *, probabilities: bool) -> None:
        """Raise `ConfigError` unless the model fits an image and what is asked of it; `FileError` if it is damaged."""
        dataset, plans = self.described(_DESCRIPTIONS[0]), self.described(_DESCRIPTIONS[1])
        needed = dataset.get("channel_names", dataset.get("modality"))
        if not isinstance(needed, dict):
            raise FileError(f"{self.folder / _DESCRIPTIONS[0]} does not say which channels the model takes")
        if len(needed) != channels:
            names = ", ".join(map(str, needed.values()))
            raise ConfigError(
                f"the model in {self.folder} takes images of {len(needed)} channels ({names}), but one of {channels} "
                "came"
            )
        if plans.get("image_reader_writer") == _TURNS and orientation != "RAS":
            raise ConfigError(
                f"the model in {self.folder} was trained on images turned to RAS, but orientation is {orientation!r}; "
                "leave it out"
            )
        if probabilities and "regions_class_order" in dataset:
            raise ConfigError(
                f"the model in {self.folder} predicts regions that overlap, whose probabilities are no shares; set "
                "output='labels'"
            )


def predict(
    model: Model, array: np.ndarray, spacing: tuple[float, float, float], device: torch.device, *, probabilities: bool
) -> np.ndarray:
    """Labels ``[1, ...]`` (whole numbers) or probabilities ``[classes, ...]`` (float32) of an image.

    Parameters
    ----------
    model
        Which one.
    array
        float32 ``[c, k, j, i]``: axes as SimpleITK reads them, the slowest first.
    spacing
        In mm, in the same order.
    device
        Where the network runs.
    probabilities
        Whether probabilities are asked for.

    Raises
    ------
    MissingExtraError
        If nnU-Net is not installed.
    FileError, ConfigError
        If the model cannot be loaded, or needs the output of another one.
    InputError
        If the image is 0 everywhere: nnU-Net leaves such voxels out.
    """
    if not array.any():
        raise InputError("the image is 0 everywhere, and nnU-Net finds nothing to look at; is it the right one?")
    predictor = _loaded(model, device)
    with _quiet():
        found = predictor.predict_single_npy_array(
            array, {"spacing": list(spacing)}, save_or_return_probabilities=probabilities
        )
    return np.asarray(found[1], dtype=np.float32) if probabilities else np.asarray(found)[None]


@functools.lru_cache(maxsize=2)
def _loaded(model: Model, device: torch.device) -> Any:
    nnunet = _nnunet()
    with _quiet():
        predictor = nnunet.nnUNetPredictor(
            tile_step_size=model.step, use_mirroring=model.mirroring, device=device, allow_tqdm=False
        )
        try:
            predictor.initialize_from_trained_model_folder(str(model.folder), model.folds, model.checkpoint)
            cascaded = predictor.configuration_manager.previous_stage_name is not None
        except MemoryError:
            raise
        except Exception as error:  # a pickle may raise anything
            raise FileError(
                f"the model in {model.folder} cannot be loaded ({type(error).__name__}: {error}); is a file damaged, "
                "or was it made by a version of nnU-Net or a trainer that is not installed here?"
            ) from error
    if cascaded:
        raise ConfigError(
            f"the model in {model.folder} is the second of a cascade, which needs the output of the first; take "
            "another configuration"
        )
    return predictor


def _nnunet() -> Any:
    """Import the predictor of nnU-Net, or say how to install it."""
    try:
        with _quiet():
            return importlib.import_module("nnunetv2.inference.predict_from_raw_data")
    except ImportError as error:
        raise MissingExtraError(
            "NNUNetFeatures needs nnU-Net, which is not installed: pip install 'convexadam-torch[nnunet]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what nnU-Net prints and warns of from the user, and undo what it sets for all of torch."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
