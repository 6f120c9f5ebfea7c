"""Small models of nnU-Net in the folders that nnU-Net itself writes, untrained or trained on phantoms."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from convexadam import Image
from convexadam.data import phantom_pair

CONFIGURATION = "3d_fullres"

ORGANS = {
    **{"background": 0, "liver": 1, "spleen": 2, "kidneys": 3, "stomach": 4},
    **{"vertebrae": 5, "lungs": 6, "heart": 7, "bowel": 8},
}
_MERGED = torch.tensor([0, 1, 2, 3, 3, 4, 0, 0, 0, 0, 5, 5, 6, 7, 8, 1])
"""Which of `ORGANS` each label of a phantom belongs to."""

SHAPE = (48, 40, 32)


def organs(labels: Image) -> Image:
    """Labels of a phantom as the trained model knows them."""
    return Image(_MERGED[labels.data.long()].int(), labels.grid)


def dataset(channels: int = 1, **extra: Any) -> dict[str, Any]:
    """What ``dataset.json`` says."""
    names = {str(n): f"contrast {n}" for n in range(channels)}
    return {"channel_names": names, "labels": ORGANS, "numTraining": 1, "file_ending": ".nii.gz", **extra}


def plans(
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    features: tuple[int, ...] = (4, 8),
    channels: int = 1,
    transpose: tuple[int, int, int] = (0, 1, 2),
    **extra: Any,
) -> dict[str, Any]:
    """What ``plans.json`` says of a plain U-Net; patch and spacing along k, j, i, transposed."""
    stages = len(features)
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "phantoms",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(patch),
        "spacing": list(spacing_mm),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": architecture,
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Phantoms",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(n) for n in range(3)],
        "configurations": {CONFIGURATION: configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): {} for n in range(channels)},
        **extra,
    }


def network(described: dict[str, Any], plan: dict[str, Any], *, seed: int = 0) -> torch.nn.Module:
    """Build what the plans describe, as nnU-Net does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    manager = PlansManager(plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: torch.nn.Module = nnUNetTrainer.build_network_architecture(
            manager,
            manager.get_configuration(CONFIGURATION),
            len(described["channel_names"]),
            len(ORGANS),
            enable_deep_supervision=False,
        )
    return built


def write(
    folder: Path, described: dict[str, Any], plan: dict[str, Any], networks: dict[str, torch.nn.Module], **extra: Any
) -> Path:
    """Write a model folder with a network for each fold."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(described))
    (folder / "plans.json").write_text(json.dumps(plan))
    for fold, net in networks.items():
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": net.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": CONFIGURATION},
            "inference_allowed_mirroring_axes": None,
        }
        torch.save(checkpoint | extra, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def trained_on_phantoms(folder: Path, *, people: int = 4, steps: int = 150) -> Path:
    """Train a small model on scans of CT and T2 of a few people (seeds from 0 on); half a minute on one core."""
    described = dataset()
    scans = []
    for seed in range(people):
        pair = phantom_pair(SHAPE, contrasts=("ct", "t2"), displacement_mm=25, seed=seed, noise=2)
        scans += [(pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)]
    i, j, k = pair.fixed.grid.spacing_mm
    plan = plans((SHAPE[2], SHAPE[1], SHAPE[0]), (k, j, i), features=(8, 16, 32, 32))
    net = network(described, plan)
    cases = [_preprocessed(image, organs(labels), described, plan) for image, labels in scans]
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=steps)
    for _ in range(steps):
        drawn = [cases[n] for n in torch.randint(len(cases), (2,), generator=generator).tolist()]
        images, labels = (torch.stack(part) for part in zip(*drawn, strict=True))
        optimiser.zero_grad()
        _loss(net(images), labels).backward()
        optimiser.step()
        schedule.step()
    return write(folder, described, plan, {"0": net})


def _preprocessed(
    image: Image, labels: Image, described: dict[str, Any], plan: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a scan to what the network takes, with nnU-Net's own means."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plan)
    configuration = manager.get_configuration(CONFIGURATION)
    data, found, _ = configuration.preprocessor_class(verbose=False).run_case_npy(
        image.data.numpy().transpose(0, 3, 2, 1),
        labels.data.numpy().transpose(0, 3, 2, 1),
        {"spacing": list(image.grid.spacing_mm[::-1])},
        manager,
        configuration,
        described,
    )
    return torch.from_numpy(data), torch.from_numpy(found)[0].long().clamp_min(0)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy and soft Dice of all organs."""
    shares = logits.softmax(1)
    truth = torch.nn.functional.one_hot(labels, len(ORGANS)).movedim(4, 1).float()
    both, either = (shares * truth).sum((0, 2, 3, 4)), (shares + truth).sum((0, 2, 3, 4))
    overlap = (2 * both + 1) / (either + 1)
    return torch.nn.functional.cross_entropy(logits, labels) + 1 - overlap[1:].mean()
