"""Mean value and texture of each tissue, for each contrast."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

Contrast: TypeAlias = Literal["ct", "t1", "t2"]
CONTRASTS: tuple[str, ...] = get_args(Contrast)


class Appearance(NamedTuple):
    """Mean value and variation of a tissue, in HU for CT, in arbitrary units for MR."""

    mean: float
    grain: float = 0.0
    """Standard deviation of variations of about 4 mm."""
    cloud: float = 0.0
    """Standard deviation of variations of about 2 cm."""


# One row for each tissue: CT in the portal venous phase, T1-weighted without fat saturation, T2-weighted.
_TABLE: dict[str, tuple[Appearance, Appearance, Appearance]] = {
    "air": (Appearance(-1000), Appearance(0), Appearance(0)),
    "skin": (Appearance(10, 15), Appearance(260, 20), Appearance(150, 15)),
    "fat": (Appearance(-105, 9, 5), Appearance(760, 30, 25), Appearance(480, 28, 20)),
    "strand": (Appearance(5, 20), Appearance(420, 40), Appearance(240, 40)),
    "muscle": (Appearance(58, 9, 4), Appearance(270, 22, 10), Appearance(110, 16, 8)),
    "fascia": (Appearance(-40, 10), Appearance(480, 20), Appearance(260, 20)),
    "cortical": (Appearance(620, 90), Appearance(50, 10), Appearance(30, 8)),
    "marrow": (Appearance(190, 55, 20), Appearance(520, 60, 30), Appearance(300, 45, 25)),
    "cartilage": (Appearance(110, 12), Appearance(240, 20), Appearance(180, 20)),
    "disc": (Appearance(85, 8), Appearance(230, 15), Appearance(330, 40)),
    "csf": (Appearance(14, 3), Appearance(90, 6), Appearance(900, 20)),
    "cord": (Appearance(42, 5), Appearance(330, 15), Appearance(330, 15)),
    "lung": (Appearance(-860, 25, 20), Appearance(35, 8), Appearance(30, 8)),
    "lung_vessel": (Appearance(30, 30), Appearance(90, 20), Appearance(60, 15)),
    "liver": (Appearance(106, 7, 3), Appearance(430, 17, 9), Appearance(190, 13, 7)),
    "spleen": (Appearance(122, 8, 4), Appearance(270, 15, 8), Appearance(390, 20, 10)),
    "cortex": (Appearance(190, 14), Appearance(370, 18), Appearance(370, 20)),
    "medulla": (Appearance(128, 10), Appearance(230, 15), Appearance(540, 25)),
    "urine": (Appearance(18, 4), Appearance(100, 8), Appearance(880, 20)),
    "pancreas": (Appearance(98, 16, 4), Appearance(470, 40, 10), Appearance(230, 28, 10)),
    "adrenal": (Appearance(75, 8), Appearance(330, 15), Appearance(230, 15)),
    "bile": (Appearance(8, 3), Appearance(190, 10, 15), Appearance(900, 20)),
    "artery": (Appearance(168, 6), Appearance(95, 10), Appearance(55, 10)),
    "vein": (Appearance(172, 8), Appearance(110, 12), Appearance(65, 12)),
    "heart": (Appearance(145, 10, 6), Appearance(220, 35, 25), Appearance(130, 30, 20)),
    "lesion": (Appearance(62, 10, 6), Appearance(250, 20, 15), Appearance(520, 40, 30)),
    "lesion_rim": (Appearance(138, 8), Appearance(330, 15), Appearance(330, 20)),
    "lesion_core": (Appearance(30, 8), Appearance(180, 15), Appearance(800, 40)),
    "gut_wall": (Appearance(88, 12), Appearance(330, 25), Appearance(230, 25)),
    "gut_fluid": (Appearance(22, 8, 5), Appearance(180, 25, 20), Appearance(800, 60, 50)),
    "chyme": (Appearance(45, 22, 10), Appearance(330, 60, 40), Appearance(520, 90, 60)),
    "stool": (Appearance(25, 90, 30), Appearance(400, 110, 60), Appearance(260, 90, 50)),
    "gas": (Appearance(-960, 10), Appearance(15, 5), Appearance(15, 5)),
}


def select_appearances(contrast: str) -> dict[str, Appearance]:
    """Return the appearance of each tissue in one of `CONTRASTS`."""
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
