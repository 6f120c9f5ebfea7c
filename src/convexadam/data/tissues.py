"""What tissues look like: mean value and texture of each, for each contrast."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

Contrast: TypeAlias = Literal["ct", "t1", "t2"]
CONTRASTS: tuple[str, ...] = get_args(Contrast)


class Look(NamedTuple):
    """Value of a tissue and how strongly it varies, in HU for CT, in arbitrary units for MR."""

    mean: float
    grain: float = 0.0
    """Standard deviation of variations of about 4 mm."""
    cloud: float = 0.0
    """Standard deviation of variations of about 2 cm."""


# One row for each tissue: CT in the portal venous phase, T1-weighted without fat saturation, T2-weighted.
_TABLE: dict[str, tuple[Look, Look, Look]] = {
    "air": (Look(-1000), Look(0), Look(0)),
    "skin": (Look(10, 15), Look(260, 20), Look(150, 15)),
    "fat": (Look(-105, 9, 5), Look(760, 30, 25), Look(480, 28, 20)),
    "strand": (Look(5, 20), Look(420, 40), Look(240, 40)),
    "muscle": (Look(58, 9, 4), Look(270, 22, 10), Look(110, 16, 8)),
    "fascia": (Look(-40, 10), Look(480, 20), Look(260, 20)),
    "cortical": (Look(620, 90), Look(50, 10), Look(30, 8)),
    "marrow": (Look(190, 55, 20), Look(520, 60, 30), Look(300, 45, 25)),
    "cartilage": (Look(110, 12), Look(240, 20), Look(180, 20)),
    "disc": (Look(85, 8), Look(230, 15), Look(330, 40)),
    "csf": (Look(14, 3), Look(90, 6), Look(900, 20)),
    "cord": (Look(42, 5), Look(330, 15), Look(330, 15)),
    "lung": (Look(-860, 25, 20), Look(35, 8), Look(30, 8)),
    "lung_vessel": (Look(30, 30), Look(90, 20), Look(60, 15)),
    "liver": (Look(106, 7, 3), Look(430, 17, 9), Look(190, 13, 7)),
    "spleen": (Look(122, 8, 4), Look(270, 15, 8), Look(390, 20, 10)),
    "cortex": (Look(190, 14), Look(370, 18), Look(370, 20)),
    "medulla": (Look(128, 10), Look(230, 15), Look(540, 25)),
    "urine": (Look(18, 4), Look(100, 8), Look(880, 20)),
    "pancreas": (Look(98, 16, 4), Look(470, 40, 10), Look(230, 28, 10)),
    "adrenal": (Look(75, 8), Look(330, 15), Look(230, 15)),
    "bile": (Look(8, 3), Look(190, 10, 15), Look(900, 20)),
    "artery": (Look(168, 6), Look(95, 10), Look(55, 10)),
    "vein": (Look(172, 8), Look(110, 12), Look(65, 12)),
    "heart": (Look(145, 10, 6), Look(220, 35, 25), Look(130, 30, 20)),
    "lesion": (Look(62, 10, 6), Look(250, 20, 15), Look(520, 40, 30)),
    "lesion_rim": (Look(138, 8), Look(330, 15), Look(330, 20)),
    "lesion_core": (Look(30, 8), Look(180, 15), Look(800, 40)),
    "gut_wall": (Look(88, 12), Look(330, 25), Look(230, 25)),
    "gut_fluid": (Look(22, 8, 5), Look(180, 25, 20), Look(800, 60, 50)),
    "chyme": (Look(45, 22, 10), Look(330, 60, 40), Look(520, 90, 60)),
    "stool": (Look(25, 90, 30), Look(400, 110, 60), Look(260, 90, 50)),
    "gas": (Look(-960, 10), Look(15, 5), Look(15, 5)),
}


def looks(contrast: str) -> dict[str, Look]:
    """Each tissue's look in one of `CONTRASTS`."""
    column = CONTRASTS.index(contrast)
    return {tissue: row[column] for tissue, row in _TABLE.items()}


LABEL_NAMES: dict[int, str] = {
    0: "background",
    1: "liver",
    2: "spleen",
    3: "right kidney",
    4: "left kidney",
    5: "stomach",
    6: "gallbladder",
    7: "pancreas",
    8: "aorta",
    9: "vena cava",
    10: "vertebrae",
    11: "spinal canal",
    12: "lungs",
    13: "heart",
    14: "bowel",
    15: "liver lesion",
}
LABELS: dict[str, int] = {name: number for number, name in LABEL_NAMES.items()}
