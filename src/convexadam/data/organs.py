"""Liver, spleen, kidneys, digestive tract and great vessels."""

from __future__ import annotations

import math

import torch

from convexadam.data.body import liver_distance
from convexadam.data.canvas import Canvas, Crop
from convexadam.data.plan import CAVAL_CONFLUENCE, PORTAL_HILUM, Branch, Plan
from convexadam.data.shapes import Distance, Point, box_around, ellipsoid, round_cone, smooth_max, smooth_min
from convexadam.data.tissues import LABELS
from convexadam.data.wall import SPINE_A, VERTEBRA_MM

AORTA: list[Point] = [(-16, -30, 170), (-14, -22, 90), (-8, -14, 40), (-8, -10, -40), (-6, -12, -95)]
CAVA: list[Point] = [(22, -12, -170), (20, -12, -60), (20, -8, 20), (22, 0, 70), (20, 6, 112), (8, 20, 130)]
RIGHT_KIDNEY: Point = (64, -48, -34)
LEFT_KIDNEY: Point = (-66, -46, -18)
SPLEEN: Point = (-104, -38, 46)
PANCREAS: list[Point] = [(34, 20, -22), (28, 24, -4), (8, 33, 2), (-22, 26, 10), (-52, 6, 20), (-76, -12, 28)]
STOMACH: list[Point] = [(-62, -4, 66), (-66, 18, 46), (-60, 40, 16), (-34, 54, -8), (2, 52, -10), (22, 44, -4)]
GALLBLADDER: Point = (58, 50, -18)


def paint_liver(canvas: Canvas, plan: Plan) -> None:
    """Paint the liver with its venous trees, its lesions and the gallbladder."""
    crop = canvas.crop(((-90, -95, -95), (165, 110, 110)))
    liver = liver_distance(canvas.at(crop)) + 0.8 * canvas.texture[1][crop]
    canvas.paint("liver", liver, crop, label=LABELS["liver"])
    for branch in plan.hepatic:
        _paint_branch(canvas, branch)
    for branch in plan.portal:
        _paint_branch(canvas, branch)
    for lesion in plan.lesions:
        ring = canvas.crop(box_around([lesion.centre], lesion.radius + 8))
        radii = (lesion.radius * 1.1, lesion.radius * 0.95, lesion.radius)
        distance = ellipsoid(canvas.at(ring), lesion.centre, radii) + 1.2 * canvas.texture[1][ring]
        canvas.paint("lesion_rim", distance, ring, label=LABELS["liver lesion"])
        canvas.paint("lesion", distance + 2.5, ring)
        canvas.paint("lesion_core", distance + 0.62 * lesion.radius, ring)
    sac = canvas.crop(box_around([GALLBLADDER], 40))
    distance = ellipsoid(canvas.at(sac), GALLBLADDER, (14, 16, 30), (35, 15, 0))
    canvas.paint("gut_wall", distance, sac, label=LABELS["gallbladder"])
    canvas.paint("bile", distance + 1.8, sac)


def _paint_branch(canvas: Canvas, branch: Branch) -> None:
    crop = canvas.crop(box_around([branch.start, branch.end], max(branch.radii) + 2))
    canvas.paint("vein", round_cone(canvas.at(crop), branch.start, branch.end, branch.radii), crop)


def paint_spleen(canvas: Canvas, cavity: Distance) -> None:
    """Paint the spleen: a shell between the stomach and the wall."""
    crop = canvas.crop(box_around([SPLEEN], (60, 70, 70)))
    coords = canvas.at(crop)
    spleen = ellipsoid(coords, SPLEEN, (36, 52, 50), (-20, 0, 25))
    hilum = ellipsoid(coords, (-66, -8, 44), (36, 42, 52), (-10, 0, 20))
    spleen = torch.maximum(smooth_max(spleen, -hilum, 8), cavity[crop] + 4)
    canvas.paint("spleen", spleen + 0.6 * canvas.texture[1][crop], crop, label=LABELS["spleen"])


