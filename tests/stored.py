# SPDX-License-Identifier: Apache-2.0
"""Records of a run folder, written by hand: what a take.json holds, with what a test cares about changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retake.core.files import sha256_file, write_json
from retake.core.takes.make import SCHEMA


def take_json(**changes: Any) -> dict[str, Any]:
    """The content of a take.json."""
    return {
        "schema": SCHEMA, "id": "t", "video": "take.mp4", "video_sha256": "0" * 64, "variant": "v", "backend": "composite",
        "backend_version": "1", "domain": "composite", "seed": 1, "prompt": "p", "frames": 1, "fps": 15.0, "size": [64, 48],
        "inputs": {}, "camera": "front", "start": 0, "licence": "Apache-2.0", **changes,
    }  # fmt: skip


def write_take_json(folder: Path, **changes: Any) -> None:
    """A take.json beside a folder's take.mp4, with its hash."""
    video = folder / "take.mp4"
    stated = {"video_sha256": sha256_file(video)} if video.is_file() else {}
    write_json(folder / "take.json", take_json(id=folder.name, **{**stated, **changes}))
