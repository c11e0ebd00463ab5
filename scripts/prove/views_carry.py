# SPDX-License-Identifier: Apache-2.0
"""Anchor and carry, with the CPU painter standing in for a model: the carried frame against the painter's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from views_material import cameras_with_maps, halved, keep, recorded

from retake.core.episode import open_episode
from retake.core.painter.procedural import ProceduralBackend
from retake.core.variants.base import source_frame
from retake.core.variants.carry import anchor_of, carry
from retake.core.variants.roles import ROBOT, find_roles
from retake.core.variants.worlds import load_catalogue
from retake.core.verdicts.view_colours import lab_of_bytes


def carried(options: argparse.Namespace) -> None:
    """The carried frame against the painter's own second view."""
    out = []
    worlds = [load_catalogue().preset(name) for name in ("kitchen", "garden", "warehouse")]
    for path in recorded(options.episodes):
        episode = open_episode(path)
        cameras = cameras_with_maps(episode)
        sources = [halved(source_frame(episode, c, 0)) for c in cameras]
        first = anchor_of(sources)
        rows: dict[str, list[tuple[float, ...]]] = {}
        for world in worlds:
            painter = ProceduralBackend()
            seen = [painter.shown(source, world) for source in sources]
            frames = [painter.render(source, world, 0) for source in sources]
            for k, camera in enumerate(cameras):
                if k == first:
                    continue
                got = carry(seen[first], frames[first], seen[k])
                if got.known.sum() < 400:
                    continue
                robot = find_roles(sources[k]).role[sources[k].instance_ids] == ROBOT
                lab = np.linalg.norm(lab_of_bytes(got.frame) - lab_of_bytes(frames[k]), axis=-1)[got.known]
                anew = float((~got.known & ~robot).mean())
                alike = _ssim(got.frame, frames[k], got.known)
                rows.setdefault(camera, []).append((alike, float(np.median(lab)), got.share, anew))
        for camera, values in rows.items():
            ssim, lab, share, anew = np.mean(values, axis=0)
            out.append({"episode": path.name, "anchor": cameras[first], "camera": camera, "worlds": len(values),
                        "ssim": ssim, "lab": lab, "carried": share, "inpainted": anew})  # fmt: skip
            print(out[-1], flush=True)
        keep("carry", out)


def _ssim(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """Structural similarity of grey values (Wang et al. 2004; 11 px Gaussian windows), mean over pixels whose window is
    known."""
    x, y = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY).astype(np.float64) for i in (a, b))
    x = np.where(where, x, y)  # outside, windows would see the missing pixels
    inside = cv2.erode(where.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    if not inside.any():
        return float("nan")
    blur = lambda i: cv2.GaussianBlur(i, (11, 11), 1.5)  # noqa: E731
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(value[inside].mean())


def tell_carry(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "## Anchor and carry", "",
        "The CPU painter stands in for a model: its frame of the anchor camera is carried to the other cameras and compared "
        "there with its own frame. SSIM of grey values and Lab difference where both cameras see the same; the share that had "
        "to be painted anew (the robot, which is locked, left out).", "",
        "| episode | anchor, camera | worlds | SSIM | Lab difference, median | carried | painted anew |",
        "|---|---|---|---|---|---|---|",
        *(f"| {m['episode']} | {m['anchor']}, {m['camera']} | {m['worlds']} | {m['ssim']:.3f} | {m['lab']:.2f} | "
          f"{100 * m['carried']:.0f} % | {100 * m['inpainted']:.0f} % |" for m in found), "",
    ]  # fmt: skip