def paint_kidneys(canvas: Canvas) -> None:
    """Paint both kidneys: cortex, pyramids, sinus fat and the pelvis with its ureter; then the adrenals."""
    for centre, side, label in ((RIGHT_KIDNEY, 1, LABELS["right kidney"]), (LEFT_KIDNEY, -1, LABELS["left kidney"])):
        crop = canvas.crop(box_around([centre], (48, 46, 66)))
        coords = canvas.at(crop)
        tilt = (0.0, side * 12.0, side * 28.0)
        kidney = ellipsoid(coords, centre, (29, 24, 54), tilt)
        notch = (centre[0] - side * 30, centre[1] + 14, centre[2] + 2)
        kidney = smooth_max(kidney, -ellipsoid(coords, notch, (17, 15, 17)), 8) + 0.5 * canvas.texture[1][crop]
        canvas.paint("cortex", kidney, crop, label=label)
        sinus = ellipsoid(coords, (centre[0] - side * 7, centre[1] + 4, centre[2]), (14, 9, 30), tilt)
        _paint_pyramids(canvas, crop, kidney, sinus, centre)
        canvas.paint("fat", torch.maximum(sinus + 1.5 * canvas.texture[1][crop], kidney + 3), crop)
        pelvis = ellipsoid(coords, (centre[0] - side * 13, centre[1] + 7, centre[2] - 3), (11, 6, 12), tilt)
        canvas.paint("urine", pelvis, crop)
        start: Point = (centre[0] - side * 20, centre[1] + 9, centre[2] - 8)
        down: list[Point] = [start, (side * 42, -30, -90), (side * 44, -20, -170)]
        distance, part = canvas.tube(down, [3.5, 2.6, 2.6])
        canvas.paint("urine", distance, part)
        top = 34.0 - 6 * side
        gland: list[Point] = [(side * 40, -40, top), (side * 37, -26, top - 6), (side * 46, -42, top - 16)]
        distance, part = canvas.tube(gland, [2.4, 3.2, 2.4])
        canvas.paint("adrenal", distance, part)


def _paint_pyramids(canvas: Canvas, crop: Crop, kidney: Distance, sinus: Distance, centre: Point) -> None:
    coords = canvas.at(crop)
    around = torch.atan2((coords[2] - centre[2]) / 1.9, coords[0] - centre[0])
    between = 5 * torch.cos(7 * around + 1.5 * torch.sin((coords[1] - centre[1]) / 7))  # columns of cortex
    pyramids = torch.maximum(kidney + 7.5, between - 2.6)
    canvas.paint("medulla", torch.maximum(pyramids, 1.0 - sinus), crop)


def paint_stomach(canvas: Canvas) -> None:
    """Paint the stomach: wall, content and, in front, gas above a level."""
    crop = canvas.crop(box_around(STOMACH, 48))
    coords = canvas.at(crop)
    radii = (34.0, 33.0, 27.0, 21.0, 14.0, 9.0)
    stomach = round_cone(coords, STOMACH[0], STOMACH[1], radii[:2])
    for n in range(1, len(radii) - 1):
        stomach = smooth_min(stomach, round_cone(coords, STOMACH[n], STOMACH[n + 1], (radii[n], radii[n + 1])), 8)
    folds = stomach + 1.2 * canvas.texture[2][crop]
    canvas.paint("gut_wall", stomach, crop, label=LABELS["stomach"])
    canvas.paint("chyme", folds + 4.5, crop)
    canvas.paint("gut_fluid", torch.maximum(folds + 4.5, 12 - coords[1] + 8 * canvas.texture[1][crop]), crop)
    canvas.paint("gas", torch.maximum(folds + 4.5, 34 - coords[1]), crop)


def paint_pancreas(canvas: Canvas) -> None:
    """Paint the lobulated pancreas and the duodenum around its head."""
    loop: list[Point] = [(22, 44, -4), (46, 32, -6), (54, 16, -22), (46, 8, -48), (16, 6, -56), (-16, 8, -50)]
    _paint_gut(canvas, loop, [10.0, 12.0, 12.0, 12.0, 11.0, 11.0], ("gut_fluid", 3.0))
    distance, crop = canvas.tube(PANCREAS, [13.0, 14.0, 9.5, 10.0, 10.5, 7.0])
    canvas.paint("pancreas", distance + 1.8 * canvas.texture[0][crop], crop, label=LABELS["pancreas"])


def _paint_gut(
    canvas: Canvas, line: list[Point], radii: list[float], content: tuple[str, float], gas: float | None = None
) -> None:
    """Paint a piece of bowel: wall, content, and gas in front of its axis by ``gas`` mm where given."""
    distance, crop = canvas.tube(line, radii)
    a, s = canvas.at(crop)[1], canvas.at(crop)[2]
    pouches = distance + 2.0 * torch.sin(canvas.at(crop)[0] / 6) * torch.sin(s / 6) if gas is not None else distance
    canvas.paint("gut_wall", pouches, crop, label=LABELS["bowel"])
    tissue, wall = content
    inner = pouches + wall + 0.8 * canvas.texture[0][crop]
    canvas.paint(tissue, inner, crop)
    if gas is not None:
        middle = sum(p[1] for p in line) / len(line)
        level = middle + gas - a + 9 * canvas.texture[2][crop]
        canvas.paint("gas", torch.maximum(inner + 1, level), crop)


