# SPDX-License-Identifier: Apache-2.0
"""Training curves on disk: TensorBoard events where it is installed, and lines of JSON always. Reading them needs no torch.

```
curves/
  curves.jsonl            {"step": 12, "loss": 0.91, "seconds": 3.2, …}, one line per step and per validation
  events.out.tfevents.*   the same for TensorBoard, with the pictures
  pictures/step-000100.png
```

A run that was killed and went on writes the steps after its checkpoint again: of a step the last line counts.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.files import write_bytes

FOLDER, LINES, PICTURES = "curves", "curves.jsonl", "pictures"
RECENT = 50  # steps that the time per step is the mean of


class Curves:
    """Writes the curves of one process; `close` ends it. `folder` is the training's, not `curves` itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LINES
        cut_short = path.is_file() and not path.read_bytes().endswith(b"\n")
        # line by line on disk: the worker's page reads along, and a kill loses half a line at most
        self._lines = path.open("a", encoding="utf-8", buffering=1)
        if cut_short:
            self._lines.write("\n")
        self._last_s: float | None = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(self.folder))

    def add_step(self, step: int, **values: float | None) -> None:
        """One training step; `seconds` since the one before (validation and checkpoints between them included) is added."""
        now = time.monotonic()
        seconds = None if self._last_s is None else now - self._last_s
        self._last_s = now
        self.add(step, **values, seconds=seconds)

    def add(self, step: int, **values: float | None) -> None:
        """Values of a step; None is left out."""
        document = {name: value for name, value in values.items() if value is not None}
        self._lines.write(json.dumps({"step": step, **document}) + "\n")
        if self._board is not None:
            for name, value in document.items():
                self._board.add_scalar(name, value, step)

    def add_picture(self, step: int, picture: np.ndarray) -> Path:
        """A picture, uint8 RGB (H, W, 3), of a step; its file."""
        path = self.folder / PICTURES / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        write_bytes(path, data.tobytes())
        if self._board is not None:
            self._board.add_image("validation", picture, step, dataformats="HWC")
            self._board.flush()
        return path

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) in order of steps, of a training folder; empty where there are none. Damaged lines are left out."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    try:
        text = (folder / FOLDER / LINES).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    for line in text.splitlines():
        for name, step, value in _values(line):
            found[name][step] = value
    return {name: sorted(values.items()) for name, values in found.items()}


def _values(line: str) -> list[tuple[str, int, float]]:
    try:
        document: Any = json.loads(line)
    except ValueError:
        return []
    if not isinstance(document, dict) or not isinstance(step := document.pop("step", None), int):
        return []
    return [
        (name, step, float(value))
        for name, value in document.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def thinned(points: list[tuple[int, float]], count: int) -> list[tuple[int, float]]:
    """At most `count` points: means of equal runs of points, each at the last step of its run."""
    if len(points) <= count:
        return points
    edges = np.linspace(0, len(points), count + 1).astype(int)
    return [
        (points[stop - 1][0], float(np.mean([value for _, value in points[start:stop]])))
        for start, stop in pairwise(edges)
    ]


def seconds_per_step(curves: dict[str, list[tuple[int, float]]]) -> float | None:
    """Mean of the newest steps, validation and checkpoints between them included; None before the second step."""
    recent = [value for _, value in curves.get("seconds", [])[-RECENT:]]
    return float(np.mean(recent)) if recent else None
