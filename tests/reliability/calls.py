"""A valid call of each public callable; ``test_public_callables.py`` replaces its arguments one by one.

The keys are ``package.name``, ``package.Class`` or ``package.Class.method``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from call import (
    FAST,
    FIELD,
    GRID,
    IMAGE,
    LABEL_IMAGE,
    MAPS,
    PER_VOXEL,
    POINTS,
    REFINEMENT,
    SEARCH,
    SHAPE,
    SHIFT,
    VALUES,
    ZEROS,
    Call,
    call,
    make_component,
)
from calls_of_files import make_calls_of_files

import convexadam
from convexadam import (
    Affine,
    Composite,
    Concat,
    DisplacementField,
    Grid,
    Image,
    Intensity,
    MindSSC,
    Precomputed,
    RegistrationConfig,
    RegistrationResult,
    continuous,
    discrete,
    features,
    geometry,
    linear,
    registration,
)
from convexadam.continuous import Lncc, Ssd, WeightedSum
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward


def make_calls(folder: Path) -> dict[str, Call]:
    """Return all calls, with files in a folder."""
    return {
        **_geometry(),
        **_top_level(folder),
        **_components(),
        **_features(),
        **_stages(),
        **make_calls_of_files(folder),
    }


def _geometry() -> dict[str, Call]:
    found: dict[str, Call] = {
        "convexadam.Affine": call(Affine, np.eye(4)),
        "convexadam.Composite": call(Composite, (SHIFT, FIELD)),
        "convexadam.DisplacementField": call(DisplacementField, ZEROS, GRID, None),
        "convexadam.DisplacementField.from_finite": call(DisplacementField.from_finite, ZEROS, GRID),
        "convexadam.DisplacementField.from_voxels": call(DisplacementField.from_voxels, ZEROS, GRID),
        "convexadam.Grid": call(Grid, SHAPE, np.eye(4), 1),
        "convexadam.Grid.index_to_world": call(GRID.index_to_world, POINTS),
        "convexadam.Grid.world_to_index": call(GRID.world_to_index, POINTS),
        "convexadam.Grid.index_map_from": call(GRID.index_map_from, GRID),
        "convexadam.Grid.is_close": call(GRID.is_close, GRID, tolerance=1e-3),
        "convexadam.Grid.pool": call(GRID.pool, (2, 2, 2)),
        "convexadam.Grid.with_spacing": call(GRID.with_spacing, (1.0, 1.0, 2.0)),
        "convexadam.Image": call(Image, VALUES[None], GRID),
        "convexadam.Image.from_array": call(Image.from_array, VALUES, np.eye(4), device="cpu"),
        "convexadam.Image.to": call(IMAGE.to, "cpu"),
        "convexadam.Image.slice": call(IMAGE.slice, "axial", 1),
        "convexadam.compose": call(convexadam.compose, SHIFT, FIELD),
        "convexadam.geometry.jacobian_determinant": call(geometry.jacobian_determinant, ZEROS),
        "convexadam.geometry.resample": call(
            geometry.resample, IMAGE, GRID, mode="linear", fill_value=None, antialias=False, disp_mm=None
        ),
    }
    for name, transform in (("Affine", SHIFT), ("Composite", Composite((SHIFT, FIELD))), ("DisplacementField", FIELD)):
        found |= {
            f"convexadam.{name}.__call__": call(transform, POINTS),
            f"convexadam.{name}.displacement_on": call(transform.displacement_on, GRID, None, VALUES),
            f"convexadam.{name}.to_displacement_field": call(transform.to_displacement_field, GRID),
            f"convexadam.{name}.warp": call(transform.warp, IMAGE, GRID, mode="linear", fill_value=0.0),
            f"convexadam.{name}.warp_points": call(
                transform.warp_points, POINTS, space="voxel", fixed=GRID, moving=GRID
            ),
            f"convexadam.{name}.jacobian": call(transform.jacobian, GRID),
            f"convexadam.{name}.save": call(transform.save, "saved.nii.gz", format=None, fixed=GRID, moving=GRID),
        }
    return found | {"convexadam.DisplacementField.inverse": call(FIELD.inverse, GRID)}


def _top_level(folder: Path) -> dict[str, Call]:
    image, transform, settings = folder / "image.nii.gz", folder / "field.nii.gz", folder / "settings.toml"
    convexadam.write_image(IMAGE, image)
    convexadam.write_transform(FIELD, transform)
    FAST.save(settings)
    result = convexadam.register(VALUES, VALUES, FAST)
    none = dict.fromkeys(
        ("fixed_affine", "moving_affine", "fixed_mask", "moving_mask", "volume_preserving_mask", "sliding_regions")
    ) | dict.fromkeys(("fixed_segmentation", "moving_segmentation", "initial_transform", "device", "progress"))
    landmarks = {"fixed_landmarks": POINTS, "moving_landmarks": POINTS, "landmark_weights": [1.0] * 5}
    return {
        "convexadam.as_image": call(convexadam.as_image, VALUES, None, channels=False, device=None),
        "convexadam.estimate_memory": call(
            convexadam.estimate_memory, (8, 8, 8), FAST, spacing_mm=(1.0, 1.0, 1.0), channels=3
        ),
        "convexadam.preset": call(convexadam.preset, "default"),
        "convexadam.read_image": call(convexadam.read_image, image, channels=False, device=None),
        "convexadam.read_transform": call(
            convexadam.read_transform, transform, format=None, fixed=GRID, moving=GRID, device=None
        ),
        "convexadam.register": call(convexadam.register, VALUES, VALUES, FAST, **none, **landmarks),
        "convexadam.register_batch": call(convexadam.register_batch, [VALUES], [VALUES], FAST, device=None),
        "convexadam.registration.prepare": call(registration.prepare, VALUES, FAST),
        "convexadam.registration.PreparedImage.register": call(registration.prepare(VALUES, FAST).register, VALUES),
        "convexadam.registration.PreparedImage.register_mirrored": call(
            registration.prepare(VALUES, FAST).register_mirrored, VALUES
        ),
        "convexadam.continuous.contrast_coherence": call(
            continuous.contrast_coherence, MAPS, MAPS, ZEROS, (None, None)
        ),
        "convexadam.continuous.DifferentContrasts.check_levels": call(
            continuous.DifferentContrasts(levels=(continuous.Level(),), similarity=Ssd()).check_levels,
            (continuous.Level(),),
        ),
        "convexadam.use_backend": call(convexadam.use_backend, "reference"),
        "convexadam.write_image": call(convexadam.write_image, IMAGE, folder / "written.nii.gz"),
        "convexadam.write_transform": call(
            convexadam.write_transform, FIELD, folder / "written.nii", format=None, fixed=GRID, moving=GRID
        ),
        "convexadam.RegistrationConfig": make_component(RegistrationConfig),
        "convexadam.RegistrationConfig.from_toml": call(RegistrationConfig.from_toml, FAST.to_toml()),
        "convexadam.RegistrationConfig.with_settings": call(FAST.with_settings, "symmetric=true"),
        "convexadam.RegistrationConfig.save": call(FAST.save, folder / "saved.toml"),
        "convexadam.RegistrationConfig.load": call(RegistrationConfig.load, settings),
        "convexadam.RegistrationResult": Call(RegistrationResult, (), dict(vars(result))),
        "convexadam.RegistrationResult.to_type": call(result.to_type, np.ndarray),
        "convexadam.RegistrationResult.evaluate": call(
            result.evaluate,
            LABEL_IMAGE,
            LABEL_IMAGE,
            labels=[1],
            fixed_landmarks=POINTS,
            moving_landmarks=POINTS,
            mask=LABEL_IMAGE,
            surface=False,
        ),
        "convexadam.RegistrationResult.save": call(
            result.save, folder / "saved", outputs=("transform",), labels=LABEL_IMAGE, extra=None
        ),
        "convexadam.RegistrationResult.save_summary": call(result.save_summary, folder / "report.json"),
    }


def _components() -> dict[str, Call]:
    """Components with default settings, by the packages that export them."""
    required: dict[str, dict[str, Any]] = {
        "Concat": {"parts": (MindSSC(), Intensity()), "weights": (1.0, 1.0)},
        "WeightedSum": {"terms": (Ssd(), Lncc()), "weights": (1.0, 1.0), "channels": (1, 1)},
        "NNUNetFeatures": {"model_folder": "model"},
        "TorchScriptFeatures": {"path": "model.pt"},
        "FeatureInput": {"image": IMAGE},
        "Part": {"channels": 1},
        "JointSsd": {"parts": (continuous.Part(channels=1),)},
        "DifferentContrasts": {"levels": (continuous.Level(),), "similarity": Ssd()},
        "PreparedImage": {"fixed": IMAGE, "fixed_mask": None, "config": FAST, "others": {}},
        "Snapshot": {
            "level": 0,
            "iteration": 0,
            "fields": ForwardBackward(forward=ZEROS, spacing=(1, 1, 1)),
            "features": FeatureLevel(fixed=MAPS, moving=MAPS),
        },
        "LinearFit": {
            "transform": SHIFT,
            "model": None,
            "dissimilarity_before": 1.0,
            "dissimilarity_after": 1.0,
        },
        "Preset": {"name": "mine", "summary": "Mine.", "make": RegistrationConfig},
    }
    found = {}
    for package in (convexadam, continuous, features, linear, registration):
        for name in package.__all__:
            kind = getattr(package, name)
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name not in _GIVEN_ABOVE:
                found[f"{package.__name__}.{name}"] = make_component(kind, **required.get(name, {}))
    return found | {"convexadam.discrete.Window": call(discrete.Window, (1, 1, 1), ball=False)}


_GIVEN_ABOVE = ("Affine", "Composite", "DisplacementField", "Grid", "Image", "RegistrationConfig", "RegistrationResult")


def _features() -> dict[str, Call]:
    found: dict[str, Call] = {
        "convexadam.features.check_extractor": call(features.check_extractor, MindSSC(), "features", pairs=True),
        "convexadam.features.count_channels": call(features.count_channels, MindSSC(), 1),
        "convexadam.features.extract_features": call(
            features.extract_features, MindSSC(), IMAGE, PER_VOXEL, weight=VALUES
        ),
        "convexadam.features.memory_bytes_per_voxel": call(features.memory_bytes_per_voxel, MindSSC(), 12),
        "convexadam.features.segmentation_bytes_per_voxel": call(features.segmentation_bytes_per_voxel, MindSSC(), 12),
        "convexadam.features.receptive_radius": call(features.receptive_radius, MindSSC()),
        "convexadam.features.uses_labels": call(features.uses_labels, MindSSC()),
    }
    both = features.FeatureInput(image=IMAGE, weight=VALUES, segmentation=LABEL_IMAGE)
    soft = dataclasses.replace(both, segmentation=Image(MAPS, GRID))
    found["convexadam.features.extract_pair_features"] = call(
        features.extract_pair_features, MindSSC(), both, both, PER_VOXEL
    )
    parts = Concat(parts=(MindSSC(), Intensity()))
    for extractor in (MindSSC(), Intensity(), Precomputed(), parts, features.TorchScriptFeatures(path="model.pt")):
        name = f"convexadam.{_package_of(extractor)}{type(extractor).__name__}"
        found[f"{name}.__call__"] = call(extractor, IMAGE, weight=VALUES)
        found |= _count(name, extractor)
        if isinstance(extractor, features.PooledFeatures):
            found[f"{name}.extract_pooled"] = call(extractor.extract_pooled, IMAGE, PER_VOXEL, weight=VALUES)
    pairs: tuple[tuple[Any, features.FeatureInput], ...] = (
        (parts, both),
        (features.LabelFeatures(), both),
        (features.ProbabilityFeatures(), soft),
        (features.NNUNetFeatures(model_folder="model"), both),
    )
    for extractor, inputs in pairs:
        name = f"convexadam.{_package_of(extractor)}{type(extractor).__name__}"
        found[f"{name}.extract_pair"] = call(extractor.extract_pair, inputs, inputs, PER_VOXEL)
        found |= _count(name, extractor)
        found[f"{name}.segmentation_bytes_per_voxel"] = call(extractor.segmentation_bytes_per_voxel, 12)
    found["convexadam.features.NNUNetFeatures.predict"] = call(pairs[-1][0].predict, IMAGE)
    return found


def _package_of(extractor: object) -> str:
    return "" if type(extractor).__name__ in convexadam.__all__ else "features."


def _count(name: str, extractor: Any) -> dict[str, Call]:
    return {
        f"{name}.count_channels": call(extractor.count_channels, 1),
        f"{name}.memory_bytes_per_voxel": call(extractor.memory_bytes_per_voxel, 12),
    }


def _stages() -> dict[str, Call]:
    window = discrete.Window((1, 1, 1), ball=False)
    costs = discrete.cost_volume(MAPS, MAPS, window)
    level = FeatureLevel(fixed=MAPS, moving=MAPS)
    start = ForwardBackward(forward=ZEROS, backward=ZEROS, spacing=(1, 1, 1))
    coarse = torch.zeros(3, 3, 2, 2)
    found: dict[str, Call] = {
        "convexadam.ConvexSearch.__call__": call(
            SEARCH, MAPS, MAPS, fixed_weight=None, moving_weight=VALUES, voxel_mm=(1.0, 1.0, 1.0)
        ),
        "convexadam.ConvexSearch.control_grid": call(SEARCH.control_grid, SHAPE, (1.0, 1.0, 1.0)),
        "convexadam.ConvexSearch.search_features": call(SEARCH.search_features, level, (1, 1, 1), start=None),
        "convexadam.discrete.cost_volume": call(
            discrete.cost_volume, MAPS, MAPS, window, fixed_weight=None, moving_weight=VALUES, dtype=None
        ),
        "convexadam.discrete.coupled_convex": call(
            discrete.coupled_convex, costs, window, coupling_weights=(0.1, 1.0), parabolic_fit=True
        ),
        "convexadam.discrete.estimate_inverse": call(discrete.estimate_inverse, ZEROS, iterations=2),
        "convexadam.discrete.make_inverse_consistent": call(
            discrete.make_inverse_consistent, ZEROS, ZEROS, iterations=2
        ),
        "convexadam.discrete.soft_displacement": call(discrete.soft_displacement, costs, window, sharpness=1.0),
        "convexadam.Refinement.__call__": call(
            REFINEMENT, MAPS, MAPS, start=None, fixed_weight=None, moving_weight=VALUES, guide=None, soft_mask=None
        ),
        "convexadam.Refinement.control_point_spacings": call(REFINEMENT.control_point_spacings, SHAPE, (1.0, 1.0, 1.0)),
        "convexadam.Refinement.refine": call(
            REFINEMENT.refine,
            **{"extract": lambda number: level, "start": start, "shape": SHAPE},
            **{"symmetric": False, "soft_mask": None, "iterations": ()},
        ),
        "convexadam.Refinement.refine_level": call(REFINEMENT.refine_level, level, None, level=0, soft_mask=None),
        "convexadam.Refinement.upsample": call(REFINEMENT.upsample, coarse, (2, 2, 2), SHAPE),
        "convexadam.Refinement.needs_guide": call(REFINEMENT.needs_guide, 0),
        "convexadam.continuous.Convergence": call(continuous.Convergence, 2, 0.0),
        "convexadam.continuous.Convergence.record": call(continuous.Convergence(2, 0.1).record, 1.0),
        "convexadam.continuous.volume_mask": call(
            continuous.volume_mask, ZEROS, mask=None, sigma=1.5, low=2.0, high=4.0
        ),
        "convexadam.linear.LinearAlignment.__call__": call(
            linear.LinearAlignment(model="rigid", voxels_per_level=(100,)),
            *(IMAGE, IMAGE),
            **dict.fromkeys(("fixed_mask", "moving_mask", "initial")),
            refine=True,
        ),
    }
    for regulariser in (continuous.Diffusion(), continuous.Bending(), continuous.VolumePreserving()):
        name = f"convexadam.continuous.{type(regulariser).__name__}"
        found[f"{name}.__call__"] = call(regulariser, ZEROS, add_to=None, soft_mask=None)
    found["convexadam.continuous.VolumePreserving.curvature"] = call(
        continuous.VolumePreserving().curvature, ZEROS, add_to=torch.zeros(SHAPE), soft_mask=None
    )
    for parametrisation in (continuous.Additive(), continuous.Compositional(), continuous.StationaryVelocity()):
        name = f"convexadam.continuous.{type(parametrisation).__name__}"
        found[f"{name}.initialise"] = call(parametrisation.initialise, ZEROS, None, None, None)
        if isinstance(parametrisation, continuous.HasTotalSmoothing):
            found[f"{name}.with_total_smoothing"] = call(
                parametrisation.with_total_smoothing, continuous.GaussianSmoothing()
            )
    joint = continuous.JointSsd(parts=(continuous.Part(channels=1, radius=1),))
    found["convexadam.continuous.JointSsd.pack"] = call(joint.pack, [MAPS, MAPS], ZEROS, (None, None))
    for similarity in (Ssd(), joint, Lncc(radius=1), WeightedSum(terms=(Ssd(), Ssd()), weights=(1.0, 1.0))):
        name = f"convexadam.continuous.{type(similarity).__name__}"
        found[f"{name}.prepare"] = call(similarity.prepare, MAPS, MAPS, ZEROS, (None, None))
        if isinstance(similarity, continuous.CopiesFeatures):
            found[f"{name}.count_copied_channels"] = call(similarity.count_copied_channels, 12, channels_last=True)
    return found
