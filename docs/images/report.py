"""Draw report_pair.webp and report_cohort.webp: pages of phantoms in a headless Chromium. Run it with no arguments."""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image as Pillow

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "tests"))

from chromium import Chromium, find_chromium  # noqa: E402 - it drives the tests of the pages as well

from convexadam import Grid, Image, register, write_image, write_transform  # noqa: E402
from convexadam.data import phantom_pair  # noqa: E402
from convexadam.report import measure_quality, mirror_image, write_report  # noqa: E402

PAIRS = 14
SHAPE = (80, 64, 60)


def spoil(moving: Image, number: int) -> Image:
    """Return the moving image of a pair: one is flipped, one is cropped, one is upside down."""
    if number == 5:
        return mirror_image(moving)
    if number == 9:
        i, j, k = moving.grid.shape
        return Image(moving.data[..., : k // 2].contiguous(), Grid((i, j, k // 2), moving.grid.affine))
    return Image(moving.data.flip(2, 3), moving.grid) if number == 12 else moving


def make_cohort(folder: Path) -> None:
    """Register torsos, and write what a cohort writes."""
    lines = []
    for number in range(PAIRS):
        name, pair = f"sub-{number:02}", phantom_pair(SHAPE, seed=number)
        moving, out = spoil(pair.moving, number), folder / "pairs" / f"sub-{number:02}"
        out.mkdir(parents=True)
        images = {"fixed": pair.fixed, "moving": moving}
        if moving is pair.moving:
            images |= {"fixed_labels": pair.fixed_labels, "moving_labels": pair.moving_labels}
        paths = {side: folder.parent / f"{name}_{side}.nii.gz" for side in images}
        for side, image in images.items():
            write_image(image, paths[side])
        result = register(pair.fixed, moving)
        write_transform(result.transform, out / "transform.nii.gz")
        quality = measure_quality(result, pair.fixed, moving, mirrored=register(pair.fixed, mirror_image(moving)))
        extra = {
            "inputs": {side: str(path) for side, path in paths.items()},
            "command": f"convexadam register {name}_fixed.nii.gz {name}_moving.nii.gz --output-dir {name}",
            "quality": quality.to_dict(),
        }
        result.save_summary(out / "report.json", extra=extra)
        lines.append([name, "done", ""])
    lines.append([f"sub-{PAIRS}", "failed", "FileError: moving.nii.gz must hold an image, got an incomplete file"])
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "status", "error"], *lines])  # times would differ from run to run
    command = {"command": "convexadam cohort pairs.csv --output-dir torsos"}
    (folder / "cohort.json").write_text(json.dumps(command), encoding="utf-8")
    list(write_report(folder))


def photograph(browser: Chromium, page: Path, size: tuple[int, int], target: Path, *keys: str) -> None:
    """Save what the window shows."""
    browser.send("Emulation.setScrollbarsHidden", hidden=True)
    browser.open(page, *size)
    for key in keys:
        browser.press(key)
    browser.evaluate("new Promise((done) => setTimeout(done, 700))")
    picture = Pillow.open(io.BytesIO(browser.screenshot())).convert("RGB")
    picture.save(target, quality=82, method=6)


def main(target: Path) -> None:
    """Make the cohort in a temporary folder, and the pictures of its page and of a pair in ``target``."""
    program = find_chromium()
    if program is None:
        raise SystemExit("there is no Chromium on the PATH: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, Chromium(program) as browser:
        folder = Path(name) / "torsos"
        make_cohort(folder)
        photograph(browser, folder / "report.html", (1680, 1172), target / "report_cohort.webp")
        pair = folder / "pairs" / "sub-01" / "report.html"
        photograph(browser, pair, (1280, 1010), target / "report_pair.webp", "3")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
