# SPDX-License-Identifier: Apache-2.0
"""What the page can play: an H.264 file as it is, anything else as one picture holding all its frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.array_types import UInt8
from retake.core.episode import Episode
from retake.core.files import read_json, sha256_json, write_bytes, write_json
from retake.core.progress import CheckCancel, never
from retake.core.run_layout import name_of
from retake.core.video import codec_available, read_video, video_info, video_stated, write_video

SPRITE_WIDTH = 320
"""Frames in the fallback picture are this wide at most: 81 of them stay below 2 MB."""


def simulation_clip(
    episode: Episode, camera: str, folder: Path, page: Path, check_cancel: CheckCancel = never
) -> dict[str, Any]:
    """The simulator's own pictures as a clip beside the page; encoded once per episode."""
    target = folder / f"simulation_{camera}.mp4"
    stamp = folder / f"simulation_{camera}.json"
    source = sha256_json([episode.content_sha256, camera])

    def frames() -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for index in range(len(episode)):
            check_cancel()
            yield episode.image(camera, "rgb", index)

    known = read_json(stamp) if target.exists() and stamp.exists() else {}
    # PyAV is asked for only where it could do better than what is there: its import costs a tenth of a re-run.
    if known.get("source") != source or (known.get("codec") != "h264" and known.get("codec") != codec_available()):
        write_video(target, frames(), episode.header.fps)
        write_json(stamp, {"source": source, "codec": codec_available()})
    return playable(target, folder, page)


def playable(video: Path, folder: Path, page: Path) -> dict[str, Any]:
    """How the page plays a video: {kind: video, src} or {kind: sprite, src, columns, width, height, frames}.

    Paths are relative to the page. A sprite is written to `folder` when the browser could not play the file.
    """
    info = video_stated(video) or video_info(video)
    if info.codec in ("h264", "libx264"):
        return {"kind": "video", "src": _relative(video, page), "frames": info.frames, "size": list(info.size)}
    return _sprite(
        read_video(video), info.frames, folder / f"{name_of(video.parent).replace('/', '_')}_{video.stem}.jpg", page
    )


def _sprite(frames: Iterable[UInt8[np.ndarray, "H W 3"]], count: int, target: Path, page: Path) -> dict[str, Any]:
    columns = math.ceil(math.sqrt(count))
    sheet: np.ndarray | None = None
    width = height = 0
    for index, frame in enumerate(frames):
        if sheet is None:
            width = min(SPRITE_WIDTH, frame.shape[1])
            height = round(frame.shape[0] * width / frame.shape[1])
            sheet = np.zeros((height * math.ceil(count / columns), width * columns, 3), np.uint8)
        row, column = divmod(index, columns)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = small
    assert sheet is not None, "video_info refuses empty files"
    _, data = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    write_bytes(target, data.tobytes())
    return {
        "kind": "sprite",
        "src": _relative(target, page),
        "columns": columns,
        "width": width,
        "height": height,
        "frames": count,
        "size": [width, height],
    }


def _relative(path: Path, page: Path) -> str:
    return path.relative_to(page.parent).as_posix()
