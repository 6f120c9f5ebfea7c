"""Worker: the template of ``ants.build_template``, in an environment that has ``antspyx``.

It writes the template, and for each scan its labels on the template and the transform from the template to the scan,
after the last update of the shape. The CPU seconds are those of the call.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import ants
import harness


def main() -> None:
    """Build the template of the job."""
    job = harness.read_job()
    images = [ants.image_read(name) for name in job["images"]]
    folder = Path(job["folder"])
    start = os.times()
    template = ants.build_template(image_list=images, output_dir=str(folder))
    end = os.times()
    ants.image_write(template, str(folder / "template.nii.gz"))
    for number, name in enumerate(job["labels"]):
        place = folder / f"img{number:04d}"
        parts = [folder / "avgWarp.nii.gz", folder / "avgAffine.mat", place / "out1Warp.nii.gz"]
        chain = {
            "transformlist": [str(part) for part in [*parts, place / "out0GenericAffine.mat"]],
            "whichtoinvert": [False, True, False, False],  # as in the last line of the loop of `build_template`
        }
        labels = ants.image_read(name)
        moved = ants.apply_transforms(template, labels, interpolator="genericLabel", **chain)
        ants.image_write(moved, str(folder / f"labels_{number}.nii.gz"))
        field = ants.apply_transforms(template, labels, compose=str(place / "whole_"), **chain)
        shutil.move(field, folder / f"field_{number}.nii.gz")
    seconds = end.user + end.children_user - start.user - start.children_user
    Path(job["measured"]).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
