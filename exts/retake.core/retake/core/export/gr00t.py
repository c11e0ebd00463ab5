# SPDX-License-Identifier: Apache-2.0
"""GR00T's meta/modality.json: which part of the state and action vectors is what, written and validated.

The rules are those of the Isaac-GR00T data preparation guide: half-open slices of the concatenated vectors, cameras
renamed to short names, annotations that hold indices into tasks.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retake.core.export.records import ACTION, STATE, SUBTASK, Schema, Slice

ROTATIONS = (
    "axis_angle", "quaternion", "rotation_6d", "matrix",
    *(f"euler_angles_{order}" for order in ("rpy", "ryp", "pry", "pyr", "yrp", "ypr")),
)  # fmt: skip


def modality(schema: Schema) -> dict[str, Any]:
    """The content of modality.json. Joint targets are absolute positions, end-effector actions are steps."""
    return {
        "state": {s.name: {"start": s.start, "end": s.end, **_rotation(s)} for s in schema.slices},
        "action": {
            s.name: {"start": s.start, "end": s.end, "absolute": not s.kind.startswith("ee_"), **_rotation(s)}
            for s in schema.action_slices
        },
        "video": {key.rsplit(".", 1)[-1]: {"original_key": key} for key in schema.cameras},
        "annotation": {
            "human.task_description": {"original_key": "task_index"},
            **({SUBTASK.removeprefix("annotation."): {}} if SUBTASK in schema.vectors else {}),
        },
    }


def _rotation(part: Slice) -> dict[str, str]:
    return {"rotation_type": "axis_angle"} if part.kind == "ee_rotation" else {}


def problems(root: Path) -> list[str]:
    """What keeps GR00T's loader from reading a v2.1 dataset; empty when nothing does. Reads metadata and one data file."""
    out: list[str] = []
    files = ("info.json", "modality.json", "tasks.jsonl", "episodes.jsonl")
    for name in files:
        if not (root / "meta" / name).is_file():
            out.append(f"meta/{name} is missing")
    if out:
        return out
    info = json.loads((root / "meta/info.json").read_text("utf-8"))
    content = json.loads((root / "meta/modality.json").read_text("utf-8"))
    features = info.get("features", {})
    if not str(info.get("codebase_version", "")).startswith("v2"):
        out.append(f"codebase_version is {info.get('codebase_version')!r}; GR00T reads v2.x")
    if STATE not in features:
        out.append(f"feature {STATE} must exist")
    for section in ("state", "action", "video"):
        if not isinstance(content.get(section), dict) or (section != "video" and not content[section]):
            out.append(f"modality.json has no section {section!r}")
    for section, key in (("state", STATE), ("action", ACTION)):
        for name, part in (content.get(section) or {}).items():
            source = part.get("original_key", key)
            width = (features.get(source, {}).get("shape") or [0])[0]
            start, end = part.get("start"), part.get("end")
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= width):
                out.append(f"{section}.{name}: slice {start}:{end} does not lie in {source} with {width} entries")
            if part.get("rotation_type") not in (None, *ROTATIONS):
                out.append(f"{section}.{name}: rotation_type {part['rotation_type']!r} is unknown")
    for name, part in (content.get("video") or {}).items():
        source = part.get("original_key", f"observation.images.{name}")
        if features.get(source, {}).get("dtype") != "video":
            out.append(f"video.{name}: {source!r} is no video feature")
    annotations = {f"annotation.{name}" for name in content.get("annotation") or {}}
    for name, part in (content.get("annotation") or {}).items():
        source = part.get("original_key", f"annotation.{name}")
        if source not in features:
            out.append(f"annotation.{name}: there is no column {source!r}")
    out += [
        f"column {key!r} begins with 'annotation' but is none"
        for key in features
        if key.startswith("annotation") and key not in annotations
    ]
    out += _files(root, info, features)
    return out


def _files(root: Path, info: dict[str, Any], features: dict[str, Any]) -> list[str]:
    """Whether tasks, episodes and files on disk agree with info.json."""
    out: list[str] = []
    tasks = [json.loads(x) for x in (root / "meta/tasks.jsonl").read_text("utf-8").split("\n") if x]
    episodes = [json.loads(x) for x in (root / "meta/episodes.jsonl").read_text("utf-8").split("\n") if x]
    if [t.get("task_index") for t in tasks] != list(range(len(tasks))):
        out.append("tasks.jsonl: task_index must count from 0")
    if [e.get("episode_index") for e in episodes] != list(range(info.get("total_episodes", -1))):
        out.append(f"episodes.jsonl: episode_index must count 0 … {info.get('total_episodes')}-1")
    if sum(e.get("length", 0) for e in episodes) != info.get("total_frames"):
        out.append("episodes.jsonl: lengths do not add up to total_frames")
    known = {t.get("task") for t in tasks}
    for episode in episodes:
        index = episode.get("episode_index", 0)
        chunk = index // info.get("chunks_size", 1000)
        out += [
            f"episode {index}: task {t!r} is not in tasks.jsonl" for t in episode.get("tasks", []) if t not in known
        ]
        names = [info["data_path"].format(episode_chunk=chunk, episode_index=index)]
        for key, feature in features.items():
            if feature.get("dtype") == "video":
                names.append(info["video_path"].format(episode_chunk=chunk, episode_index=index, video_key=key))
        out += [f"{name} is missing" for name in names if not (root / name).is_file()]
    return out
