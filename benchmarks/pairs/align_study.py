"""Make pairs with ground truth from a folder of scans ``NNNN_image.nii.gz`` with labels ``NNNN_label.nii.gz``.

One affine registration by greedy (``-a -dof 12 -m NCC 2x2x2``, from the centres of the images) brings each moving scan
to the grid of its fixed one, once for all tools of ``run.py``; labels by nearest neighbour. Needs ``picsl-greedy`` and
``SimpleITK``: run it with the interpreter of greedy's environment (``.venv-peers/greedy``, which ``run.py`` creates).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - its usual name
from picsl_greedy import Greedy3D

ALIGN = "-d 3 -a -dof 12 -m NCC 2x2x2 -n 100x50x10 -ia-image-centers -i fixed moving -o {affine}"
APPLY = "-d 3 -rf fixed -rm moving resampled -ri NN -rm labels resampled_labels -r {affine}"


def main() -> None:
    """Write a folder for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pairs", nargs="+", required=True, metavar="FIXED-MOVING")
    options = parser.parse_args()
    for pair in options.pairs:
        fixed, moving = pair.split("-")
        align(options.scans, fixed, moving, options.output / f"brain_t1_study_{fixed}_{moving}")


def align(scans: Path, fixed: str, moving: str, folder: Path) -> None:
    """Write the fixed scan, the moving one on its grid, and the labels of both."""
    images = {"fixed": scans / f"{fixed}_image.nii.gz", "moving": scans / f"{moving}_image.nii.gz"}
    read = {side: sitk.ReadImage(str(path), sitk.sitkFloat32) for side, path in images.items()}
    labels = sitk.ReadImage(str(scans / f"{moving}_label.nii.gz"), sitk.sitkFloat32)
    greedy = Greedy3D()
    folder.mkdir(parents=True)
    affine = folder / "affine.mat"
    greedy.execute(ALIGN.format(affine=affine), **read)
    greedy.execute(APPLY.format(affine=affine), **read, labels=labels, resampled=None, resampled_labels=None)
    sitk.WriteImage(read["fixed"], str(folder / "fixed.nii.gz"))
    sitk.WriteImage(greedy["resampled"], str(folder / "moving.nii.gz"))
    sitk.WriteImage(
        sitk.Cast(sitk.ReadImage(str(scans / f"{fixed}_label.nii.gz")), sitk.sitkInt16),
        str(folder / "fixed_label.nii.gz"),
    )
    sitk.WriteImage(sitk.Cast(greedy["resampled_labels"], sitk.sitkInt16), str(folder / "moving_label.nii.gz"))


if __name__ == "__main__":
    main()
