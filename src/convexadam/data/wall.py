"""Body wall, ribs, spine and the organs above the diaphragm."""

from __future__ import annotations

import torch

from convexadam.data.body import body_distance, cavity_distance, dome_height, fat_mm
from convexadam.data.canvas import Canvas
from convexadam.data.shapes import Distance, ellipse, ellipsoid, smooth_max, smooth_min
from convexadam.data.tissues import LABELS

VERTEBRA_MM = 36.0
"""Distance from one vertebra to the next."""
SPINE_A = -38.0
"""Position of the centres of the vertebral bodies along A, in mm."""
_RIB_MM = 29.0


def paint_wall(canvas: Canvas) -> Distance:
    """Paint skin, fat, muscles of the wall and the fat of the cavity; return the distance to the cavity."""
    r, a, _ = canvas.coords
    skin = body_distance(canvas.coords)
    canvas.paint("skin", skin)
    canvas.paint("fat", skin + 2.2)
    wall = skin + fat_mm(canvas.coords)
    wall += 1.3 * canvas.texture[1]
    front = torch.exp(-(r / 5).square()) * (a > 20)
    canvas.paint("muscle", wall + 14 * front)  # linea alba: a gap between the straight muscles
    layers = (torch.sin(wall * 1.5 + 0.8) + 0.97) * 8
    canvas.paint("fascia", torch.maximum(layers, (wall + 5.5).abs() - 5.0))
    cavity = cavity_distance(canvas.coords)
    canvas.paint("fat", cavity)
    return cavity


def paint_strands(canvas: Canvas, cavity: Distance) -> None:
    """Paint vessels of the mesentery, which run where both clouds vanish."""
    thread = torch.hypot(canvas.texture[1], canvas.texture[2]) * 9 - 1.7
    canvas.paint("strand", torch.maximum(thread, cavity + 4))


def paint_back(canvas: Canvas) -> None:
    """Paint the muscles along the spine."""
    for side in (-1, 1):
        crop = canvas.crop(((-110 if side < 0 else 0, -115, -400), (0 if side < 0 else 110, 0, 400)))
        r, a, s = canvas.at(crop)
        size = 1 + 0.12 * torch.sigmoid(-(s + 20) / 30)
        erector = ellipse((r - side * 34) / size, (a + 78) / size, (31, 19))
        canvas.paint("muscle", erector + 1.5 * canvas.texture[1][crop], crop)
        septum = ellipse(r - side * 34, a + 78 - 0.12 * r * side, (1.2, 14)) + 1.5 * canvas.texture[2][crop]
        canvas.paint("fat", torch.maximum(septum, erector + 4), crop)
        lumbar = torch.sigmoid(-(s - 5) / 14)
        psoas = ellipse(r - side * (37 + 0.06 * -s), a - SPINE_A - 2, (18, 21)) + 22 * (1 - lumbar)
        canvas.paint("muscle", psoas, crop)
        quadratus = ellipse(r - side * 70, a + 66 - 0.2 * (r * side - 70), (24, 11)) + 14 * (1 - lumbar)
        canvas.paint("muscle", quadratus, crop)


def paint_ribs(canvas: Canvas, cavity: Distance) -> None:
    """Paint ribs that fall from behind to the front, ending in cartilage along the costal margin."""
    r, a, s = canvas.coords
    level = s + 0.5 * a + 1.8 * canvas.texture[1]
    across = torch.remainder(level, _RIB_MM) - _RIB_MM / 2
    rib = ellipse(cavity - 5, across, (4.2, 6.8))
    margin = torch.maximum(-68 - level, 20 - r.abs())
    margin = torch.maximum(margin, 1.2 * (a - 10).clamp(min=0) - 65 - s)
    end = (a - 30 - 0.4 * s) * 0.8
    canvas.paint("cartilage", torch.maximum(torch.maximum(rib, margin), end - 45))
    bone = torch.maximum(torch.maximum(rib, margin), end)
    canvas.paint("cortical", bone)
    canvas.paint("marrow", bone + 1.9)


def paint_spine(canvas: Canvas) -> None:
    """Paint vertebrae with their arches and processes, discs, and the canal with the cord."""
    crop = canvas.crop(((-52, -112, -400), (52, -10, 400)))
    r, a, s = canvas.at(crop)
    level = torch.remainder(s + VERTEBRA_MM / 2, VERTEBRA_MM) - VERTEBRA_MM / 2
    behind, canal = a - SPINE_A, a - SPINE_A + 29
    disc = ellipse(r, behind, (24, 17.5))
    canvas.paint("disc", disc, crop, label=LABELS["vertebrae"])
    body = smooth_max(ellipse(r, behind, (25, 18.5)) + 0.012 * (14.5 - level.abs()).square(), level.abs() - 14.5, 2)
    arch = torch.maximum(ellipse(r, canal, (18, 16)), (level + 3).abs() - 12)
    spinous = ellipsoid(torch.stack([r, canal + 19, level + 6]), (0, 0, 0), (4.5, 13, 9))
    transverse = ellipsoid(torch.stack([r.abs() - 24, canal + 3, level]), (0, 0, 0), (22, 5, 6))
    bone = torch.minimum(smooth_min(arch, spinous, 4), smooth_min(body, transverse, 4))
    canvas.paint("cortical", bone, crop, label=LABELS["vertebrae"])
    canvas.paint("marrow", bone + 2.0, crop)
    sac = ellipse(r, canal, (10.5, 9))
    canvas.paint("csf", sac, crop, label=LABELS["spinal canal"])
    canvas.paint("cord", ellipse(r, canal, (5.5, 4.5)) + 3 * torch.sigmoid(-(s + 60) / 15), crop)


def paint_chest(canvas: Canvas, cavity: Distance) -> None:
    """Paint the diaphragm, both lungs with their vessels, and the heart."""
    r, a, s = canvas.coords
    depth = (dome_height(canvas.coords) - s) * 0.75
    mediastinum = 30 - (r + 6).abs() + 14 * torch.sigmoid((a - 10) / 12) - 8 * torch.sigmoid((-a - 40) / 8)
    lung = smooth_max(smooth_max(depth, cavity + 1.5, 6), mediastinum, 8)
    canvas.paint("muscle", torch.maximum(lung - 3, cavity + 0.5))
    canvas.paint("lung", lung, label=LABELS["lungs"])
    thread = torch.hypot(canvas.texture[1], canvas.texture[2]) * 9 - 1.6
    canvas.paint("lung_vessel", torch.maximum(thread, lung + 4))
    crop = canvas.crop(((-90, -20, 70), (60, 110, 200)))
    heart = ellipsoid(canvas.at(crop), (-22, 42, 132), (58, 46, 42), (0, 20, 20))
    canvas.paint("fat", heart - 4, crop)
    canvas.paint("heart", heart, crop, label=LABELS["heart"])
