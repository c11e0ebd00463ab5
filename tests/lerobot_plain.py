# SPDX-License-Identifier: Apache-2.0
"""Small LeRobot v2.1 datasets as other tools write them: any names, keys, units and faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retake.core.export import encode
from retake.core.export.records import VideoOptions

PANDA = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1", "panda_finger_joint2")
SO101 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
LIMITS = ((-1.92, 1.92), (-1.75, 1.75), (-1.69, 1.69), (-1.66, 1.66), (-2.74, 2.84), (-0.17, 1.75))


def picture(k: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A frame with a bright block whose place is k."""
    out = np.full((size[1], size[0], 3), 60, np.uint8)
    x = 3 * k % (size[0] - 16)
    out[20:36, x : x + 16] = (250, 220, 30)
    return out


def panda_motion(frames: int = 12) -> np.ndarray:
    """(T, 9) rad and m within the limits of panda.urdf; every joint moves."""
    t = np.linspace(0, 1, frames)[:, None]
    low = np.array([-1.2, -0.6, -1.0, -2.4, -0.9, 1.0, -1.1, 0.0, 0.0])
    high = np.array([1.2, 0.9, 0.8, -1.0, 0.7, 2.2, 1.3, 0.04, 0.04])
    return low + (high - low) * t


def so101_motion(frames: int = 12) -> np.ndarray:
    """(T, 6) rad: most of every joint's travel, no end reached."""
    t = np.linspace(0.06, 0.94, frames)[:, None]
    low, high = np.array(LIMITS).T
    return low + (high - low) * t


def so101_urdf(path: Path, names: Sequence[str] = SO101) -> Path:
    """An arm of five joints and a jaw, with the limits of an SO-101."""
    links = "".join(f'<link name="l{i}"/>' for i in range(7))
    joints = "".join(
        f'<joint name="{name}" type="revolute"><origin xyz="0 0 0.1"/><parent link="l{i}"/><child link="l{i + 1}"/>'
        f'<axis xyz="0 {i % 2} {1 - i % 2}"/><limit lower="{low}" upper="{high}" effort="5" velocity="10"/></joint>'
        for i, (name, (low, high)) in enumerate(zip(names, LIMITS, strict=True))
    )
    path.write_text(f'<robot name="so101">{links}{joints}</robot>', "utf-8")
    return path


def shares(values: np.ndarray, first: float, last: float, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    """Positions as shares of their travel: first at the lower limit, last at the upper one."""
    low, high = np.array(limits).T
    return first + (last - first) * (values - low) / (high - low)


def write_plain(
    root: Path,
    state: np.ndarray,
    names: Any,
    *,
    action: np.ndarray | None = None,
    action_names: Any = "same",
    key: str = "observation.images.front",
    state_key: str = "observation.state",
    action_key: str = "action",
    fps: int = 20,
    stamps: np.ndarray | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    embedded: bool = False,
    extra: dict[str, Any] | None = None,
    cells: list[list[float]] | None = None,
    info: dict[str, Any] | None = None,
) -> Path:
    """One episode. `cells`: rows of the state column where they are not rectangular."""
    length = len(state)
    shown = [picture(k) for k in range(length)] if pictures is None else list(pictures)
    height, width = shown[0].shape[:2]
    columns: dict[str, Any] = {state_key: cells or state.astype(np.float32).tolist()}
    features: dict[str, Any] = {state_key: {"dtype": "float32", "shape": [state.shape[1]], "names": names}}
    if action is not None:
        columns[action_key] = action.astype(np.float32).tolist()
        own = names if isinstance(action_names, str) else action_names
        features[action_key] = {"dtype": "float32", "shape": [action.shape[1]], "names": own}
    for name, values in (extra or {}).items():
        columns[name] = values.astype(np.float32).tolist()
        features[name] = {"dtype": "float32", "shape": [1] if values.ndim == 1 else [values.shape[1]], "names": None}
    frame = np.arange(length)
    stamps = frame / fps if stamps is None else stamps
    columns |= {"timestamp": pa.array(stamps.astype(np.float32)), "frame_index": frame, "episode_index": frame * 0}
    columns |= {"index": frame, "task_index": frame * 0}
    features[key] = {"dtype": "image" if embedded else "video", "shape": [height, width, 3], "names": ["h", "w", "c"]}
    video = root / f"videos/chunk-000/{key}/episode_000000.mp4"
    if embedded:
        columns[key] = [{"bytes": png(p), "path": None} for p in shown]
    else:
        video.parent.mkdir(parents=True, exist_ok=True)
        encode.encode(video, shown, fps, len(shown), VideoOptions.of("h264", 18))
    (root / "meta").mkdir(parents=True, exist_ok=True)
    data = root / "data/chunk-000/episode_000000.parquet"
    data.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), data)
    (root / "meta/info.json").write_text(
        json.dumps({
            "codebase_version": "v2.1", "robot_type": "unknown", "total_episodes": 1, "total_frames": length, "fps": fps,
            "chunks_size": 1000, "features": features,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4", **(info or {}),
        }), "utf-8",
    )  # fmt: skip
    (root / "meta/episodes.jsonl").write_text(json.dumps({"episode_index": 0, "tasks": ["t"], "length": length}) + "\n")
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "t"}) + "\n")
    return root


def png(picture: np.ndarray) -> bytes:
    """A picture as PNG."""
    import cv2

    ok, data = cv2.imencode(".png", picture[..., ::-1])
    assert ok
    return data.tobytes()
