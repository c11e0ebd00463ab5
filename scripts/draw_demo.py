# SPDX-License-Identifier: Apache-2.0
"""The README's picture in motion, from a run: simulation, skeleton and three takes, in step.

usage: draw_demo.py [RUN] [OUT.webp]      default: runs/demo docs/images/demo.webp

Needs Pillow (it comes with the extra `newton`). The file stays under 2 MB: quality is lowered until it does.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.episode import open_episode
from retake.core.run_layout import world_of
from retake.core.run_store import RunDirectory
from retake.core.skeleton import open_skeleton
from retake.core.video import read_video

LIMIT_BYTES = 2_000_000
TILE = (320, 240)
GAP, BAND = 8, 26
PAPER, INK, SOFT = (250, 250, 251), (28, 32, 36), (110, 116, 126)
STEP = 2
"""Every second frame: enough to follow the motion, half the bytes."""
QUALITIES = (70, 60, 50, 40, 30, 20)


def main(arguments: Sequence[str]) -> int:
    run = RunDirectory(Path(arguments[0] if arguments else "runs/demo"))
    out = Path(arguments[1] if len(arguments) > 1 else "docs/images/demo.webp")
    frames, fps = compose(run)
    for quality in QUALITIES:
        data = encode(frames, fps, quality)
        if len(data) <= LIMIT_BYTES:
            break
    else:
        sys.exit(f"{len(data)} bytes at quality {QUALITIES[-1]}; take a shorter run")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    print(f"{out}: {len(frames)} frames, {len(data) / 1e6:.2f} MB at quality {quality}")
    return 0


def compose(run: RunDirectory) -> tuple[list[np.ndarray], float]:
    """Pictures of the whole arrow and how many of them a second has."""
    episode = open_episode(run.episode)
    camera = episode.header.cameras[0].name
    takes = [
        (list(read_video(take.video)), world_of(take.variant)) for take in run.takes() if take.camera in (camera, "")
    ][:3]
    if len(takes) < 3:
        sys.exit(f"{run.path} has {len(takes)} takes; three are shown. `make demo` makes them")
    skeleton = open_skeleton(run.skeleton(camera))
    count = min(len(episode), *(len(frames) for frames, _ in takes))
    pictures = []
    for index in range(0, count, STEP):
        tiles = [
            (episode.image(camera, "rgb", index), "simulation"),
            (skeleton.frame(index), "skeleton"),
            *((frames[index], f"take: {name.replace('_', ' ')}") for frames, name in takes),
        ]
        pictures.append(sheet(tiles))
    return pictures, episode.header.fps / STEP


def sheet(tiles: Sequence[tuple[np.ndarray, str]]) -> np.ndarray:
    """Simulation and skeleton above, the takes below; uint8 RGB."""
    (w, h), columns = TILE, 3
    width, height = columns * w + (columns + 1) * GAP, 2 * (h + BAND) + 3 * GAP
    page = np.full((height, width, 3), PAPER, np.uint8)
    places = [(0, 0.5), (0, 1.5), (1, 0.0), (1, 1.0), (1, 2.0)]
    for (image, text), (row, column) in zip(tiles, places, strict=True):
        x, y = round(GAP + column * (w + GAP)), GAP + row * (h + BAND + GAP)
        page[y : y + h, x : x + w] = cv2.resize(image, TILE, interpolation=cv2.INTER_AREA)
        cv2.putText(
            page, text, (x + 2, y + h + 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK if row else SOFT, 1, cv2.LINE_AA
        )
    return page


def encode(frames: Sequence[np.ndarray], fps: float, quality: int) -> bytes:
    from PIL import Image

    images: list[Any] = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    images[0].save(
        stream,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=quality,
        method=4,
    )
    return stream.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
