"""Where the registrations of a round start: at the transforms of the round before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from convexadam._atomic import make_folder
from convexadam.geometry import Affine, Grid
from convexadam.geometry.linear_maps import fit_affine
from convexadam.io import PairFiles, write_transform
from convexadam.registration import RegistrationConfig
from convexadam.registration.warm import make_warm_config
from convexadam.template.average import FOREGROUND
from convexadam.template.placement import AlignedScan
from convexadam.template.shape import coarsen


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Files of transforms at which registrations start.

    Attributes
    ----------
    affines
        Affine part of each transform over the foreground of the template, by the id of the scan.
    fields
        The transforms themselves, of those that are not affine, at every second voxel: searches begin there.
    """

    affines: Mapping[str, Path]
    fields: Mapping[str, Path]

    @classmethod
    def write(cls, folder: Path, scans_at: Mapping[str, AlignedScan], grid: Grid, template: torch.Tensor) -> Starts:
        """Write the transforms of all scans."""
        make_folder(folder)
        weight, nodes = (template > FOREGROUND).float(), coarsen(grid)
        affines, fields = dict[str, Path](), dict[str, Path]()
        for name, scan in scans_at.items():
            transform = scan.read()
            affines[name] = folder / f"{name}.tfm"
            if not isinstance(transform, Affine):
                transform = transform.to_displacement_field(nodes)
                fields[name] = folder / f"{name}.nii"
                write_transform(transform, fields[name])
            write_transform(fit_affine(transform, grid, weight), affines[name])
        return cls(affines=affines, fields=fields)

    def apply(
        self, config: RegistrationConfig, pairs: Sequence[PairFiles]
    ) -> tuple[RegistrationConfig, list[PairFiles]]:
        """Return settings and pairs that start there, of the scans that have a start."""
        config = make_warm_config(config) if self.fields else replace(config, linear=None)
        return config, [
            replace(pair, initial_transform=self.affines[pair.id], search_start=self.fields.get(pair.id))
            for pair in pairs
            if pair.id in self.affines
        ]