def paint_bowel(canvas: Canvas, plan: Plan) -> None:
    """Paint the loops of small bowel and the colon around them."""
    for n, line in enumerate(plan.loops):
        _paint_gut(canvas, list(line), [11.0] * len(line), (("gut_fluid", "chyme")[n % 2], 2.8))
    ascending: list[Point] = [(106, 2, -175), (108, 0, -120), (104, 10, -92), (94, 34, -78)]
    transverse: list[Point] = [
        (94, 38, -80),
        (58, 72, -66),
        (16, 84, -62),
        (-30, 82, -50),
        (-78, 56, -30),
        (-108, 14, -12),
    ]
    descending: list[Point] = [(-108, 14, -12), (-116, -14, -30), (-112, -18, -90), (-104, -6, -175)]
    _paint_gut(canvas, descending, [14.0] * 4, ("stool", 2.5), 9.0)
    _paint_gut(canvas, ascending, [23.0, 24.0, 23.0, 19.0], ("stool", 2.5), 12.0)
    _paint_gut(canvas, transverse, [18.0, 17.0, 16.0, 16.0, 17.0, 16.0], ("stool", 2.5), 4.0)


def paint_vessels(canvas: Canvas) -> None:
    """Paint aorta and vena cava with the vessels that leave and join them."""
    behind: list[tuple[str, list[Point], list[float]]] = [
        ("vein", [(20, -8, -18), (44, -34, -32)], [5.0, 3.5]),
        ("vein", [(20, -4, -12), (-12, 4, -12), (-44, -32, -16)], [5.0, 5.0, 3.5]),
        ("artery", [(-8, -11, -14), (16, -22, -20), (44, -36, -30)], [3.6, 3.2, 2.6]),
        ("artery", [(-8, -11, -12), (-44, -36, -14)], [3.6, 2.6]),
    ]
    for tissue, line, radii in behind:
        distance, crop = canvas.tube(line, radii)
        canvas.paint(tissue, distance, crop)
    distance, crop = canvas.tube(CAVA, [10.0, 11.0, 11.5, 12.0, 12.0, 13.0])
    canvas.paint("vein", distance, crop, label=LABELS["vena cava"])
    distance, crop = canvas.tube(AORTA, [12.0, 11.5, 10.5, 9.5, 9.0])
    canvas.paint("artery", distance, crop, label=LABELS["aorta"])
    calcified = torch.maximum(distance.abs() - 1.4, 16 * (1.3 - canvas.texture[1][crop]))
    canvas.paint("cortical", calcified, crop)
    for side in (-1, 1):
        iliac: list[Point] = [(-6, -12, -92), (-6 + side * 24, -8, -130), (-6 + side * 40, -2, -170)]
        distance, crop = canvas.tube(iliac, [7.5, 6.5, 6.0])
        canvas.paint("artery", distance, crop)
    front: list[tuple[str, list[Point], list[float]]] = [
        ("artery", [(-8, -12, 24), (-8, 14, 26), (14, 22, 28), (34, 20, 22)], [4.0, 3.6, 3.0, 2.2]),
        ("artery", [(-8, 14, 26), (-40, 2, 30), (-72, -20, 40)], [3.2, 3.0, 2.4]),
        ("artery", [(-8, -10, 8), (-9, 10, -4), (-6, 22, -40), (2, 30, -95)], [4.2, 4.0, 3.6, 2.6]),
        ("vein", [(8, 32, -95), (8, 24, -40), (10, 22, 0), PORTAL_HILUM], [4.0, 5.2, 6.4, 6.4]),
        ("vein", [(10, 22, 0), (-24, 18, 10), (-54, 0, 22), (-76, -20, 36)], [5.0, 4.6, 4.4, 3.6]),
    ]
    for tissue, line, radii in front:
        distance, crop = canvas.tube(line, radii)
        canvas.paint(tissue, distance, crop)


def landmarks(plan: Plan) -> list[Point]:
    """Return anatomical landmarks of the nominal torso, in mm."""
    trees = [b.end for b in (*plan.portal, *plan.hepatic)][:24]
    poles: list[Point] = []
    for centre, side in ((RIGHT_KIDNEY, 1), (LEFT_KIDNEY, -1)):
        lean = math.radians(12.0 * side)
        for up in (-1, 1):
            poles.append((centre[0] + up * 54 * math.sin(lean), centre[1], centre[2] + up * 54 * math.cos(lean)))
        poles.append((centre[0] - side * 20, centre[1] + 9, centre[2]))
    rims = ((0.0, SPINE_A + 18.0), (0.0, SPINE_A - 18.0), (24.5, SPINE_A), (-24.5, SPINE_A))
    plates = [n * VERTEBRA_MM + end * 14.5 for n, end in ((-2, 1), (-1, 1), (0, 1), (1, 1))]
    spine: list[Point] = [(r, a, s) for s in plates for r, a in rims]
    vessels: list[Point] = [(-8, -12, 24), (-8, -10, 8), (-8, -11, -13), (20, -8, -16), (10, 22, 0)]
    organs: list[Point] = [PANCREAS[0], PANCREAS[-1], STOMACH[-1], (-104, -38, 90), GALLBLADDER]
    organs += [PORTAL_HILUM, CAVAL_CONFLUENCE, *(lesion.centre for lesion in plan.lesions)]
    return [*poles, *spine, *vessels, *organs, *trees]
