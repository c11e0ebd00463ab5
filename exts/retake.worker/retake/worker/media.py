# SPDX-License-Identifier: Apache-2.0
"""Frames or a video as H.264 that every browser plays: `python -m retake.worker.media SOURCE OUT START COUNT FPS`.

A process of its own, so that the service holds no codec and no pictures in its memory.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from retake.core.errors import InputError, RetakeError
from retake.core.video import read_video, write_video

MAX_WIDTH = 640


def frames_of(source: Path, start: int, count: int) -> Iterator[np.ndarray]:
    """RGB frames of a folder of PNGs or of a video, at most 640 px wide. Raises InputError."""
    if source.is_dir():
        files = sorted(source.glob("*.png"))[start : start + count if count else None]
        every: Iterator[np.ndarray] = (_read(path) for path in files)
    else:
        every = itertools.islice(read_video(source), start, start + count if count else None)
    for frame in every:
        height, width = frame.shape[:2]
        if width > MAX_WIDTH:
            frame = cv2.resize(
                frame, (MAX_WIDTH, max(2, round(height * MAX_WIDTH / width))), interpolation=cv2.INTER_AREA
            )
        yield frame


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path} is no readable picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def main(argv: list[str]) -> int:
    """Encode; errors are one line on stderr."""
    source, out, start, count, fps = argv
    cv2.setNumThreads(1)
    try:
        write_video(Path(out), frames_of(Path(source), int(start), int(count)), float(fps), crf=22)
    except (RetakeError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
