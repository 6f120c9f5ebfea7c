"""A small task of Learn2Reg, made of phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from convexadam import Image, write_image
from convexadam.data import phantom_pair
from convexadam.io import write_landmarks

SHAPE = (32, 28, 24)
PAIRS = [
    {"fixed": f"./imagesTr/Phantom_{n:04}_0000.nii.gz", "moving": f"./imagesTr/Phantom_{n:04}_0001.nii.gz"}
    for n in (1, 2)
]
QUICK = ("discrete.spacing=3", "discrete.radius=2", "continuous.levels.0.iterations=5", 'linear="none"')
"""Settings with which a pair takes a fraction of a second."""


def make_description(**changes: Any) -> dict[str, Any]:
    """Return the content of dataset.json; ``None`` omits a key."""
    data = {
        "name": "Phantom",
        "release": "1.1",
        "modality": {"0": "CT", "1": "CT"},
        "labels": {"0": {"0": "background", "1": "liver", "2": "spleen", "200": "absent"}},
        "tensorImageShape": {"0": list(SHAPE), "1": list(SHAPE)},
        "training_paired_images": PAIRS[:1],
        "registration_val": PAIRS,
        "registration_test": [],
    }
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def write_description(folder: Path, **changes: Any) -> Path:
    path = folder / "Phantom_dataset.json"
    path.write_text(json.dumps(make_description(**changes)), encoding="utf-8")
    return path


def write_task(folder: Path) -> Path:
    """Write images, labels, masks, keypoints and landmarks; return the folder."""
    for name in ("images", "labels", "masks", "keypoints", "landmarks"):
        (folder / f"{name}Tr").mkdir()
    for number in (1, 2):
        pair = phantom_pair(SHAPE, displacement_mm=30.0, noise=0.2, seed=number)
        for modality, side in enumerate(("fixed", "moving")):
            name = f"Phantom_{number:04}_{modality:04}"
            image, labels = getattr(pair, side), getattr(pair, f"{side}_labels")
            write_image(image, folder / "imagesTr" / f"{name}.nii.gz")
            write_image(labels, folder / "labelsTr" / f"{name}.nii.gz")
            mask = Image((labels.data > 0).to(torch.uint8), labels.grid)
            write_image(mask, folder / "masksTr" / f"{name}.nii.gz")
            points = image.grid.world_to_index(getattr(pair, f"{side}_landmarks_mm"))
            write_landmarks(points, folder / "landmarksTr" / f"{name}.csv")
            write_landmarks(points[::2], folder / "keypointsTr" / f"{name}.csv")
    write_description(folder)
    return folder
