# SPDX-License-Identifier: Apache-2.0
"""Real video: the DROID sample's own recording, in other looks and with planted faults, judged as `retake verify` does.

Needs the third-party sample (`../shared/golden/droid`); with RETAKE_DROID_MESHES (a folder with the robot's meshes as .obj
or .stl) the same videos are also judged with masks of these meshes. Says so where either is absent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retake.core.episode import Episode, open_episode
from retake.core.files import read_json, write_json
from retake.core.importers.oscar import import_oscar
from retake.core.masks import mask_episode
from retake.core.verdicts import judge, load_settings
from retake.core.verdicts.records import VERSION
from retake.core.video import read_video

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / ".." / "shared" / "golden" / "droid"


def late(frames: np.ndarray, lag: int) -> np.ndarray:
    """Frame t shows t - lag."""
    return frames[np.clip(np.arange(len(frames)) - lag, 0, len(frames) - 1)]


def moved(frames: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Every frame moved by shares of the width."""
    height, width = frames.shape[1:3]
    M = np.array([[1, 0, dx * width], [0, 1, dy * width]], np.float32)
    return np.stack([cv2.warpAffine(f, M, (width, height), borderMode=cv2.BORDER_REPLICATE) for f in frames])


def frozen(frames: np.ndarray, count: int) -> np.ndarray:
    """The middle `count` frames stand still."""
    out, begin = frames.copy(), len(frames) // 2 - count // 2
    out[begin : begin + count] = frames[begin]
    return out


def warped(frames: np.ndarray, pixels: float) -> np.ndarray:
    """A smooth displacement that moves, up to `pixels`."""
    height, width = frames.shape[1:3]
    rng = np.random.default_rng(1)
    a, b = (
        cv2.resize(rng.normal(size=(4, 6, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in "ab"
    )
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    out = []
    for t, frame in enumerate(frames):
        mix = np.float32(0.5 + 0.5 * np.sin(t / 8))
        d = a * mix + b * (1 - mix)
        d *= np.float32(pixels / np.linalg.norm(d, axis=-1).max())
        out.append(cv2.remap(frame, u + d[..., 0], v + d[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(out)


def jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    """Every frame through a JPEG encoder."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    encoded = (cv2.imencode(".jpg", frame, options)[1] for frame in frames)
    return np.stack([np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)) for data in encoded])


TRUE = {
    "the recording itself": lambda f: f,
    "darker by half": lambda f: (f * 0.5).astype(np.uint8),
    "other hues": lambda f: np.ascontiguousarray(f[..., [1, 2, 0]]),
    "smoothed": lambda f: np.stack([cv2.bilateralFilter(one, 7, 60, 5) for one in f]),
    "warped by up to 3 px at 640": lambda f: warped(f, 3 * f.shape[2] / 640),
    "JPEG quality 30": lambda f: jpeg(f, 30),
}
FAULTY = {
    "2 frames late": lambda f: late(f, 2),
    "4 frames late, other hues": lambda f: late(f[..., [1, 2, 0]], 4),
    "3 frames early": lambda f: late(f[::-1], 3)[::-1],
    "moved by 2 % of the width": lambda f: moved(f, 0.02, 0),
    "moved by 4 %, smoothed": lambda f: moved(np.stack([cv2.bilateralFilter(one, 7, 60, 5) for one in f]), 0, 0.04),
    "frozen for 9 frames": lambda f: frozen(f, 9),
    "frozen for 30 frames": lambda f: frozen(f, 30),
    "another segment": lambda f: np.roll(f, len(f) // 3, 0),
    "mirrored": lambda f: np.ascontiguousarray(f[:, :, ::-1]),
    "backwards": lambda f: f[::-1],
}


def rows(cache: Path) -> list[dict[str, Any]]:
    """One row per video and way of judging; empty without the sample. Kept in `cache`."""
    if not (SAMPLE / "rgb.mp4").is_file():
        return []
    cache.mkdir(parents=True, exist_ok=True)
    plain = import_oscar(SAMPLE, cache / "recorded")
    ways: dict[str, Episode] = {"without masks": plain}
    if meshes := os.environ.get("RETAKE_DROID_MESHES"):
        if not (cache / "masked" / "complete.json").exists():
            mask_episode(plain, cache / "masked", SAMPLE / "panda_robotiq.urdf", Path(meshes))
        ways["with masks"] = open_episode(cache / "masked")
    small = np.stack([cv2.resize(f, (640, 360), interpolation=cv2.INTER_AREA) for f in read_video(SAMPLE / "rgb.mp4")])
    out, settings = [], load_settings()
    for way, episode in ways.items():
        for truth, group in ((True, TRUE), (False, FAULTY)):
            for name, change in group.items():
                kept = cache / f"{way}-{name}.json".replace(" ", "_").replace("%", "percent")
                if not kept.exists():
                    verdict = judge(
                        np.ascontiguousarray(change(small)), episode, episode.header.cameras[0].name, config=settings
                    )
                    write_json(kept, {
                        "way": way, "video": name, "true": truth, "overall": verdict.overall, "version": VERSION,
                        "probability": round(verdict.probability, 3),
                        "failed": [c.name for c in verdict.checks if c.status == "fail"],
                        "unsure": [c.name for c in verdict.checks if c.status == "unsure"],
                    })  # fmt: skip
                out.append(read_json(kept))
    return out
