# SPDX-License-Identifier: Apache-2.0
"""A marked point of the world, in every camera: where depth says it is, and where the pictures show it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from views_material import Film, cameras_with_maps, halved, keep, recorded

from retake.core.episode import open_episode
from retake.core.painter.staged import staged
from retake.core.variants.base import source_frame
from retake.core.variants.correspond import correspond, view_of
from retake.core.variants.worlds import load_catalogue, recipe_of
from retake.core.verdicts.views import displacement


def marks(options: argparse.Namespace) -> None:
    """How far a point of the world is from where the other camera shows it: local registration of aligned pictures."""
    out = []
    worlds = [load_catalogue().preset(name) for name in ("kitchen_country", "kitchen")[: options.worlds]]
    for path in recorded(options.episodes):
        episode = open_episode(path)
        cameras = cameras_with_maps(episode)
        away: dict[tuple[str, str], list[np.ndarray]] = {}
        for world in worlds:
            shown = staged(episode, recipe_of(world))
            films = {c: Film(episode, c, world) for c in cameras}
            for t in (0, len(episode) // 2, len(episode) - 1):
                for a, b in combinations(cameras[::-1], 2):
                    views = [view_of(halved(source_frame(shown, c, t))) for c in (a, b)]
                    where = correspond(*views)
                    found = displacement(films[a][t], films[b][t], where)
                    coarser = max(float(np.median(where.scale[where.seen])), 1.0) if where.seen.any() else 1.0
                    away.setdefault((a, b), []).append(np.stack([found, found / coarser]))
        for (a, b), parts in away.items():
            px, of_coarser = np.concatenate(parts, axis=1)
            if len(px) >= 20:
                out.append({"episode": path.name, "first": a, "second": b, "windows": len(px),
                            "median": float(np.median(px)), "p95": float(np.quantile(px, 0.95)),
                            "within": float((px <= 1).mean()), "coarser": float((of_coarser <= 1).mean())})  # fmt: skip
                print(out[-1], flush=True)
        keep("marks", out)


def tell_marks(found: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "## A marked point of the world in every camera", "",
        "Windows of the first camera's picture looked for in the second's, at subpixel accuracy, after both were laid over each "
        "other by depth; px of the first picture, 320 px wide, and share within a pixel of the coarser of the two (what the hand "
        "sees in five pixels the others see in one).", "",
        "| episode | cameras | windows | median | 95 % | share within 1 px | within 1 px of the coarser |",
        "|---|---|---|---|---|---|---|",
        *(f"| {m['episode']} | {m['first']}, {m['second']} | {m['windows']} | {m['median']:.2f} | {m['p95']:.2f} | "
          f"{100 * m['within']:.1f} % | {100 * m['coarser']:.1f} % |" for m in found), "",
    ]  # fmt: skip
