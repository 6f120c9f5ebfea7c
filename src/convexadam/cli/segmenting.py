"""``convexadam segment``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

import tyro

from convexadam.cli.common import Header, Preset, UsageError, say
from convexadam.cli.workers import StudyOptions
from convexadam.segmentation import (
    JointFusion,
    LabelFusion,
    LocalVote,
    MajorityVote,
    NonLocalVote,
    segment,
    segment_left_out,
)

METHODS: dict[str, type[LabelFusion]] = {
    "joint": JointFusion,
    "local": LocalVote,
    "majority": MajorityVote,
    "nonlocal": NonLocalVote,
}


@dataclass(frozen=True, kw_only=True)
class Segment(StudyOptions):
    """Segment TARGET by atlases: register each to it, and fuse their labels; the same command continues.

    The default preset is best. DIR holds labels.nii.gz, confidence.nii.gz (share of the votes) and registrations/. With
    --leave-one-out and without TARGET, each atlas is segmented by the others: dice.csv has the overlap of each label.

    Attributes
    ----------
    target
        Image to segment.
    output_dir
        Folder for the results; created if it does not exist.
    atlases
        List of atlases: .csv, .tsv or .json with image, labels and, optionally, id. Paths are relative to it.
    method
        joint: joint label fusion. nonlocal: votes of all similar patches nearby. local: votes weighted by local
        correlation. majority: one vote each.
    most
        Fuse only so many atlases, the most similar ones after registration.
    probabilities_of
        Labels whose probability maps are written: probability_LABEL.nii.gz.
    missing
        Label of voxels where an atlas does not know, and has no vote.
    leave_one_out
        Segment each atlas by the others, and compare.
    quiet
        Print nothing.
    """

    preset: Preset = "best"
    target: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET", help_behavior_hint="")] = None
    output_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    atlases: Annotated[Path, tyro.conf.arg(metavar="MANIFEST")]
    method: Literal["joint", "nonlocal", "local", "majority"] = "joint"
    most: int | None = None
    probabilities_of: tuple[int, ...] = ()
    missing: int | None = None
    leave_one_out: bool = False
    header: Header = None
    quiet: bool = False

    def run(self) -> None:
        """Run the command."""
        if (self.target is None) != self.leave_one_out:
            raise UsageError("TARGET must be given, or --leave-one-out without it; pass one of them")
        with self.open_executor() as executor:
            settings = {
                "output_dir": self.output_dir,
                "config": self.make_config(),
                "method": METHODS[self.method](),
                "most": self.most,
                "missing": self.missing,
                "executor": executor,
            }
            if self.target is None:
                self._segment_left_out(settings)
            else:
                self._segment(self.target, settings)

    def _segment(self, target: Path, settings: dict[str, object]) -> None:
        settings["probabilities_of"] = self.probabilities_of
        found = segment(target, self.atlases, **settings)  # type: ignore[arg-type]
        for name, error in found.failed.items():
            say(f"convexadam: warning: atlas {name} could not be registered: {error}")
        if not self.quiet:
            agree = 100 * float((found.fusion.confidence.data == 1).float().mean())
            count = "1 atlas" if len(found.atlases) == 1 else f"{len(found.atlases)} atlases"
            say(f"{count} fused, which agree at {agree:.1f} % of the voxels; {self.output_dir / 'labels.nii.gz'}")

    def _segment_left_out(self, settings: dict[str, object]) -> None:
        means = list[float]()
        for name, scores in segment_left_out(self.atlases, **settings):  # type: ignore[arg-type]
            means.append(fmean(scores.values()))
            if not self.quiet:
                say(f"{name}: mean Dice {means[-1]:.4f} over {len(scores)} labels")
        if not self.quiet:
            say(f"mean Dice of {len(means)} atlases {fmean(means):.4f}; {self.output_dir / 'dice.csv'}")
